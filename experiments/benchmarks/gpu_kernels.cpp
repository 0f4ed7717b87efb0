// Times the GPU kernels against a copy of the same size in the same run: medians of graph replays, working
// sets several times the L2 cache where the shape allows. Results are not checked here: run test_gpu first.
//
//   bench_gpu_kernels [--json FILE] [--only first|wht|encode|attend]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "core/random.h"
#include "experiments/version.h"
#include "jit/cubin_cache.h"
#include "kernel_templates/gpu_attention.h"
#include "kernel_templates/kernels.h"

namespace tq {
namespace {

using gpu::Element;

constexpr int kWarmUps = 3;   // module load and clocks
constexpr int kReplays = 40;  // medians settle within 1 %
constexpr double kBytesPerMegabyte = 1e6;

struct Timing {
  double median_us, low_us, high_us;  // the 5th and 95th of a hundred
};

class Bench {
 public:
  Bench() : gpu_(GpuOptions{0, default_cache_folder(), {}}), stream_(gpu_.device()) {}
  GpuContext& gpu() { return gpu_; }
  const Stream& stream() const { return stream_; }

  Timing time(const std::function<void(StreamRef)>& work) {
    work(stream_);  // compiles, allocates
    stream_.synchronize();
    const Graph graph = Graph::capture(gpu_.device(), stream_, [&] { work(stream_); });
    for (int i = 0; i < kWarmUps; ++i) graph.launch(stream_);
    Event start(gpu_.device()), end(gpu_.device());
    std::vector<double> times;
    for (int i = 0; i < kReplays; ++i) {
      start.record(stream_);
      graph.launch(stream_);
      end.record(stream_);
      end.synchronize();
      times.push_back(1000.0 * static_cast<double>(Event::elapsed_ms(start, end)));
    }
    std::sort(times.begin(), times.end());
    return {times[kReplays / 2], times[kReplays / 20], times[kReplays - 1 - kReplays / 20]};
  }

  // bytes: what the work must move. `copy_us`: a copy that moves as many, or 0.
  void report(const std::string& name, const Timing& timing, double bytes, double copy_us,
              nlohmann::json extra = nlohmann::json::object()) {
    const double rate = bytes / timing.median_us / kBytesPerMegabyte;
    fmt::print("{:<58} {:>9.1f} us ({:.1f}..{:.1f})  {:>6.2f} TB/s{}\n", name, timing.median_us,
               timing.low_us, timing.high_us, rate,
               copy_us > 0 ? fmt::format("  {:>5.1f} % of a copy", 100 * copy_us / timing.median_us) : "");
    nlohmann::json row{{"name", name},           {"median_us", timing.median_us},
                       {"p5_us", timing.low_us}, {"p95_us", timing.high_us},
                       {"bytes", bytes},         {"terabytes_per_second", rate}};
    if (copy_us > 0) row["share_of_copy"] = copy_us / timing.median_us;
    row.update(extra);
    rows_.push_back(std::move(row));
  }

  // Time of a device copy that reads and writes `bytes` in all.
  double copy_us(double bytes) {
    const std::size_t half = static_cast<std::size_t>(bytes / 2) / 256 * 256;
    const DeviceBuffer from(gpu_.device(), half), to(gpu_.device(), half);
    const Timing timing =
        time([&](StreamRef stream) { copy_on_device(to.address(), from.address(), half, stream); });
    return timing.median_us;
  }

  nlohmann::json result() {
    const DeviceInfo& info = gpu_.device().info();
    return {{"device", info.name},
            {"cuda_driver", info.driver_version},
            {"multiprocessors", info.multiprocessors},
            {"revision", kRevision},
            {"command", "bench_gpu_kernels"},
            {"rows", rows_}};
  }

