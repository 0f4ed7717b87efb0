#include <fmt/format.h>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/export.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_export(const Arguments& arguments) {
  CommandLine line("export", "write an artefact in the format of an inference engine",
                   "tq export --artefact model.tq.h5 --format kv-json --out turboquant_kv.json");
  line.add()("artefact", po::value<std::string>()->value_name("FILE"), "artefact to read (*.tq.h5)")(
      "format", po::value<std::string>()->value_name("FORMAT"),
      "upstream-json (a folder), kv-json, safetensors or c-header")(
      "out", po::value<std::string>()->value_name("PATH"), "file or folder to write");
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const ExportFormat format = parse_export_format("--format", line.required("format"));
  const std::string& out = line.required("out");
  const std::string& artefact = line.required("artefact");
  refuse_overwriting(artefact, out);
  export_artefact(read_artefact(artefact, read_trust(line)), format, out);
  fmt::print("wrote {}\n", out);
  return ExitCode::done;
}

}  // namespace tq
