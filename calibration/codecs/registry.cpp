#include "calibration/codecs/registry.h"

#include <algorithm>
#include <array>

// One line a codec: the function NAME_codec() of some file of this folder.
// clang-format off
#define TQ_STORAGE_CODECS(CODEC) \
  CODEC(fp16)                    \
  CODEC(fp8)                     \
  CODEC(minmax8)                 \
  CODEC(minmax4)                 \
  CODEC(q8_0)                    \
  CODEC(q4_0)                    \
  CODEC(trellis)
// clang-format on

namespace tq {

#define TQ_DECLARE(name) const StorageCodec& name##_codec();
TQ_STORAGE_CODECS(TQ_DECLARE)
#undef TQ_DECLARE

std::span<const StorageCodec* const> storage_codecs() {
#define TQ_ADDRESS(name) &name##_codec(),
  static const std::array list{TQ_STORAGE_CODECS(TQ_ADDRESS)};
#undef TQ_ADDRESS
  return list;
}

const StorageCodec* storage_codec_named(std::string_view name) {
  const auto list = storage_codecs();
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto* codec) { return codec->name() == name; });
  return found == list.end() ? nullptr : *found;
}

}  // namespace tq
