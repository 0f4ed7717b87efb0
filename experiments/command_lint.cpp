#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "calibration/artefact/lint.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_lint(const Arguments& arguments) {
  CommandLine line("lint", "check the tables of an artefact or export against the optimum of their (d, b)",
                   "tq lint codebook_d128_b3.json");
  line.add()("file", po::value<std::string>()->value_name("PATH"),
             "file or folder; its format is recognised")("json", po::bool_switch(), "JSON instead of text");
  line.positional({"file"});
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const std::vector<LintFinding> findings = lint_file(line.required("file"), read_trust(line));
  const auto problems = std::count_if(findings.begin(), findings.end(), [](const LintFinding& finding) {
    return finding.severity == LintSeverity::problem;
  });
  if (line.get<bool>("json")) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const LintFinding& finding : findings) {
      list.push_back(
          {{"severity", to_string(finding.severity)}, {"place", finding.place}, {"text", finding.text}});
    }
    fmt::print("{}\n", list.dump(2));
  } else {
    for (const LintFinding& finding : findings) {
      fmt::print("{}: {}: {}\n", to_string(finding.severity), finding.place, finding.text);
    }
    fmt::print("{}\n", problems == 0 ? std::string("no problems") : fmt::format("{} problems", problems));
  }
  return problems == 0 ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
