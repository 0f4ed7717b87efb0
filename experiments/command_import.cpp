#include <fmt/format.h>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/import.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_import(const Arguments& arguments) {
  CommandLine line("import", "turn an export back into an artefact",
                   "tq import turboquant_kv.json --out model.tq.h5");
  line.add()("source", po::value<std::string>()->value_name("PATH"),
             "export to read; its format is recognised")("out", po::value<std::string>()->value_name("FILE"),
                                                         "artefact to write (*.tq.h5)");
  line.positional({"source"});
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string& out = line.required("out");
  const std::string& source = line.required("source");
  refuse_overwriting(source, out);
  const Artefact artefact = import_artefact(source, read_trust(line));
  write_artefact(artefact, out);
  fmt::print("wrote {} ({} layers)\n", out, artefact.layers.size());
  return ExitCode::done;
}

}  // namespace tq
