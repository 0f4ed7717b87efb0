#include <fmt/format.h>

#include "core/error.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/progress_bar.h"
#include "experiments/report_output.h"
#include "experiments/sweep/backends.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_eval(const Arguments& arguments) {
  CommandLine line("eval",
                   "measure what a codec or an artefact does to a capture, all tokens quantised but what the "
                   "artefact keeps",
                   "tq eval --capture model.kv.h5 --key-mode prod --sketch gaussian --alpha unbiased");
  line.add()("capture", po::value<std::string>()->value_name("FILE"), "capture to measure on (*.kv.h5)")(
      "artefact", po::value<std::string>()->value_name("FILE"), "take codecs and tables from here (*.tq.h5)")(
      "json", po::bool_switch(), "JSON instead of a table")(
      "backend", po::value<std::string>()->default_value("host")->value_name("NAME"),
      "what encodes and decodes: host, or cuda (a GPU)");
  add_codec_options(line, AlphaTarget::unbiased);
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  if (line.given("artefact") && codec_options_given(line)) {
    throw UsageError("eval: --artefact brings its own codecs; leave out the codec options");
  }
  const CacheBackend& backend = cache_backend(canonical_backend(line.get<std::string>("backend")));
  CaptureReader capture(line.required("capture"), read_trust(line));
  std::optional<Artefact> artefact;
  if (line.given("artefact")) artefact = read_artefact(line.get<std::string>("artefact"), read_trust(line));
  CaptureReport report;
  {
    ProgressBar bar("measuring", capture.info().tokens * capture.info().layers.size());
    report = artefact ? evaluate_capture(capture, *artefact, bar.callback(), backend)
                      : evaluate_capture(capture, read_codec_options(line), bar.callback(), backend);
  }
  if (line.get<bool>("json")) {
    fmt::print("{}\n", report_json(report).dump(2));
  } else {
    if (artefact && artefact->policy) {
      fmt::print("exact: the first {} tokens and the newest {}\n", artefact->policy->sinks,
                 artefact->policy->recent);
    }
    fmt::print("{}", report_table(report));
  }
  return ExitCode::done;
}

}  // namespace tq
