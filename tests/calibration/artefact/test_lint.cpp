#include <doctest/doctest.h>

#include <fmt/format.h>

#include <algorithm>

#include "calibration/artefact/export.h"
#include "calibration/artefact/lint.h"
#include "core/codebook.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"

using tq::LintFinding;
using tq::LintSeverity;
using tq::test::TemporaryFolder;

namespace {

// An upstream codebook file; the MSE stated is the table's times `stated`.
std::string codebook_file(const tq::Codebook& codebook, int head_dim, double stated = 1) {
  const double mse = stated * tq::sphere_mse(codebook, head_dim);
  return fmt::format(
      R"({{"centroids": [{}], "boundaries": [{}], "mse_per_coord": {}, "mse_total": {}, "d": {}, "bits": {}}})",
      fmt::join(codebook.centroids, ", "), fmt::join(codebook.boundaries, ", "), mse / head_dim, mse,
      head_dim, codebook.bits);
}

tq::Codebook symmetric(int bits, std::vector<double> positive) {
  tq::Codebook codebook{bits, positive, {}};
  for (const double centroid : positive) codebook.centroids.insert(codebook.centroids.begin(), -centroid);
  codebook.boundaries = tq::midpoint_boundaries(codebook.centroids);
  return codebook;
}

std::vector<LintFinding> lint(const std::string& text) {
  const TemporaryFolder folder;
  tq::test::write_text(folder / "t.json", text);
  return tq::lint_file(folder / "t.json");
}

std::size_t count(const std::vector<LintFinding>& findings, LintSeverity severity, const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(findings.begin(), findings.end(), [&](const LintFinding& finding) {
        CHECK(finding.text.find('\n') == std::string::npos);
        return finding.severity == severity && finding.text.find(text) != std::string::npos;
      }));
}

}  // namespace

TEST_CASE("the file that upstream ships for d = 128, b = 3 stopped early") {
  const auto findings = lint(
      codebook_file(symmetric(3, {0.021604310642, 0.066585608047, 0.118139766997, 0.188390613802}), 128));
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].severity == LintSeverity::problem);
  CHECK(findings[0].place == "t.json: key");
  CHECK(findings[0].text.find("the iteration stopped early: centroid 0 is -0.188390613802") == 0);
  CHECK(findings[0].text.find("has -0.188397185970") != std::string::npos);
}

TEST_CASE("optimal tables are optimal, printed with 12 digits or rounded to float32") {
  for (const int bits : {1, 2, 3, 4, 8}) {
    CAPTURE(bits);
    tq::Codebook codebook = tq::sphere_codebook(128, bits);
    const auto findings = lint(codebook_file(codebook, 128));
    REQUIRE(findings.size() == 1);
    CHECK(count(findings, LintSeverity::note, "optimal") == 1);
    for (double& value : codebook.centroids) value = static_cast<float>(value);
    for (double& value : codebook.boundaries) value = static_cast<float>(value);
    CHECK(count(lint(codebook_file(codebook, 128)), LintSeverity::note, "optimal") == 1);
  }
}

TEST_CASE("a table fitted to plenty of data is no unfinished iteration, however near the optimum it lies") {
  tq::Codebook codebook = tq::sphere_codebook(128, 3);
  for (std::size_t i = 0; i < codebook.centroids.size(); ++i)
    codebook.centroids[i] += i % 2 == 0 ? 2e-5 : -1e-5;
  codebook.boundaries = tq::midpoint_boundaries(codebook.centroids);
  const auto findings = lint(codebook_file(codebook, 128));
  REQUIRE(findings.size() == 1);
  CHECK(count(findings, LintSeverity::note, "fitted to data") == 1);
}

TEST_CASE("a table far from the optimum is a problem, one fitted to data a note") {
  tq::Codebook codebook = tq::sphere_codebook(128, 4);
  const auto scaled = [&](double factor) {
    tq::Codebook other = codebook;
    for (double& centroid : other.centroids) centroid *= factor;
    other.boundaries = tq::midpoint_boundaries(other.centroids);
    return lint(codebook_file(other, 128));
  };
  CHECK(count(scaled(1.03), LintSeverity::note, "fitted to data") == 1);
  CHECK(count(scaled(1.4), LintSeverity::problem, "times that of the optimum of d = 128, b = 4") == 1);
  CHECK(scaled(1.03).size() == 1);

  // Right centroids, boundaries of somewhere else.
  tq::Codebook skewed = codebook;
  for (std::size_t i = 1; i + 1 < skewed.boundaries.size(); ++i) {
    skewed.boundaries[i] = skewed.centroids[i - 1] + 0.4 * (skewed.centroids[i] - skewed.centroids[i - 1]);
  }
  CHECK(count(lint(codebook_file(skewed, 128)), LintSeverity::note, "not the midpoints") == 1);
  CHECK(count(lint(codebook_file(skewed, 128)), LintSeverity::note, "optimal") == 0);
}

TEST_CASE("a stated error that is not the table's, and unknown keys") {
  const tq::Codebook codebook = tq::sphere_codebook(64, 2);
  CHECK(count(lint(codebook_file(codebook, 64, 1.001)), LintSeverity::problem, "mse_total is stated as") ==
        1);
  CHECK(count(lint(codebook_file(codebook, 64, 1.001)), LintSeverity::problem,
              "mse_per_coord is stated as") == 1);
  CHECK(count(lint(codebook_file(codebook, 64, 1 + 1e-7)), LintSeverity::problem, "") == 0);
  const auto findings =
      lint(tq::test::replaced(codebook_file(codebook, 64), "\"bits\"", "\"qjl\": {\"a\": 1}, \"bits\""));
  REQUIRE(count(findings, LintSeverity::problem, "not an item of the format") == 1);
  CHECK(findings[0].place == "qjl");
}

TEST_CASE("alpha is compared with its known values, in every format") {
  const TemporaryFolder folder;
  tq::Artefact artefact = tq::test::plain_artefact();
  artefact.layers[1].key_tables[0].qjl_scale = tq::kUnbiasedAlpha / 64;
  tq::write_artefact(artefact, folder / "a");
  tq::export_artefact(artefact, tq::ExportFormat::kv_json, folder / "b");
  tq::export_artefact(artefact, tq::ExportFormat::upstream_json, folder / "c");
  tq::export_artefact(artefact, tq::ExportFormat::safetensors, folder / "d");
  tq::export_artefact(artefact, tq::ExportFormat::c_header, folder / "e");
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    CAPTURE(name);
    const auto findings = tq::lint_file(folder / name);
    CHECK(count(findings, LintSeverity::note, "+0.00 % from that of an orthogonal sketch") == 1);
    CHECK(count(findings, LintSeverity::note, "-36.09 % from unbiased") == 1);
    CHECK(count(findings, LintSeverity::problem,
                "0.019583 is far below every useful alpha; 1.25331 divided by d?") == 1);
    CHECK(count(findings, LintSeverity::note, "optimal") == 4);
    CHECK(findings.size() == 6);
  }
}

TEST_CASE("an unreadable file is an input error") {
  CHECK_THROWS_AS(lint("{"), tq::InputError);
  CHECK_THROWS_AS(tq::lint_file("/nonexistent/x"), tq::InputError);
}
