#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/bench/run.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/first_gpu.h"
#include "experiments/nearest_name.h"
#include "experiments/version.h"
#include "jit/nvrtc_api.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using bench::Family;
using bench::Json;

std::string family_list() {
  std::string list;
  for (const Family& family : bench::families()) {
    list += fmt::format("{}{} ({}{})", list.empty() ? "" : ", ", family.name, family.what,
                        family.takes_long ? "; not unless named" : "");
  }
  return list;
}

std::vector<const Family*> chosen_families(const CommandLine& line) {
  std::vector<const Family*> chosen;
  if (!line.given("only")) {
    for (const Family& family : bench::families()) {
      if (!family.takes_long) chosen.push_back(&family);
    }
    return chosen;
  }
  std::vector<std::string> names;
  for (const Family& family : bench::families()) names.push_back(family.name);
  const std::string& list = line.get<std::string>("only");
  for (std::size_t start = 0; start <= list.size();) {
    const std::size_t end = std::min(list.find(',', start), list.size());
    const std::string name = list.substr(start, end - start);
    start = end + 1;
    const auto known = std::find(names.begin(), names.end(), name);
    if (known == names.end())
      throw UsageError("--only '{}' is no family; did you mean '{}'?", name, nearest_name(name, names));
    const Family* family = &bench::families()[static_cast<std::size_t>(known - names.begin())];
    if (std::find(chosen.begin(), chosen.end(), family) == chosen.end()) chosen.push_back(family);
  }
  return chosen;
}

std::uint64_t seed_of(const CommandLine& line) {
  return line.given("seed") ? line.get<std::uint64_t>("seed") : std::random_device{}();
}

std::string command_text(const Arguments& arguments) {
  std::string text = "tq bench";
  for (const std::string& argument : arguments) text += " " + argument;
  return text;
}

Json result_of(bench::Run& run, const Arguments& arguments, const std::string& date) {
  const DeviceInfo& info = run.gpu.device().info();
  return {{"format", "turboquant-bench"},
          {"device", info.name},
          {"driver", info.driver_version},
          {"nvrtc", nvrtc::identity()},
          {"multiprocessors", info.multiprocessors},
          {"l2_bytes", info.l2_bytes},
          {"revision", kRevision},
          {"build_type", kBuildType},
          {"command", command_text(arguments)},
          {"date", date},
          {"seed", run.seed},
          {"probes", run.probes.json()},
          {"rows", run.report.rows()}};
}

}  // namespace

ExitCode run_bench(const Arguments& arguments) {
  CommandLine line(
      "bench",
      "time the GPU kernels on shapes in use, each result checked first; exit code 1 where one is wrong",
      "tq bench --only wht,attend --json bench.json");
  line.add()("only", po::value<std::string>()->value_name("LIST"),
             ("families, with commas: " + family_list()).c_str())(
      "seed", po::value<std::uint64_t>()->value_name("N"),
      "of the random inputs (default: another in every run)")(
      "json", po::value<std::string>()->value_name("FILE"),
      "write all that was measured there as well, as JSON");
  if (!line.parse(arguments)) return ExitCode::done;
  const std::vector<const Family*> chosen = chosen_families(line);
  const std::string date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  FirstGpu gpu;
  bench::Run run(gpu, seed_of(line));
  fmt::print(
      "{}, {} multiprocessors, NVRTC {}, revision {}, seed {}\nread probe {:.2f} TB/s, empty launch {:.2f} "
      "us, "
      "on its own {:.2f} us\n\n",
      gpu.device().info().name, gpu.device().info().multiprocessors, nvrtc::identity(), kRevision, run.seed,
      run.probes.bytes_per_us() / 1e6, run.probes.empty_launch().median_us,
      run.probes.empty_launch_alone().median_us);
  for (const Family* family : chosen) {
    family->measure(run);
    // After every family: what was measured stays when a later one fails.
    if (line.given("json"))
      write_file_atomically(line.get<std::string>("json"), result_of(run, arguments, date).dump(2) + "\n");
  }
  return run.report.all_held() ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
