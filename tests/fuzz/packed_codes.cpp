#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "core/key_codec.h"
#include "core/packing.h"
#include "core/value_codec.h"

namespace {

// Bytes of the input, then zeros.
class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  void take(void* out, std::size_t count) {
    const std::size_t given = std::min(count, bytes_.size());
    std::copy_n(bytes_.data(), given, static_cast<std::uint8_t*>(out));
    std::fill_n(static_cast<std::uint8_t*>(out) + given, count - given, std::uint8_t{0});
    bytes_ = bytes_.subspan(given);
  }
  // 0 to most - 1.
  int choose(int most) {
    std::uint8_t byte = 0;
    take(&byte, 1);
    return byte % most;
  }
  template <typename T>
  std::vector<T> vector(std::size_t count) {
    std::vector<T> values(count);
    take(values.data(), count * sizeof(T));
    return values;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

// Whatever the packed bytes are, packing what they hold gives them back, but for spare bits.
void check_packing(Bytes input) {
  const int bits = 1 + input.choose(8);
  const std::size_t count = input.left() * 8 / static_cast<std::size_t>(bits);
  const auto packed = input.vector<std::uint8_t>(tq::packed_bytes(count, bits));
  std::vector<std::uint8_t> codes(count), again(packed.size());
  tq::unpack_codes(packed.data(), count, bits, codes.data());
  if (std::any_of(codes.begin(), codes.end(), [&](std::uint8_t code) { return code >> bits != 0; })) {
    std::abort();
  }
  tq::pack_codes(codes.data(), count, bits, again.data());
  const std::size_t whole = count * static_cast<std::size_t>(bits) / 8;
  if (!std::equal(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(whole), again.begin())) {
    std::abort();
  }
}

constexpr std::array<int, 3> kHeadDims{16, 80, 128};
constexpr std::size_t kMaxRows = 64;

const tq::KeyCodec& key_codec(int head_dim, tq::KeyMode mode, int bits) {
  static std::map<std::tuple<int, tq::KeyMode, int>, tq::KeyCodec> codecs;
  const auto key = std::tuple(head_dim, mode, bits);
  if (const auto known = codecs.find(key); known != codecs.end()) return known->second;
  const tq::KeyConfig config{.mode = mode, .bits = bits};
  auto rotation = std::make_shared<tq::Rotation>(tq::Rotation::make(tq::RotationKind::rht, head_dim, 1));
  auto sketch = std::make_shared<tq::Sketch>(tq::Sketch::make(tq::SketchKind::orthogonal, head_dim, 1));
  return codecs
      .emplace(key, tq::KeyCodec(config, rotation, mode == tq::KeyMode::prod ? sketch : nullptr,
                                 tq::default_key_tables(config, head_dim)))
      .first->second;
}

// Codes, signs and scales of any bytes, as a cache or an engine may hand them over.
void decode_keys(Bytes input) {
  const int head_dim = kHeadDims[static_cast<std::size_t>(input.choose(kHeadDims.size()))];
  const tq::KeyMode mode = input.choose(2) == 0 ? tq::KeyMode::mse : tq::KeyMode::prod;
  const int bits = mode == tq::KeyMode::prod ? 2 + input.choose(7) : 1 + input.choose(8);
  const tq::KeyCodec& codec = key_codec(head_dim, mode, bits);
  const std::size_t d = static_cast<std::size_t>(head_dim);
  const std::size_t rows = std::min(
      kMaxRows, 1 + input.left() / static_cast<std::size_t>(tq::bytes_per_token(codec.config(), head_dim)));
  tq::EncodedKeys keys;
  keys.rows = rows;
  keys.codes = input.vector<std::uint8_t>(rows * tq::packed_bytes(d, codec.config().table_bits()));
  keys.scales = input.vector<std::uint16_t>(rows);
  if (mode == tq::KeyMode::prod) {
    keys.signs = input.vector<std::uint8_t>(rows * d / 8);
    keys.residual_norms = input.vector<std::uint16_t>(rows);
  }
  std::vector<float> decoded(rows * d), scores(rows);
  codec.decode(keys, decoded.data());
  codec.scores(codec.prepare(decoded.data(), 1), keys, scores.data());
}

void decode_groups(Bytes input) {
  const int head_dim = kHeadDims[static_cast<std::size_t>(input.choose(kHeadDims.size()))];
  constexpr std::array<int, 4> kBits{2, 3, 4, 8};
  const tq::ValueConfig config{.mode = tq::ValueMode::group,
                               .bits = kBits[static_cast<std::size_t>(input.choose(kBits.size()))],
                               .group_size = 16};
  const tq::ValueCodec codec(config, head_dim, nullptr, {});
  const std::size_t d = static_cast<std::size_t>(head_dim);
  const std::size_t rows =
      std::min(kMaxRows, 1 + input.left() / static_cast<std::size_t>(tq::bytes_per_token(config, head_dim)));
  tq::EncodedGroups values;
  values.rows = rows;
  values.codes = input.vector<std::uint8_t>(rows * tq::packed_bytes(d, config.bits));
  values.zeros = input.vector<std::uint16_t>(rows * d / 16);
  values.scales = input.vector<std::uint16_t>(rows * d / 16);
  std::vector<float> decoded(rows * d);
  codec.decode(values, decoded.data());
}

}  // namespace

// Codes as they lie in a cache: a byte that chooses, then packed bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes input({data + 1, size - 1});
  if (data[0] % 3 == 0) check_packing(input);
  if (data[0] % 3 == 1) decode_keys(input);
  if (data[0] % 3 == 2) decode_groups(input);
  return 0;
}
