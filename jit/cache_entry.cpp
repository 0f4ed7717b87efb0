#include "jit/cache_entry.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/sha256.h"

namespace tq {
namespace {

static_assert(std::is_trivially_copyable_v<ResourceUsage>);
static_assert(std::has_unique_object_representations_v<ResourceUsage>);  // no padding goes to the disk

void append(std::string& bytes, const void* data, std::uint64_t size) {
  bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
  bytes.append(static_cast<const char*>(data), size);
}

void append(std::string& bytes, std::string_view field) { append(bytes, field.data(), field.size()); }

// Takes the next field off `bytes`; nothing when they end before it does.
std::optional<std::string_view> take(std::string_view& bytes) {
  std::uint64_t size = 0;
  if (bytes.size() < sizeof size) return std::nullopt;
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (bytes.size() < size) return std::nullopt;
  const std::string_view field = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return field;
}

Sha256::Digest digest_of(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.finish();
}

}  // namespace

std::string write_cache_entry(std::string_view key, const CompiledImage& image) {
  std::string bytes;
  append(bytes, kCacheFormat);
  append(bytes, key);
  append(bytes, image.lowered_name);
  append(bytes, &image.usage, sizeof image.usage);
  append(bytes, image.log);
  append(bytes, image.cubin.data(), image.cubin.size());
  const Sha256::Digest digest = digest_of(bytes);
  bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  return bytes;
}

std::optional<CompiledImage> read_cache_entry(std::string_view bytes, std::string_view key) {
  Sha256::Digest digest;
  if (bytes.size() < digest.size()) return std::nullopt;
  std::memcpy(digest.data(), bytes.data() + bytes.size() - digest.size(), digest.size());
  bytes.remove_suffix(digest.size());
  if (digest != digest_of(bytes)) return std::nullopt;

  if (take(bytes) != kCacheFormat || take(bytes) != key) return std::nullopt;
  const auto name = take(bytes), usage = take(bytes), log = take(bytes), cubin = take(bytes);
  CompiledImage image;
  if (!name || !usage || !log || !cubin || !bytes.empty() || usage->size() != sizeof image.usage ||
      cubin->empty()) {
    return std::nullopt;
  }
  image.lowered_name = *name;
  std::memcpy(&image.usage, usage->data(), usage->size());
  image.log = *log;
  const auto* first = reinterpret_cast<const std::byte*>(cubin->data());
  image.cubin.assign(first, first + cubin->size());
  return image;
}

}  // namespace tq