 private:
  GpuContext gpu_;
  Stream stream_;
  std::vector<nlohmann::json> rows_;
};

// Normal values as binary16 or float32: 2^20 of them, repeated.
DeviceBuffer random_vectors(const Device& device, std::size_t count, Element element) {
  Random random(7, RandomStream::synthetic);
  std::vector<float> values(1 << 20);
  for (float& value : values) value = static_cast<float>(random.normal());
  const std::size_t size = static_cast<std::size_t>(gpu::element_bytes(element));
  std::vector<std::uint8_t> piece(values.size() * size);
  if (element == Element::f32) {
    std::copy_n(reinterpret_cast<const std::uint8_t*>(values.data()), piece.size(), piece.data());
  } else {
    float_to_half(values.data(), reinterpret_cast<std::uint16_t*>(piece.data()), values.size());
  }
  DeviceBuffer buffer(device, count * size);
  const CurrentContext current(device);
  for (std::size_t at = 0; at < buffer.bytes(); at += piece.size())
    upload(buffer.address() + at, std::span(piece).first(std::min(piece.size(), buffer.bytes() - at)));
  return buffer;
}

void bench_wht(Bench& bench) {
  constexpr gpu::i64 kRows = 1 << 20;
  for (const Element element : {Element::f32, Element::f16}) {
    for (const int d : {64, 80, 96, 128, 256, 512}) {
      const std::size_t count = static_cast<std::size_t>(kRows * d);
      const DeviceBuffer in = random_vectors(bench.gpu().device(), count, element);
      const DeviceBuffer out(bench.gpu().device(), in.bytes());
      const double bytes = 2.0 * static_cast<double>(in.bytes()), copy = bench.copy_us(bytes);
      const Timing timing = bench.time([&](StreamRef stream) {
        gpu::wht(bench.gpu(), d, element, false, in.as<void>(), out.as<void>(), kRows, 0.1f, stream);
      });
      bench.report(fmt::format("wht d{} {} 2^20 rows", d, element == Element::f32 ? "f32" : "f16"), timing,
                   bytes, copy);
    }
  }
}

struct Codecs {
  std::shared_ptr<const Rotation> rotation;
  std::shared_ptr<const Sketch> sketch;
  std::shared_ptr<const KeyCodec> key;
  std::shared_ptr<const ValueCodec> value;
};

Codecs make_codecs(int d, const KeyConfig& key, const ValueConfig& value) {
  Codecs codecs;
  codecs.rotation = std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, 0));
  if (key.mode == KeyMode::prod)
    codecs.sketch = std::make_shared<const Sketch>(Sketch::make(key.sketch, d, 0));
  codecs.key =
      std::make_shared<const KeyCodec>(key, codecs.rotation, codecs.sketch, default_key_tables(key, d));
  codecs.value = std::make_shared<const ValueCodec>(value, d, codecs.rotation, default_value_table(value, d));
  return codecs;
}

void bench_encode(Bench& bench) {
  constexpr int kRows = 1 << 20, d = 128;
  const DeviceBuffer half = random_vectors(bench.gpu().device(), std::size_t{kRows} * d, Element::f16);
  const DeviceBuffer single = random_vectors(bench.gpu().device(), std::size_t{kRows} * d, Element::f32);
  const auto run = [&](const KeyConfig& key, const ValueConfig& value, bool keys, Element element) {
    const DeviceBuffer& in = element == Element::f16 ? half : single;
    const Codecs codecs = make_codecs(d, key, value);
    gpu::GpuKeyCodec key_codec(bench.gpu(), {codecs.key.get()}, gpu::Side::keys);
    gpu::GpuValueCodec value_codec(bench.gpu(), {codecs.value.get()});
    const std::size_t tile = static_cast<std::size_t>(keys ? gpu::tile_bytes(key_codec.spec())
                                                           : gpu::tile_bytes(value_codec.spec()));
    const DeviceBuffer out(bench.gpu().device(), kRows / 64 * tile);
    const gpu::TileView view{out.as<gpu::u8>(), static_cast<gpu::i64>(tile), 0, 0, nullptr, 0};
    const gpu::VectorView x{in.as<void>(), 0, 0, d};
    const double bytes = static_cast<double>(in.bytes() + out.bytes()), copy = bench.copy_us(bytes);
    const Timing timing = bench.time([&](StreamRef stream) {
      if (keys) {
        key_codec.encode(x, element, 1, gpu::one_range(0, kRows), view, false, stream);
      } else {
        value_codec.encode(x, element, 1, gpu::one_range(0, kRows), view, false, stream);
      }
    });
    bench.report(fmt::format("encode {} d{} {} 2^20 rows", keys ? describe(key) : describe(value), d,
                             element == Element::f16 ? "f16" : "f32"),
                 timing, bytes, copy);
  };
  for (const Element element : {Element::f32, Element::f16}) {
    for (const int bits : {2, 3, 4})
      run({KeyMode::mse, bits, ScaleRule::nc, SketchKind::orthogonal}, {}, true, element);
    run({KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal}, {}, true, element);
    for (const int bits : {3, 4}) run({}, {ValueMode::rotated, bits, 32, ScaleRule::nc}, false, element);
    for (const int bits : {2, 3, 4}) run({}, {ValueMode::group, bits, 32, ScaleRule::nc}, false, element);
  }
}

