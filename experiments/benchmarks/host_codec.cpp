// How fast the codec runs on the host: million elements a second for every SIMD target that this CPU has and
// for given thread counts.
//
//     bench_host_codec --rows 65536 --dim 128 --bits 3 --threads 1 2 --json host_codec.json
#include <fmt/format.h>
#include <hwy/targets.h>
#include <omp.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/key_codec.h"
#include "core/random.h"
#include "core/value_codec.h"

namespace {

namespace po = boost::program_options;
using tq::KeyConfig;
using tq::KeyMode;
using tq::ScaleRule;
using tq::SketchKind;
using tq::ValueConfig;
using tq::ValueMode;

struct Options {
  std::size_t rows;
  int dim, bits;
  std::size_t queries;
  std::vector<int> threads;
  int repeats;
  std::string json;
};

struct Measurement {
  std::string codec, operation, target;
  int threads;
  // Million elements a second; of a score, an element is one coordinate of one key for one query.
  double median, slowest, fastest;
};

// Rows are re-used within a pass, as a KV cache is read; the first pass is not counted, since it touches
// memory for the first time.
constexpr int kWarmUps = 1;

Measurement measure(const Options& options, double elements, const std::function<void()>& pass) {
  std::vector<double> rates;
  for (int repeat = -kWarmUps; repeat < options.repeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (repeat >= 0) rates.push_back(elements / elapsed.count() / 1e6);
  }
  std::sort(rates.begin(), rates.end());
  Measurement result{};
  result.median = rates[rates.size() / 2];
  result.slowest = rates.front();
  result.fastest = rates.back();
  return result;
}

// A pass to be timed and how many elements it handles.
struct Task {
  std::string codec, operation;
  double elements;
  std::function<void()> pass;
};

class Benchmark {
 public:
  explicit Benchmark(const Options& options)
      : options_(options), x_(options.rows * d()), queries_(options.queries * d()), decoded_(x_.size()) {
    tq::Random random(1, tq::RandomStream::synthetic);
    for (float& value : x_) value = static_cast<float>(random.normal());
    for (float& value : queries_) value = static_cast<float>(random.normal());
    scores_.resize(options.queries * options.rows);
    const auto rotation =
        std::make_shared<const tq::Rotation>(tq::Rotation::make(tq::RotationKind::rht, options.dim, 1));
    const auto sketch =
        std::make_shared<const tq::Sketch>(tq::Sketch::make(SketchKind::orthogonal, options.dim, 1));
    add_keys({KeyMode::mse, options.bits, ScaleRule::nc, SketchKind::orthogonal}, rotation, sketch);
    if (options.bits >= 2) {
      add_keys({KeyMode::prod, options.bits, ScaleRule::norm, SketchKind::orthogonal}, rotation, sketch);
    }
    const ValueConfig group{ValueMode::group, options.bits, options.dim % 32 == 0 ? 32 : 8, ScaleRule::nc};
    if (options.bits == 2 || options.bits == 3 || options.bits == 4 || options.bits == 8) add_values(group);
  }

  const std::vector<Task>& tasks() const { return tasks_; }

 private:
  std::size_t d() const { return static_cast<std::size_t>(options_.dim); }

  void add_keys(const KeyConfig& config, const std::shared_ptr<const tq::Rotation>& rotation,
                const std::shared_ptr<const tq::Sketch>& sketch) {
    const auto codec = std::make_shared<const tq::KeyCodec>(config, rotation, sketch,
                                                            tq::default_key_tables(config, options_.dim));
    const auto keys = std::make_shared<tq::EncodedKeys>();
    codec->encode(x_.data(), options_.rows, *keys);
    const auto prepared =
        std::make_shared<const tq::PreparedQueries>(codec->prepare(queries_.data(), options_.queries));
    const std::string name = tq::describe(config);
    const double elements = static_cast<double>(x_.size());
    tasks_.push_back(
        {name, "encode", elements, [=, this] { codec->encode(x_.data(), options_.rows, *keys); }});
    tasks_.push_back({name, "decode", elements, [=, this] { codec->decode(*keys, decoded_.data()); }});
    tasks_.push_back({name, fmt::format("scores x{}", options_.queries),
                      elements * static_cast<double>(options_.queries),
                      [=, this] { codec->scores(*prepared, *keys, scores_.data()); }});
  }

