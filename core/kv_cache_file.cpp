#include <algorithm>
#include <cstdint>
#include <istream>
#include <ostream>

#include "core/error.h"
#include "core/kv_cache.h"
#include "core/sha256.h"

namespace tq {
namespace {

constexpr char kMagic[8] = {'T', 'Q', 'K', 'V', 'C', 'A', 'C', 'H'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << 40;  // no size computed from it overflows

class Writer {
 public:
  explicit Writer(std::ostream& stream) : stream_(stream) {}

  void bytes(const void* data, std::size_t count) {
    hash_.update(data, count);
    put(data, count);
  }
  void number(std::uint64_t value, int width) {
    std::uint8_t out[8];
    for (int i = 0; i < width; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
    bytes(out, static_cast<std::size_t>(width));
  }
  void finish() {
    const Sha256::Digest digest = hash_.finish();
    put(digest.data(), digest.size());
    if (!stream_.flush()) throw SystemError("KV cache: writing failed");
  }

 private:
  void put(const void* data, std::size_t count) {
    if (!stream_.write(static_cast<const char*>(data), static_cast<std::streamsize>(count)))
      throw SystemError("KV cache: writing failed");
  }

  std::ostream& stream_;
  Sha256 hash_;
};

class Reader {
 public:
  explicit Reader(std::istream& stream) : stream_(stream) {}

  void bytes(void* data, std::size_t count) {
    get(data, count);
    hash_.update(data, count);
  }
  std::uint64_t number(int width) {
    std::uint8_t in[8];
    bytes(in, static_cast<std::size_t>(width));
    std::uint64_t value = 0;
    for (int i = 0; i < width; ++i) value |= std::uint64_t{in[i]} << (8 * i);
    return value;
  }
  void expect(const char* what, std::uint64_t expected) {
    if (const std::uint64_t found = number(4); found != expected)
      throw InputError("KV cache: saved with {} {}, not {}", what, found, expected);
  }
  void finish() {
    const Sha256::Digest digest = hash_.finish();
    Sha256::Digest stored;
    get(stored.data(), stored.size());
    if (stored != digest) throw InputError("KV cache: damaged: the digest does not match");
  }

 private:
  void get(void* data, std::size_t count) {
    if (!stream_.read(static_cast<char*>(data), static_cast<std::streamsize>(count)))
      throw InputError("KV cache: truncated");
  }

  std::istream& stream_;
  Sha256 hash_;
};

std::uint64_t as_unsigned(int value) { return static_cast<std::uint32_t>(value); }

}  // namespace

void KvCache::save(std::ostream& stream) const {
  Writer writer(stream);
  writer.bytes(kMagic, sizeof(kMagic));
  writer.number(kVersion, 4);
  writer.number(layers_.size(), 4);
  for (const int value : {batch_, policy_.recent, policy_.sinks, policy_.flush_block})
    writer.number(as_unsigned(value), 4);
  for (const CacheLayer& layer : layers_) {
    const auto digest = fingerprint(layer);
    writer.bytes(digest.data(), digest.size());
  }
  for (const TokenStore& store : stores_) writer.number(store.tokens(), 8);
  for (const TokenStore& store : stores_)
    store.save([&](const void* data, std::size_t count) { writer.bytes(data, count); });
  writer.finish();
}

void KvCache::restore(std::istream& stream) {
  Reader reader(stream);
  char magic[sizeof(kMagic)];
  reader.bytes(magic, sizeof(magic));
  if (!std::equal(magic, magic + sizeof(magic), kMagic)) throw InputError("KV cache: not a saved cache");
  reader.expect("format version", kVersion);
  reader.expect("layers", layers_.size());
  reader.expect("batch", as_unsigned(batch_));
  reader.expect("recent", as_unsigned(policy_.recent));
  reader.expect("sinks", as_unsigned(policy_.sinks));
  reader.expect("flush_block", as_unsigned(policy_.flush_block));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Sha256::Digest digest;
    reader.bytes(digest.data(), digest.size());
    if (digest != fingerprint(layers_[i])) {
      throw InputError("KV cache: layer {} was saved with another codec, tables, rotation or shape", i);
    }
  }
  std::vector<std::uint64_t> tokens;
  for (std::size_t i = 0; i < stores_.size(); ++i) {
    tokens.push_back(reader.number(8));
    if (tokens.back() > kMaxTokens) throw InputError("KV cache: a sequence of {} tokens", tokens.back());
  }
  std::vector<TokenStore> restored;
  for (std::size_t i = 0; i < stores_.size(); ++i) {
    restored.emplace_back(layers_[i / static_cast<std::size_t>(batch_)], policy_);
    restored.back().restore(tokens[i], [&](void* data, std::size_t count) { reader.bytes(data, count); });
  }
  reader.finish();
  stores_ = std::move(restored);
}

void KvCache::restore_sequence(int layer, int sequence, std::size_t tokens,
                               const std::function<void(void*, std::size_t)>& read) {
  TokenStore restored(layers_[static_cast<std::size_t>(layer)], policy_);
  TokenStore& target = stores_[index(layer, sequence)];
  restored.restore(tokens, read);
  target = std::move(restored);
}

}  // namespace tq
