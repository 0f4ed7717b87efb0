#include "experiments/sweep/run_manifest.h"

#include <fmt/chrono.h>
#include <hdf5.h>
#include <hwy/highway.h>
#include <omp.h>
#include <spdlog/version.h>

#include <Eigen/Core>
#include <boost/version.hpp>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/host_machine.h"
#include "experiments/sweep/result_log.h"
#include "experiments/version.h"
#include "jit/nvrtc_api.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

Json library_versions() {
  unsigned major, minor, release;
  H5get_libversion(&major, &minor, &release);
  return {{"boost",
           fmt::format("{}.{}.{}", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
          {"eigen", fmt::format("{}.{}.{}", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION)},
          {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
          {"hdf5", fmt::format("{}.{}.{}", major, minor, release)},
          {"highway", fmt::format("{}.{}.{}", HWY_MAJOR, HWY_MINOR, HWY_PATCH)},
          {"nlohmann_json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                        NLOHMANN_JSON_VERSION_PATCH)},
          {"spdlog", fmt::format("{}.{}.{}", SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)}};
}

// The driver is named by the CUDA version that it brings, as 12040.
Json gpu_json(const DeviceInfo* gpu) {
  if (gpu == nullptr) return nullptr;
  return {{"name", gpu->name},
          {"architecture", to_string(gpu->architecture)},
          {"cuda_driver", gpu->driver_version},
          {"nvrtc", nvrtc::identity()}};
}

Json begun_run(const std::string& command_line, const SweepPlan& plan, const InputCatalogue& catalogue,
               const RunShape& shape, const DeviceInfo* gpu) {
  std::set<std::uint64_t> seeds;
  std::set<std::string> backends;
  for (const Configuration& configuration : plan.configurations) {
    if (!configuration.point[Axis::seed].empty()) seeds.insert(configuration.codec.seed);
    if (const std::string& backend = configuration.point[Axis::backend]; !backend.empty())
      backends.insert(backend);
  }
  Json inputs = Json::array();
  for (const auto& [source, sha256] : catalogue.digests()) {
    inputs.push_back({{"source", source}, {"sha256", sha256}});
  }
  return {{"command_line", command_line},
          {"tool_version", kVersion},
          {"git_revision", kRevision},
          {"build_type", kBuildType},
          {"compiler", __VERSION__},
          {"cpu", cpu_model()},
          {"simd_target", simd_target()},
          {"threads", omp_get_max_threads()},
          {"jobs", shape.jobs},
          {"processes", shape.processes},
          {"shard", shape.shard},
          {"backends", backends},
          {"gpu", gpu_json(gpu)},
          {"libraries", library_versions()},
          {"seeds", seeds},
          {"inputs", inputs},
          {"configurations", plan.configurations.size()},
          {"utc_start", utc_now()},
          {"utc_end", nullptr},
          {"wall_seconds", nullptr},
          {"measured", nullptr}};
}

}  // namespace

RunManifest::RunManifest(const std::string& folder, const std::string& command_line, const SweepPlan& plan,
                         const InputCatalogue& catalogue, const RunShape& shape, const DeviceInfo* gpu)
    : path_((std::filesystem::path(folder) / kManifestFile).string()),
      begin_(std::chrono::steady_clock::now()) {
  if (std::ifstream file(path_); file) {
    manifest_ = Json::parse(file, nullptr, false);
    if (!manifest_.is_object() || !manifest_.contains("runs") || !manifest_["runs"].is_array()) {
      throw InputError("{}: is no manifest of a sweep", path_);
    }
  } else {
    manifest_ = {
        {"format", "turboquant-sweep"},
        {"result_format", kResultFormat},
        {"half_width",
         "95 %: 1.96 standard errors, over vectors or over queries to the same vectors, of one seed"},
        {"runs", Json::array()}};
  }
  manifest_["runs"].push_back(begun_run(command_line, plan, catalogue, shape, gpu));
  write_file_atomically(path_, manifest_.dump(2) + "\n");
}

void RunManifest::finish(std::size_t measured) {
  Json& run = manifest_["runs"].back();
  run["utc_end"] = utc_now();
  run["wall_seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  run["measured"] = measured;
  write_file_atomically(path_, manifest_.dump(2) + "\n");
}

}  // namespace tq
