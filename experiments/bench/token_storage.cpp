#include "experiments/bench/token_storage.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "experiments/bench/tile_codes.h"

namespace tq::bench {
namespace {

using gpu::i64;
using gpu::kTileTokens;

std::size_t as_size(i64 value) { return static_cast<std::size_t>(value); }

int tiles_of(int tokens) { return (tokens + kTileTokens - 1) / kTileTokens; }

// Calls piece(sequence, index, first token, tokens) for pieces that a TokenSource can give.
template <typename Piece>
void for_each_piece(const StorageShape& shape, const Piece& piece) {
  for (int sequence = 0; sequence < shape.sequences; ++sequence) {
    for (int first = 0, index = 0; first < shape.tokens; first += TokenSource::kPieceTokens, ++index)
      piece(sequence, index, first, std::min(TokenSource::kPieceTokens, shape.tokens - first));
  }
}

DeviceBuffer upload_states(const Device& device, int sequences, const gpu::SequenceState& state) {
  DeviceBuffer buffer(device, static_cast<std::size_t>(sequences) * sizeof(state));
  const CurrentContext current(device);
  upload(buffer.address(), std::vector(static_cast<std::size_t>(sequences), state));
  return buffer;
}

}  // namespace

QuantisedTokens::QuantisedTokens(GpuContext& gpu, const StorageShape& shape, const CodecPair& codecs,
                                 std::uint64_t seed, const TokenSource& source, StreamRef stream)
    : gpu_(gpu),
      shape_(shape),
      layer_(make_layer(codecs, shape.d, shape.kv_heads, seed)),
      keys_(gpu, {layer_.keys[0].get()}, gpu::Side::keys),
      values_(gpu, {layer_.values[0].get()}),
      attention_(gpu, keys_, values_),
      key_bytes_(gpu::tile_bytes(keys_.spec())),
      head_bytes_(key_bytes_ + gpu::tile_bytes(values_.spec())),
      page_bytes_(head_bytes_ * shape.kv_heads),
      sequence_bytes_(page_bytes_ * tiles_of(shape.tokens)),
      pool_(gpu.device(), as_size(sequence_bytes_) * as_size(shape.sequences)),
      states_(upload_states(gpu.device(), shape.sequences, {shape.tokens, 0, 0, 0})) {
  for_each_piece(shape, [&](int sequence, int index, int first, int count) {
    const gpu::Ranges ranges = gpu::one_range(first, count);
    keys_.encode(source.keys(sequence, index), gpu::Element::f16, shape.kv_heads, ranges, key_tiles(sequence),
                 false, stream);
    values_.encode(source.values(sequence, index), gpu::Element::f16, shape.kv_heads, ranges,
                   value_tiles(sequence), false, stream);
  });
  stream.synchronize();
}

gpu::TileView QuantisedTokens::key_tiles(int first) const {
  return {
      pool_.as<gpu::u8>() + first * sequence_bytes_, page_bytes_, head_bytes_, sequence_bytes_, nullptr, 0};
}

gpu::TileView QuantisedTokens::value_tiles(int first) const {
  gpu::TileView view = key_tiles(first);
  view.base += key_bytes_;
  return view;
}

void QuantisedTokens::attend(gpu::GpuAttention::Call call, int first, StreamRef stream) {
  call.keys = key_tiles(first);
  call.values = value_tiles(first);
  call.states = states_.as<const gpu::SequenceState>() + first;
  call.most_quantised = shape_.tokens;
  attention_.attend(call, stream);
}

void QuantisedTokens::for_each_block(int sequence, int head, const BlockReader& read) const {
  constexpr int kTilesAtOnce = 4096;  // some tens of megabytes
  const CurrentContext current(gpu_.device());
  const int tiles = tiles_of(shape_.tokens);
  const std::size_t head_bytes = as_size(head_bytes_), d = as_size(shape_.d);
  const DeviceBuffer gathered(gpu_.device(), head_bytes * as_size(std::min(tiles, kTilesAtOnce)));
  std::vector<gpu::u8> bytes(gathered.bytes());
  for (int begin = 0; begin < tiles; begin += kTilesAtOnce) {
    const int count = std::min(kTilesAtOnce, tiles - begin);
    for (int i = 0; i < count; ++i) {
      const i64 at = sequence * sequence_bytes_ + (begin + i) * page_bytes_ + head * head_bytes_;
      copy_on_device(gathered.address() + as_size(i) * head_bytes, pool_.address() + as_size(at), head_bytes);
    }
    download(bytes, gathered.address());
#pragma omp parallel
    {
      std::vector<float> k(kTileTokens * d), v(kTileTokens * d);
#pragma omp for schedule(dynamic, 8)
      for (int i = 0; i < count; ++i) {
        const gpu::u8* tile = bytes.data() + as_size(i) * head_bytes;
        const std::size_t rows = as_size(std::min(kTileTokens, shape_.tokens - (begin + i) * kTileTokens));
        decode(layer_.key_codec(0), keys_of_tile(layer_.key_codec(0), gpu::Side::keys, tile, rows), k.data());
        decode(layer_.value_codec(0), values_of_tile(layer_.value_codec(0), tile + key_bytes_, rows),
               v.data());
        read({omp_get_thread_num(), as_size(begin + i) * kTileTokens, rows, k.data(), v.data()});
      }
    }
  }
}

ExactTokens::ExactTokens(GpuContext& gpu, const StorageShape& shape, const TokenSource& source,
                         StreamRef stream)
    : gpu_(gpu), shape_(shape), attention_(gpu, shape.d) {
  const std::size_t head_bytes = as_size(shape.tokens) * as_size(shape.d) * 2,
                    heads = as_size(shape.sequences) * as_size(shape.kv_heads);
  const CurrentContext current(gpu.device());
  k_ = DeviceBuffer(gpu.device(), heads * head_bytes);
  v_ = DeviceBuffer(gpu.device(), heads * head_bytes);
  states_ = upload_states(gpu.device(), shape.sequences, {0, shape.tokens, 0, 0});
  for_each_piece(shape, [&](int sequence, int index, int first, int count) {
    const auto store = [&](const DeviceBuffer& to, const gpu::VectorView& from) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        const std::size_t at =
            as_size(sequence * shape.kv_heads + head) * head_bytes + as_size(first) * as_size(shape.d) * 2;
        const gpu::u16* rows = static_cast<const gpu::u16*>(from.data) + head * from.head_stride;
        copy_on_device(to.address() + at, reinterpret_cast<DeviceAddress>(rows),
                       as_size(count) * as_size(shape.d) * 2, stream);
      }
    };
    store(k_, source.keys(sequence, index));
    store(v_, source.values(sequence, index));
  });
  stream.synchronize();
}

