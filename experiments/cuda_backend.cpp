#include "experiments/cuda_backend.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/attention.h"
#include "core/error.h"
#include "core/key_codec.h"
#include "core/packing.h"
#include "core/value_codec.h"
#include "experiments/first_gpu.h"
#include "jit/memory.h"
#include "kernel_templates/gpu_codec.h"
#include "kernel_templates/shapes.h"

namespace tq {
namespace {

using gpu::Element;

FirstGpu open_gpu() {
  try {
    return FirstGpu();
  } catch (const SystemError& error) {
    throw SystemError("backend cuda: {}", error.what());
  }
}

// Copies x (rows x d) to the device, lets body() encode and decode it there in place, and copies the result
// to `out`. All of it goes into the default stream: threads that work at the same time take turns there.
template <typename Body>
void in_device_memory(const float* x, std::size_t rows, std::size_t d, float* out, const Body& body) {
  const Device& device = default_gpu().device();
  const CurrentContext current(device);
  const DeviceBuffer vectors(device, rows * d * sizeof(float));
  upload(vectors.address(), std::span(x, rows * d));
  body(gpu::VectorView{vectors.as<float>(), 0, 0, static_cast<gpu::i64>(d)}, static_cast<int>(rows));
  download(std::span(out, rows * d), vectors.address());
}

// What encoding leaves of vectors: of keys, or of values of either mode.
class RoundTrip {
 public:
  virtual ~RoundTrip() = default;
  // out: rows x d.
  virtual void run(const float* x, std::size_t rows, float* out) const = 0;

 protected:
  // On one vector, so that kernels compile here and what can fail does so where it can be reported:
  // evaluations call from parallel regions, out of which no exception goes.
  void try_out(std::size_t d) const {
    std::vector<float> vector(d);
    run(vector.data(), 1, vector.data());
  }
};

class TableRoundTrip : public RoundTrip {
 public:
  explicit TableRoundTrip(const KeyCodec& codec) : codec_(default_gpu(), {&codec}, gpu::Side::keys) {
    try_out(static_cast<std::size_t>(codec.head_dim()));
  }
  void run(const float* x, std::size_t rows, float* out) const override {
    const gpu::KeySpec& spec = codec_.spec();
    const std::size_t d = static_cast<std::size_t>(spec.head_dim);
    const Device& device = default_gpu().device();
    const DeviceBuffer codes(device, rows * packed_bytes(d, spec.table_bits)), scales(device, rows * 2),
        signs(device, spec.prod ? rows * packed_bytes(d, 1) : 0), norms(device, spec.prod ? rows * 2 : 0);
    const gpu::CanonicalKeys keys{codes.as<gpu::u8>(), scales.as<gpu::u16>(), signs.as<gpu::u8>(),
                                  norms.as<gpu::u16>()};
    in_device_memory(x, rows, d, out, [&](const gpu::VectorView& vectors, int count) {
      codec_.encode(vectors, Element::f32, 1, count, keys, {});
      codec_.decode(keys, 1, count, vectors, Element::f32, {});
    });
  }

 private:
  mutable gpu::GpuKeyCodec codec_;  // its calls change nothing in it
};

class GroupRoundTrip : public RoundTrip {
 public:
  explicit GroupRoundTrip(const ValueCodec& codec) : codec_(default_gpu(), {&codec}) {
    try_out(static_cast<std::size_t>(codec.head_dim()));
  }
  void run(const float* x, std::size_t rows, float* out) const override {
    const gpu::GroupSpec& spec = codec_.spec().group;
    const std::size_t d = static_cast<std::size_t>(spec.head_dim),
                      groups = d / static_cast<std::size_t>(spec.group_size);
    const Device& device = default_gpu().device();
    const DeviceBuffer codes(device, rows * packed_bytes(d, spec.bits)), zeros(device, rows * groups * 2),
        scales(device, rows * groups * 2);
    const gpu::CanonicalGroups values{codes.as<gpu::u8>(), zeros.as<gpu::u16>(), scales.as<gpu::u16>()};
    in_device_memory(x, rows, d, out, [&](const gpu::VectorView& vectors, int count) {
      codec_.encode(vectors, Element::f32, 1, count, values, {});
      codec_.decode(values, 1, count, vectors, Element::f32, {});
    });
  }

 private:
  mutable gpu::GpuValueCodec codec_;
};

// The reconstruction is all that an evaluation asks for; the codes are not kept.
class DecodedKeys : public StoredKeys {
 public:
  DecodedKeys(const RoundTrip& codec, std::size_t d, const float* keys, std::size_t rows)
      : d_(d), rows_(rows), decoded_(rows * d) {
    codec.run(keys, rows, decoded_.data());
  }
  void decode(float* out) const override { std::copy(decoded_.begin(), decoded_.end(), out); }
  void scores(const float* queries, std::size_t count, float* out) const override {
    dense_scores(queries, count, decoded_.data(), rows_, d_, out);
  }

 private:
  std::size_t d_, rows_;
  std::vector<float> decoded_;
};

class CudaKeys : public KeyBackend {
 public:
  explicit CudaKeys(const KeyCodec& codec) : d_(static_cast<std::size_t>(codec.head_dim())), codec_(codec) {}
  std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const override {
    return std::make_unique<DecodedKeys>(codec_, d_, keys, rows);
  }

 private:
  std::size_t d_;
  TableRoundTrip codec_;
};

class CudaValues : public ValueBackend {
 public:
  explicit CudaValues(std::unique_ptr<const RoundTrip> codec) : codec_(std::move(codec)) {}
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    codec_->run(values, rows, out);
  }

 private:
  std::unique_ptr<const RoundTrip> codec_;
};

class CudaBackend : public CacheBackend {
 public:
  std::shared_ptr<const KeyBackend> keys(const KeyConfig& config, std::shared_ptr<const Rotation> rotation,
                                         std::shared_ptr<const Sketch> sketch,
                                         const KeyTables& tables) const override {
    return std::make_shared<CudaKeys>(KeyCodec(config, std::move(rotation), std::move(sketch), tables));
  }
  std::shared_ptr<const ValueBackend> values(const ValueConfig& config, int head_dim,
                                             std::shared_ptr<const Rotation> rotation,
                                             const Codebook& codebook) const override {
    const ValueCodec codec(config, head_dim, std::move(rotation), codebook);
    if (const KeyCodec* rotated = codec.rotated()) {
      return std::make_shared<CudaValues>(std::make_unique<TableRoundTrip>(*rotated));
    }
    return std::make_shared<CudaValues>(std::make_unique<GroupRoundTrip>(codec));
  }
};

}  // namespace

GpuContext& default_gpu() {
  static FirstGpu context = open_gpu();
  return context;
}

const CacheBackend& cuda_backend() {
  static const CudaBackend backend;
  default_gpu();  // so that its absence is found before any work
  return backend;
}

}  // namespace tq
