#include <fmt/format.h>

#include <filesystem>

#include "calibration/artefact/export.h"
#include "calibration/artefact/lint.h"
#include "core/error.h"
#include "experiments/calibration_run.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/progress_bar.h"
#include "experiments/report_output.h"
#include "experiments/sample.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

struct Recipe {
  const char* name;
  CodecOptions codec;
};

// The seed's configuration and what replaces it, at the same or fewer bytes.
std::vector<Recipe> recipes() {
  constexpr KeyMode kProd = KeyMode::prod, kMse = KeyMode::mse;
  constexpr ScaleRule kNc = ScaleRule::nc;
  constexpr SketchKind kGaussian = SketchKind::gaussian, kOrthogonal = SketchKind::orthogonal;
  const ValueConfig group3{ValueMode::group, 3, 32, kNc}, rotated3{ValueMode::rotated, 3, 32, kNc},
      rotated4{ValueMode::rotated, 4, 32, kNc};
  constexpr RotationKind kRht = RotationKind::rht;
  return {
      {"prod 3 gaussian, unbiased alpha (seed)",
       {{kProd, 3, kNc, kGaussian}, group3, kRht, AlphaTarget::unbiased, 0}},
      {"prod 3 gaussian, fitted alpha", {{kProd, 3, kNc, kGaussian}, group3, kRht, AlphaTarget::mse, 0}},
      {"prod 3 orthogonal, fitted alpha", {{kProd, 3, kNc, kOrthogonal}, group3, kRht, AlphaTarget::mse, 0}},
      {"mse 3, scale norm",
       {{kMse, 3, ScaleRule::norm, kOrthogonal},
        {ValueMode::rotated, 3, 32, ScaleRule::norm},
        kRht,
        AlphaTarget::unbiased,
        0}},
      {"mse 3, scale nc", {{kMse, 3, kNc, kOrthogonal}, rotated3, kRht, AlphaTarget::unbiased, 0}},
      {"mse 4, scale nc", {{kMse, 4, kNc, kOrthogonal}, rotated4, kRht, AlphaTarget::unbiased, 0}}};
}

std::string cell(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "-"; }

void compare_codecs(const std::string& sample) {
  const std::vector<Recipe> list = recipes();
  Table table({"keys", "values", "softmax KL", "top-1", "output err", "bytes/token", "vs FP16"});
  CaptureReader capture(sample, Trust::full);
  ProgressBar bar("measuring", list.size() * capture.info().tokens * capture.info().layers.size());
  for (const Recipe& recipe : list) {
    const CaptureReport report = evaluate_capture(capture, recipe.codec, bar.callback());
    const LayerMetrics& metrics = report.overall.metrics;
    table.row({recipe.name, describe(recipe.codec.value), cell(metrics.softmax_kl),
               cell(metrics.top1_agreement), cell(metrics.output_error),
               fmt::format("{}", report.overall.bytes_per_token),
               fmt::format("{:.2f}x", static_cast<double>(report.overall.fp16_bytes_per_token) /
                                          report.overall.bytes_per_token)});
  }
  fmt::print("{}\n", table.text());
}

}  // namespace

ExitCode run_demo(const Arguments& arguments) {
  CommandLine line("demo", "run the main job on the embedded sample, end to end", "tq demo --out tq-demo");
  line.add()("out", po::value<std::string>()->default_value("tq-demo")->value_name("DIR"),
             "where the artefact and the exports go");
  if (!line.parse(arguments)) return ExitCode::done;
  const std::filesystem::path out = line.get<std::string>("out");
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) throw SystemError("{}: cannot be created: {}", out.string(), error.message());
  const std::string sample = sample_capture_path();

  fmt::print(
      "1. What the cache loses under each codec (embedded sample of a trained model, every token "
      "quantised):\n\n");
  compare_codecs(sample);

  fmt::print("2. Tables and alpha fitted to the first half of the tokens, judged on the second:\n\n");
  CalibrationOptions options;
  options.key.mode = KeyMode::prod;
  const std::string artefact_path = (out / "sample.tq.h5").string();
  const Artefact artefact = run_calibration({sample}, Trust::full, options, "tq demo").artefact;
  write_artefact(artefact, artefact_path);
  fmt::print("{}\n", gate_table(artefact));

  fmt::print("3. Files for inference engines:\n\n  {}\n", artefact_path);
  struct Target {
    ExportFormat format;
    const char* name;
  };
  for (const Target& target : {Target{ExportFormat::upstream_json, "upstream-json"},
                               Target{ExportFormat::kv_json, "turboquant_kv.json"},
                               Target{ExportFormat::safetensors, "sample.safetensors"},
                               Target{ExportFormat::c_header, "sample_tables.h"}}) {
    const std::string path = (out / target.name).string();
    export_artefact(artefact, target.format, path);
    fmt::print("  {}\n", path);
  }
  std::size_t problems = 0;
  for (const LintFinding& finding : lint_file(artefact_path)) {
    problems += finding.severity == LintSeverity::problem ? 1 : 0;
  }
  fmt::print("\n4. Lint of {}: {}\n\nNext: tq eval --capture YOUR.kv.h5, tq calibrate --help\n",
             artefact_path,
             problems == 0 ? std::string("no problems") : fmt::format("{} problems", problems));
  return problems == 0 ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