void ExactTokens::attend(gpu::GpuAttention::Call call, int first, StreamRef stream) {
  const i64 head = static_cast<i64>(shape_.tokens) * shape_.d, sequence = head * shape_.kv_heads;
  call.exact = {k_.as<const gpu::u16>() + first * sequence,
                v_.as<const gpu::u16>() + first * sequence,
                sequence,
                head,
                shape_.d,
                0,
                0};
  call.states = states_.as<const gpu::SequenceState>() + first;
  call.most_exact = shape_.tokens;
  attention_.attend(call, stream);
}

void ExactTokens::for_each_block(int sequence, int head, const BlockReader& read) const {
  constexpr std::size_t kTokensAtOnce = 1 << 18, kBlock = 64;
  const CurrentContext current(gpu_.device());
  const std::size_t d = as_size(shape_.d), tokens = as_size(shape_.tokens),
                    begin = as_size(sequence * shape_.kv_heads + head) * tokens;
  std::vector<std::uint16_t> k(std::min(tokens, kTokensAtOnce) * d), v(k.size());
  for (std::size_t first = 0; first < tokens; first += kTokensAtOnce) {
    const std::size_t count = std::min(kTokensAtOnce, tokens - first);
    const DeviceAddress at = (begin + first) * d * 2;
    download(std::span(k).first(count * d), k_.address() + at);
    download(std::span(v).first(count * d), v_.address() + at);
#pragma omp parallel
    {
      std::vector<float> wide_k(kBlock * d), wide_v(kBlock * d);
#pragma omp for
      for (std::size_t t = 0; t < count; t += kBlock) {
        const std::size_t rows = std::min(kBlock, count - t);
        half_to_float(k.data() + t * d, wide_k.data(), rows * d);
        half_to_float(v.data() + t * d, wide_v.data(), rows * d);
        read({omp_get_thread_num(), first + t, rows, wide_k.data(), wide_v.data()});
      }
    }
  }
}

std::string describe(const StorageCodec& codec) { return codec ? describe(*codec) : "binary16"; }

int bytes_per_token(const StorageCodec& codec, int d) {
  constexpr int kHalf = 2;
  return codec ? tq::bytes_per_token(codec->key, d) + tq::bytes_per_token(codec->value, d) : 2 * kHalf * d;
}

std::unique_ptr<TokenStorage> make_storage(GpuContext& gpu, const StorageShape& shape,
                                           const StorageCodec& codec, std::uint64_t seed,
                                           const TokenSource& source, StreamRef stream) {
  if (!codec) return std::make_unique<ExactTokens>(gpu, shape, source, stream);
  return std::make_unique<QuantisedTokens>(gpu, shape, *codec, seed, source, stream);
}

}  // namespace tq::bench