struct Shape {
  int batch, kv_heads, tokens, group, d;
};

void bench_attend(Bench& bench) {
  const Device& device = bench.gpu().device();
  struct Codec {
    KeyConfig key;
    ValueConfig value;
  };
  const auto mse = [](int bits) {
    return Codec{{KeyMode::mse, bits, ScaleRule::nc, SketchKind::orthogonal},
                 {ValueMode::rotated, bits, 32, ScaleRule::nc}};
  };
  const std::vector<Codec> codecs{
      mse(4),
      mse(3),
      mse(2),
      {{KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal}, {ValueMode::group, 3, 32, ScaleRule::nc}}};
  for (const Shape& shape :
       {Shape{8, 8, 32768, 8, 128}, Shape{8, 8, 32768, 4, 128}, Shape{8, 8, 32768, 1, 128},
        Shape{1, 8, 131072, 8, 128}, Shape{1, 8, 32768, 8, 128}, Shape{1, 8, 4096, 8, 128},
        Shape{8, 8, 16384, 8, 64}, Shape{8, 8, 16384, 8, 256}}) {
    const int d = shape.d, heads = shape.batch * shape.kv_heads;
    const std::size_t vectors = static_cast<std::size_t>(heads) * static_cast<std::size_t>(shape.tokens);
    const DeviceBuffer k = random_vectors(device, vectors * static_cast<std::size_t>(d), Element::f16);
    const DeviceBuffer v = random_vectors(device, vectors * static_cast<std::size_t>(d), Element::f16);
    const std::size_t rows = static_cast<std::size_t>(heads * shape.group);
    const DeviceBuffer q = random_vectors(device, rows * static_cast<std::size_t>(d), Element::f16);
    const DeviceBuffer out(device, rows * static_cast<std::size_t>(d) * 2);
    const DeviceBuffer states(device, static_cast<std::size_t>(shape.batch) * sizeof(gpu::SequenceState));
    const gpu::i64 token_stride = d, head_stride = static_cast<gpu::i64>(shape.tokens) * d,
                   sequence_stride = head_stride * shape.kv_heads;
    const std::string where =
        fmt::format("({}, {}, {}) G {} d {}", shape.batch, shape.kv_heads, shape.tokens, shape.group, d);
    gpu::GpuAttention::Call call;
    call.queries = q.as<void>();
    call.out = out.as<void>();
    call.group = shape.group;
    call.kv_heads = shape.kv_heads;
    call.sequences = shape.batch;
    call.softmax_scale = 1 / std::sqrt(static_cast<float>(d));
    call.states = states.as<const gpu::SequenceState>();

    const CurrentContext current(device);
    upload(states.address(),
           std::vector<gpu::SequenceState>(static_cast<std::size_t>(shape.batch), {0, shape.tokens, 0, 0}));
    gpu::GpuAttention exact(bench.gpu(), d);
    gpu::GpuAttention::Call exact_call = call;
    exact_call.exact = {
        k.as<const gpu::u16>(), v.as<const gpu::u16>(), sequence_stride, head_stride, token_stride, 0, 0};
    exact_call.most_exact = shape.tokens;
    const double exact_bytes = static_cast<double>(k.bytes() + v.bytes());
    const Timing baseline = bench.time([&](StreamRef stream) { exact.attend(exact_call, stream); });
    bench.report("attend binary16 " + where, baseline, exact_bytes, bench.copy_us(exact_bytes));

    upload(states.address(),
           std::vector<gpu::SequenceState>(static_cast<std::size_t>(shape.batch), {shape.tokens, 0, 0, 0}));
    for (const Codec& codec : codecs) {
      const Codecs made = make_codecs(d, codec.key, codec.value);
      gpu::GpuKeyCodec keys(bench.gpu(), {made.key.get()}, gpu::Side::keys);
      gpu::GpuValueCodec values(bench.gpu(), {made.value.get()});
      const gpu::i64 key_tile = gpu::tile_bytes(keys.spec()), value_tile = gpu::tile_bytes(values.spec());
      const gpu::i64 head_bytes = key_tile + value_tile, page = head_bytes * shape.kv_heads,
                     tiles = shape.tokens / 64;
      const DeviceBuffer pool(device, static_cast<std::size_t>(page * tiles * shape.batch));
      const gpu::TileView key_view{pool.as<gpu::u8>(), page, head_bytes, page * tiles, nullptr, 0};
      gpu::TileView value_view = key_view;
      value_view.base += key_tile;
      gpu::Ranges ranges = gpu::one_range(0, shape.tokens);
      ranges.sequences = shape.batch;
      keys.encode({k.as<void>(), sequence_stride, head_stride, token_stride}, Element::f16, shape.kv_heads,
                  ranges, key_view, false, bench.stream());
      values.encode({v.as<void>(), sequence_stride, head_stride, token_stride}, Element::f16, shape.kv_heads,
                    ranges, value_view, false, bench.stream());
      bench.stream().synchronize();
      gpu::GpuAttention attention(bench.gpu(), keys, values);
      gpu::GpuAttention::Call quantised = call;
      quantised.keys = key_view;
      quantised.values = value_view;
      quantised.most_quantised = shape.tokens;
      const double bytes = static_cast<double>(pool.bytes());
      const Timing timing = bench.time([&](StreamRef stream) { attention.attend(quantised, stream); });
      bench.report(fmt::format("attend {} / {} {}", describe(codec.key), describe(codec.value), where),
                   timing, bytes, bench.copy_us(bytes),
                   {{"against_binary16", baseline.median_us / timing.median_us}});
      fmt::print("{:<58} {:>9.2f} x the binary16 kernel\n", "", baseline.median_us / timing.median_us);
    }
  }
}