  void add_values(const ValueConfig& config) {
    const auto codec = std::make_shared<const tq::ValueCodec>(config, options_.dim, nullptr, tq::Codebook());
    const auto values = std::make_shared<tq::EncodedValues>();
    codec->encode(x_.data(), options_.rows, *values);
    const std::string name = tq::describe(config);
    const double elements = static_cast<double>(x_.size());
    tasks_.push_back(
        {name, "encode", elements, [=, this] { codec->encode(x_.data(), options_.rows, *values); }});
    tasks_.push_back({name, "decode", elements, [=, this] { codec->decode(*values, decoded_.data()); }});
  }

  Options options_;
  std::vector<float> x_, queries_, decoded_, scores_;
  std::vector<Task> tasks_;
};

void write_json(const Options& options, const std::vector<Measurement>& measurements) {
  nlohmann::ordered_json json{{"unit", "million elements a second"},
                              {"rows", options.rows},
                              {"head_dim", options.dim},
                              {"bits", options.bits},
                              {"queries", options.queries},
                              {"repeats", options.repeats}};
  json["results"] = nlohmann::ordered_json::array();
  for (const Measurement& m : measurements) {
    json["results"].push_back({{"codec", m.codec},
                               {"operation", m.operation},
                               {"target", m.target},
                               {"threads", m.threads},
                               {"median", m.median},
                               {"slowest", m.slowest},
                               {"fastest", m.fastest}});
  }
  std::ofstream file(options.json);
  file << json.dump(2) << '\n';
  file.close();
  if (!file) throw tq::SystemError("cannot write {}", options.json);
}

void run(const Options& options) {
  const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
  const Benchmark benchmark(options);
  std::vector<Measurement> measurements;
  fmt::print("{} rows, d = {}: million elements a second, median of {} (slowest .. fastest)\n", options.rows,
             options.dim, options.repeats);
  fmt::print("{:<20} {:<11} {:<8} {:>7} {:>9}\n", "codec", "operation", "target", "threads", "median");
  for (const Task& task : benchmark.tasks()) {
    for (const std::int64_t target : targets) {
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().DeInit();
      for (const int threads : options.threads) {
        omp_set_num_threads(threads);
        Measurement m = measure(options, task.elements, task.pass);
        m.codec = task.codec;
        m.operation = task.operation;
        m.target = hwy::TargetName(target);
        m.threads = threads;
        fmt::print("{:<20} {:<11} {:<8} {:>7} {:>9.1f} ({:.1f} .. {:.1f})\n", m.codec, m.operation, m.target,
                   m.threads, m.median, m.slowest, m.fastest);
        std::fflush(stdout);
        measurements.push_back(m);
      }
    }
  }
  if (!options.json.empty()) write_json(options, measurements);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  po::options_description description("bench_host_codec: speed of the codec on the host");
  description.add_options()("help", "print this text")("rows", po::value(&options.rows)->default_value(65536),
                                                       "vectors a pass")(
      "dim", po::value(&options.dim)->default_value(128), "head dimension")(
      "bits", po::value(&options.bits)->default_value(3), "bits a coordinate")(
      "queries", po::value(&options.queries)->default_value(8), "queries that are scored at once")(
      "threads",
      po::value(&options.threads)->multitoken()->default_value({1, omp_get_num_procs()}, "1 and all"),
      "thread counts")("repeats", po::value(&options.repeats)->default_value(15), "timed passes of each")(
      "json", po::value(&options.json), "write the results here as well");
  try {
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, description), values);
    po::notify(values);
    if (values.count("help") > 0) {
      std::cout << description;
      return 0;
    }
    if (options.repeats < 1 || options.rows < 1 || options.queries < 1 ||
        std::any_of(options.threads.begin(), options.threads.end(), [](int n) { return n < 1; })) {
      throw tq::UsageError("--rows, --queries, --threads and --repeats must be at least 1");
    }
    run(options);
  } catch (const tq::Error& error) {
    fmt::print(stderr, "bench_host_codec: {}\n", error.what());
    return static_cast<int>(error.exit_code());
  } catch (const po::error& error) {
    fmt::print(stderr, "bench_host_codec: {}\n", error.what());
    return static_cast<int>(tq::ExitCode::usage);
  }
  return 0;
}
