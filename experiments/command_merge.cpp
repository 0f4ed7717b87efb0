#include <fmt/format.h>

#include <filesystem>

#include "calibration/artefact/shard.h"
#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/report_output.h"
#include "experiments/sweep/merge_sweeps.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_merge(const Arguments& arguments) {
  CommandLine line("merge", "put the shards of a calibration or a sweep together",
                   "tq merge part-*.tq.h5 --out model.tq.h5");
  line.add()(
      "shards", po::value<std::vector<std::string>>()->value_name("FILES"),
      "what the runs of tq calibrate (files) or tq sweep (folders) with --shard 1/N to N/N wrote, in any "
      "order")("out", po::value<std::string>()->value_name("FILE"),
               "artefact or folder to write: what one run without --shard would have written")(
      "json", po::bool_switch(), "of a calibration: JSON instead of a table");
  add_trust_option(line);
  line.positional_list("shards");
  if (!line.parse(arguments)) return ExitCode::done;
  if (!line.given("shards")) throw UsageError("merge: no shards are given; see tq merge --help");
  const auto& shards = line.get<std::vector<std::string>>("shards");
  const std::string& out = line.required("out");
  for (const std::string& shard : shards) refuse_overwriting(shard, out);
  if (std::filesystem::is_directory(shards.front())) {
    merge_sweeps(shards, out);
    fmt::print("wrote {}\n", out);
    return ExitCode::done;
  }
  const Artefact artefact = merge_shards(shards, read_trust(line));
  write_artefact(artefact, out);
  print_calibration(artefact, out, line.get<bool>("json"));
  return ExitCode::done;
}

}  // namespace tq
