#include <cmath>
#include <cstring>
#include <mutex>
#include <string>

#include "calibration/artefact/cache_layers.h"
#include "core/codebook.h"
#include "core/error.h"
#include "core/packing.h"
#include "experiments/c_api/artefact_file.h"
#include "experiments/c_api/handles.h"
#include "experiments/c_api/last_error.h"

// What codecs are made of, and what they say of themselves.
namespace tq::c_api {
namespace {

template <typename Enum>
Enum choice(const char* option, const char* text, Enum otherwise) {
  return text == nullptr ? otherwise : parse_choice<Enum>(option, text);
}

std::shared_ptr<const Rotation> make_rotation(const tq_codec_options& options) {
  const RotationKind kind = choice("rotation", options.rotation, RotationKind::rht);
  return std::make_shared<const Rotation>(Rotation::make(kind, options.head_dim, options.seed));
}

double alpha_of(double asked, SketchKind sketch, int head_dim) {
  if (asked == TQ_ALPHA_UNBIASED) return kUnbiasedAlpha;
  if (asked == TQ_ALPHA_LEAST_SQUARES) {
    return sketch == SketchKind::gaussian ? isotropic_alpha_gaussian(head_dim)
                                          : isotropic_alpha_orthogonal(head_dim);
  }
  if (!(asked >= 0 && asked <= 2)) throw UsageError("alpha is {}, must be from 0 to 2", asked);
  return asked;
}

std::shared_ptr<const KeyCodec> make_keys(const tq_codec_options& options) {
  KeyConfig config;
  config.mode = choice("mode", options.mode, config.mode);
  config.bits = options.bits;
  config.scale = choice("scale", options.scale, config.scale);
  config.sketch = choice("sketch", options.sketch, config.sketch);
  validate(config, options.head_dim);
  const auto rotation = make_rotation(options);
  std::shared_ptr<const Sketch> sketch;
  KeyTables tables = default_key_tables(config, options.head_dim);
  if (config.mode == KeyMode::prod) {
    sketch = std::make_shared<const Sketch>(Sketch::make(config.sketch, options.head_dim, options.seed));
    tables.qjl_scale = alpha_of(options.alpha, config.sketch, options.head_dim);
  }
  return std::make_shared<const KeyCodec>(config, rotation, sketch, std::move(tables));
}

std::shared_ptr<const ValueCodec> make_values(const tq_codec_options& options) {
  ValueConfig config;
  config.mode = choice("mode", options.mode, config.mode);
  config.bits = options.bits;
  config.group_size = options.group_size;
  config.scale = choice("scale", options.scale, config.scale);
  validate(config, options.head_dim);
  const auto rotation = config.mode == ValueMode::rotated ? make_rotation(options) : nullptr;
  return std::make_shared<const ValueCodec>(config, options.head_dim, rotation,
                                            default_value_table(config, options.head_dim));
}

void check_side(int side) {
  if (side != TQ_KEYS && side != TQ_VALUES)
    throw UsageError("side is {}, must be TQ_KEYS or TQ_VALUES", side);
}

// The columns of a linear map, given the map's images of the unit vectors as rows.
void transpose(const std::vector<float>& rows, std::size_t d, float* out) {
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) out[i * d + j] = rows[j * d + i];
  }
}

void rotation_matrix(const Rotation& rotation, double gain, float* out) {
  const std::size_t d = static_cast<std::size_t>(rotation.head_dim());
  std::vector<float> unit(d * d), images(d * d);
  for (std::size_t i = 0; i < d; ++i) unit[i * d + i] = static_cast<float>(gain);
  rotation.forward(unit.data(), images.data(), d);
  transpose(images, d, out);
}

void sketch_matrix(const Sketch& sketch, float* out) {
  if (sketch.kind() == SketchKind::gaussian) {
    std::copy(sketch.matrix().begin(), sketch.matrix().end(), out);
  } else {
    rotation_matrix(sketch.rht(), std::sqrt(static_cast<double>(sketch.head_dim())), out);
  }
}

}  // namespace

Artefact read_artefact_file(const char* path) {
  // HDF5 may be a build without locks of its own.
  static std::mutex mutex;
  require(path, "path");
  const std::scoped_lock lock(mutex);
  // A library does not fork its host.
  return read_artefact(path, Trust::full);
}

const tq_codec& checked(const tq_codec* codec, std::size_t heads) {
  require(codec, "codec");
  if (codec->heads() != 1 && codec->heads() != heads) {
    throw UsageError("the codec has tables for {} heads, and was given vectors of {}", codec->heads(), heads);
  }
  return *codec;
}

const tq_rows& checked(const tq_codec& codec, const tq_rows* encoded) {
  require(encoded, "encoded");
  const tq_codec_info info = describe(codec);
  const auto check = [](const void* array, int size, const char* name) {
    if (size > 0) require(array, name);
  };
  check(encoded->codes, info.code_bytes, "encoded->codes");
  check(encoded->scales, info.scales, "encoded->scales");
  check(encoded->zeros, info.zeros, "encoded->zeros");
  check(encoded->signs, info.sign_bytes, "encoded->signs");
  check(encoded->residual_norms, info.residual_norms, "encoded->residual_norms");
  return *encoded;
}

