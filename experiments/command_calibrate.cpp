#include <fmt/format.h>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/calibration_run.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/processes.h"
#include "experiments/report_output.h"
#include "experiments/shard_option.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

namespace {

bool parse_per(const std::string& text) {
  if (text != "layer" && text != "head")
    throw UsageError("--per '{}' is unknown; choose one of: layer, head", text);
  return text == "head";
}

Holdout parse_holdout(const std::string& text) {
  if (text == "tail") return Holdout::tail;
  if (text == "blocks") return Holdout::blocks;
  throw UsageError("--holdout '{}' is unknown; choose one of: tail, blocks", text);
}

// Without what does not decide the result, so that all ways of sharing the work record the same.
std::string recorded_command_line(const Arguments& arguments) {
  std::string text = "tq calibrate";
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--out" || argument == "--shard") {
      ++i;
    } else if (!argument.starts_with("--out=") && !argument.starts_with("--shard=")) {
      text += " " + argument;
    }
  }
  return text;
}

}  // namespace

ExitCode run_calibrate(const Arguments& arguments) {
  CommandLine line("calibrate", "fit per-layer tables and alpha to a capture, judge them on held-out tokens",
                   "tq calibrate --capture model.kv.h5 --out model.tq.h5 --key-mode mse --key-bits 3");
  line.add()("capture", po::value<std::vector<std::string>>()->value_name("FILE"),
             "capture to fit to (*.kv.h5); given several times, the files are one corpus, in this order")(
      "out", po::value<std::string>()->value_name("FILE"), "artefact to write (*.tq.h5)");
  add_codec_options(line, AlphaTarget::mse);
  add_shard_option(line,
                   "calibrate every Nth layer from the Ith on, and write that to --out; tq merge makes the "
                   "artefact of all N, the same bytes as without --shard. Layers are fitted apart from each "
                   "other, so one run a shard is enough; N is at most the number of layers");
  line.add()("per", po::value<std::string>()->default_value("layer")->value_name("UNIT"),
             "one table a layer, or one a KV head: layer or head")(
      "holdout", po::value<std::string>()->default_value("tail")->value_name("HOW"),
      "tokens that judge: tail (second half) or blocks (every other block of 128)")(
      "json", po::bool_switch(), "JSON instead of a table");
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const CodecOptions codec = read_codec_options(line);
  const CalibrationOptions options{codec.key,
                                   codec.value,
                                   codec.rotation,
                                   codec.alpha,
                                   parse_per(line.get<std::string>("per")),
                                   codec.seed,
                                   parse_holdout(line.get<std::string>("holdout"))};
  const std::string& out = line.required("out");
  if (!line.given("capture")) throw UsageError("calibrate: --capture is missing; see tq calibrate --help");
  const auto& captures = line.get<std::vector<std::string>>("capture");
  for (const std::string& capture : captures) refuse_overwriting(capture, out);
  const bool writes = all_processes().rank() == 0;
  // Fails here, not after the work, where the artefact could not be written.
  if (writes) const AtomicFile writable(out);
  const Shard shard = read_shard_option(line);
  const ArtefactShard result =
      run_calibration(captures, read_trust(line), options, recorded_command_line(arguments), shard);
  const Artefact& artefact = result.artefact;
  if (!writes) return ExitCode::done;
  if (line.given("shard")) {
    write_shard(result, out);
    fmt::print("wrote {}, shard {} of {}; tq merge puts shards together\n", out, shard.index + 1,
               shard.count);
    return ExitCode::done;
  }
  write_artefact(artefact, out);
  print_calibration(artefact, out, line.get<bool>("json"));
  return ExitCode::done;
}

}  // namespace tq