// From a specialisation to its first finished launch: compiled, and from the disk cache.
void bench_first_launch(Bench& bench) {
  const KernelSource source = gpu::attend_kernel(gpu::with_block(
      {true,
       {128, 4, false, gpu::ScaleRule::norm, gpu::Mixing::hadamard, gpu::Mixing::hadamard},
       {true, {128, 4, false, gpu::ScaleRule::norm, gpu::Mixing::hadamard, gpu::Mixing::hadamard}, {}},
       128,
       1,
       0,
       0},
      gpu::kServerSharedLimit));
  const auto seconds_of = [&](const std::string& folder) {
    GpuContext fresh(GpuOptions{0, folder, {}});
    const auto start = std::chrono::steady_clock::now();
    static_cast<void>(fresh.kernels().get(source));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const std::string folder = default_cache_folder() + "/first-launch";
  CubinCache(folder).clear();
  const double cold = seconds_of(folder), warm = seconds_of(folder);
  CubinCache(folder).clear();
  fmt::print("first use of attend 4/4: {:.0f} ms compiled, {:.1f} ms from the disk cache\n", 1000 * cold,
             1000 * warm);
  bench.report("first use, compiled", {1e6 * cold, 1e6 * cold, 1e6 * cold}, 0, 0);
  bench.report("first use, from the disk cache", {1e6 * warm, 1e6 * warm, 1e6 * warm}, 0, 0);
}

int run(const std::vector<std::string>& arguments) {
  std::string json, only;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    if (i + 1 == arguments.size() || (arguments[i] != "--json" && arguments[i] != "--only"))
      throw UsageError("usage: bench_gpu_kernels [--json FILE] [--only first|wht|encode|attend]");
    (arguments[i] == "--json" ? json : only) = arguments[i + 1];
  }
  Bench bench;
  fmt::print("{}\n", bench.gpu().device().info().name);
  const auto wanted = [&](const char* part) { return only.empty() || only == part; };
  if (wanted("first")) bench_first_launch(bench);
  if (wanted("wht")) bench_wht(bench);
  if (wanted("encode")) bench_encode(bench);
  if (wanted("attend")) bench_attend(bench);
  if (!json.empty()) std::ofstream(json) << bench.result().dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace tq

int main(int argc, char** argv) {
  try {
    return tq::run({argv + 1, argv + argc});
  } catch (const tq::Error& error) {
    fmt::print(stderr, "bench_gpu_kernels: {}\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