tq_codec_info describe(const tq_codec& codec) {
  tq_codec_info info{};
  info.side = codec.is_keys() ? TQ_KEYS : TQ_VALUES;
  info.head_dim = codec.head_dim();
  info.heads = static_cast<int>(codec.heads());
  const auto bytes = [&](int bits) {
    return static_cast<int>(packed_bytes(static_cast<std::size_t>(info.head_dim), bits));
  };
  std::string name;
  if (codec.is_keys()) {
    const KeyConfig& config = codec.keys.front()->config();
    info.bytes_per_token = bytes_per_token(config, info.head_dim);
    name = tq::describe(config);
  } else {
    const ValueConfig& config = codec.values.front()->config();
    info.bytes_per_token = bytes_per_token(config, info.head_dim);
    name = tq::describe(config);
    if (config.mode == ValueMode::group) {
      info.code_bytes = bytes(config.bits);
      info.scales = info.zeros = info.head_dim / config.group_size;
    }
  }
  if (const KeyCodec* tables = codec.table_codec(0)) {
    info.table_bits = tables->config().table_bits();
    info.code_bytes = bytes(info.table_bits);
    info.scales = 1;
    if (tables->config().mode == KeyMode::prod) {
      info.sign_bytes = bytes(1);
      info.residual_norms = 1;
    }
  }
  name.copy(info.name, sizeof info.name - 1);
  return info;
}

}  // namespace tq::c_api

using namespace tq::c_api;

int tq_abi_version(void) { return TQ_ABI_VERSION; }
const char* tq_version(void) { return TQ_VERSION_TEXT; }
const char* tq_last_error(void) { return last_error(); }

void tq_codec_defaults(tq_codec_options* options) {
  if (options == nullptr) return;
  const tq::ValueConfig values;
  *options = {};
  options->bits = values.bits;
  options->group_size = values.group_size;
  options->alpha = TQ_ALPHA_UNBIASED;
}

int tq_codec_create(int side, const tq_codec_options* options, tq_codec** codec) {
  return guarded([&] {
    require(options, "options");
    require(codec, "codec");
    check_side(side);
    auto made = std::make_unique<tq_codec>();
    if (side == TQ_KEYS) {
      made->keys.push_back(make_keys(*options));
    } else {
      made->values.push_back(make_values(*options));
    }
    *codec = made.release();
  });
}

int tq_codec_from_artefact(const char* path, int layer, int side, tq_codec** codec) {
  return guarded([&] {
    require(codec, "codec");
    check_side(side);
    std::vector<tq::CacheLayer> layers = tq::cache_layers(read_artefact_file(path));
    if (layer < 0 || static_cast<std::size_t>(layer) >= layers.size()) {
      throw tq::UsageError("{}: there is no layer {}; it has {}, counted from 0", path, layer, layers.size());
    }
    tq::CacheLayer& found = layers[static_cast<std::size_t>(layer)];
    auto made = std::make_unique<tq_codec>();
    if (side == TQ_KEYS) {
      made->keys = std::move(found.keys);
    } else {
      made->values = std::move(found.values);
    }
    *codec = made.release();
  });
}

void tq_codec_destroy(tq_codec* codec) { delete codec; }

int tq_codec_describe(const tq_codec* codec, tq_codec_info* info) {
  return guarded([&] {
    require(codec, "codec");
    require(info, "info");
    *info = describe(*codec);
  });
}

int tq_codec_tables(const tq_codec* codec, int head, double* centroids, double* boundaries, double* alpha) {
  return guarded([&] {
    require(codec, "codec");
    if (head < 0 || static_cast<std::size_t>(head) >= codec->heads()) {
      throw tq::UsageError("head is {}, must be from 0 to {}", head, codec->heads() - 1);
    }
    const tq::KeyCodec* found = codec->table_codec(static_cast<std::size_t>(head));
    if (found == nullptr) throw tq::UsageError("{} has no tables", describe(*codec).name);
    const tq::Codebook& book = found->tables().codebook;
    if (centroids != nullptr) std::copy(book.centroids.begin(), book.centroids.end(), centroids);
    if (boundaries != nullptr) std::copy(book.boundaries.begin(), book.boundaries.end(), boundaries);
    if (alpha != nullptr) *alpha = found->tables().qjl_scale;
  });
}

int tq_codec_matrices(const tq_codec* codec, float* rotation, float* sketch) {
  return guarded([&] {
    require(codec, "codec");
    const tq::KeyCodec* found = codec->table_codec(0);
    if (found == nullptr) throw tq::UsageError("{} has no rotation", describe(*codec).name);
    if (sketch != nullptr && found->config().mode != tq::KeyMode::prod) {
      throw tq::UsageError("{} has no sketch", describe(*codec).name);
    }
    if (rotation != nullptr) rotation_matrix(found->rotation(), 1, rotation);
    if (sketch != nullptr) sketch_matrix(*found->sketch(), sketch);
  });
}
