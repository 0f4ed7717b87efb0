#include <fmt/format.h>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/calibration_run.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/report_output.h"
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

}  // namespace

ExitCode run_calibrate(const Arguments& arguments) {
  CommandLine line("calibrate", "fit per-layer tables and alpha to a capture, judge them on held-out tokens",
                   "tq calibrate --capture model.kv.h5 --out model.tq.h5 --key-mode mse --key-bits 3");
  line.add()("capture", po::value<std::string>()->value_name("FILE"), "capture to fit to (*.kv.h5)")(
      "out", po::value<std::string>()->value_name("FILE"), "artefact to write (*.tq.h5)");
  add_codec_options(line, AlphaTarget::mse);
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
  const std::string& capture = line.required("capture");
  refuse_overwriting(capture, out);
  // Fails here, not after the work, where the artefact could not be written.
  { const AtomicFile writable(out); }
  const Artefact artefact = run_calibration(capture, read_trust(line), options,
                                            fmt::format("tq calibrate {}", fmt::join(arguments, " ")));
  write_artefact(artefact, out);
  if (line.get<bool>("json")) {
    fmt::print("{}\n", gate_json(artefact).dump(2));
  } else {
    fmt::print("{}\nwrote {} (fitted on {} tokens, judged on {})\n", gate_table(artefact), out,
               artefact.provenance.fit_tokens, artefact.provenance.held_out_tokens);
  }
  return ExitCode::done;
}

}  // namespace tq
