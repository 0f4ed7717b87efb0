#include <doctest/doctest.h>

#include <filesystem>

#include "calibration/artefact/digest.h"
#include "calibration/artefact/export.h"
#include "calibration/artefact/import.h"
#include "calibration/artefact/table_checks.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"

using tq::ExportFormat;
using tq::test::plain_artefact;
using tq::test::random_artefact;
using tq::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

constexpr ExportFormat kFormats[] = {ExportFormat::upstream_json, ExportFormat::kv_json,
                                     ExportFormat::safetensors, ExportFormat::c_header};

void check_same_table(const tq::ImportedTable& a, const tq::ImportedTable& b) {
  CHECK(a.codebook.bits == b.codebook.bits);
  CHECK(tq::to_float32(a.codebook.centroids) == tq::to_float32(b.codebook.centroids));
  CHECK(tq::to_float32(a.codebook.boundaries) == tq::to_float32(b.codebook.boundaries));
  CHECK(a.qjl_scale.has_value() == b.qjl_scale.has_value());
  CHECK(static_cast<float>(a.qjl_scale.value_or(0)) == static_cast<float>(b.qjl_scale.value_or(0)));
}

void check_same_tables(const tq::ImportedTables& a, const tq::ImportedTables& b) {
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    CHECK(a.layers[i].head_dim == b.layers[i].head_dim);
    REQUIRE(a.layers[i].key_tables.size() == b.layers[i].key_tables.size());
    REQUIRE(a.layers[i].value_tables.size() == b.layers[i].value_tables.size());
    for (std::size_t h = 0; h < a.layers[i].key_tables.size(); ++h) {
      check_same_table(a.layers[i].key_tables[h], b.layers[i].key_tables[h]);
    }
    for (std::size_t h = 0; h < a.layers[i].value_tables.size(); ++h) {
      check_same_table(a.layers[i].value_tables[h], b.layers[i].value_tables[h]);
    }
  }
}

}  // namespace

TEST_CASE("every export reads back to the same float32 tables and, where it carries all, the same artefact") {
  const TemporaryFolder folder;
  for (std::uint64_t seed = 100; seed < 140; ++seed) {
    const tq::Artefact artefact = random_artefact(seed);
    for (const ExportFormat format : kFormats) {
      CAPTURE(seed);
      CAPTURE(tq::to_string(format));
      // The name says nothing: the content decides.
      const std::string path = folder / fmt::format("{}-{}", seed, static_cast<int>(format));
      tq::export_artefact(artefact, format, path);
      const tq::ImportedTables tables = tq::import_tables(path);
      CHECK(tq::to_string(tables.format) == tq::to_string(format));
      CHECK(tables.unknown.empty());
      CHECK(tables.digest == tq::artefact_digest(artefact));
      check_same_tables(tables, tq::tables_of(artefact));
      tq::Artefact back = tq::import_artefact(path);
      CHECK(tq::artefact_digest(back) == tq::artefact_digest(artefact));
      if (format == ExportFormat::c_header) continue;  // float32, and of the provenance the model alone
      CHECK(back.provenance == artefact.provenance);
      if (format == ExportFormat::safetensors) continue;  // float32
      REQUIRE(back.layers.size() == artefact.layers.size());
      for (std::size_t i = 0; i < back.layers.size(); ++i) {  // JSON keeps all of float64, and no metrics
        back.layers[i].key_gate = artefact.layers[i].key_gate;
        back.layers[i].value_gate = artefact.layers[i].value_gate;
      }
      CHECK(tq::test::same_content(back, artefact));
    }
  }
}

TEST_CASE("the master copy imports as it is") {
  const TemporaryFolder folder;
  const tq::Artefact artefact = random_artefact(5);
  tq::write_artefact(artefact, folder / "a");
  check_same_tables(tq::import_tables(folder / "a"), tq::tables_of(artefact));
  CHECK(tq::test::same_content(tq::import_artefact(folder / "a"), artefact));
}

TEST_CASE("an export is the same bytes every time, and replaces an earlier one") {
  const TemporaryFolder folder;
  for (const ExportFormat format : kFormats) {
    tq::export_artefact(plain_artefact(), format, folder / "a");
    const auto content = [&] {
      if (!fs::is_directory(folder / "a")) return tq::test::read_text(folder / "a");
      std::string all;
      for (const auto& entry : fs::recursive_directory_iterator(folder / "a")) {
        if (entry.is_regular_file()) all += tq::test::read_text(entry.path().string());
      }
      return all;
    };
    const std::size_t first = content().size();
    tq::export_artefact(random_artefact(3), format, folder / "a");
    tq::export_artefact(plain_artefact(), format, folder / "a");
    CHECK(content().size() == first);
    CHECK(tq::import_tables(folder / "a").layers.size() == 2);
    fs::remove_all(folder / "a");
    CHECK(fs::is_empty(folder / ""));  // no temporary stays
  }
}

TEST_CASE("a folder with anything of someone else's is not replaced") {
  const TemporaryFolder folder;
  const auto write = [&] {
    tq::export_artefact(plain_artefact(), ExportFormat::upstream_json, folder / "a");
  };
  tq::test::write_text(folder / "a", "a file");
  CHECK_THROWS_AS(write(), tq::UsageError);
  fs::remove(folder / "a");
  fs::create_directory(folder / "a");
  CHECK_NOTHROW(write());  // an empty folder
  tq::test::write_text(folder / "a/layer_001/notes.txt", "mine");
  CHECK_THROWS_WITH_AS(write(), doctest::Contains("holds 'notes.txt', which no export wrote"),
                       tq::UsageError);
  CHECK(fs::exists(folder / "a/layer_001/notes.txt"));
  fs::remove(folder / "a/layer_001/notes.txt");
  CHECK_NOTHROW(write());
  fs::remove(folder / "a/turboquant_export.json");
  CHECK_THROWS_WITH_AS(write(), doctest::Contains("is not an export"), tq::UsageError);
  CHECK_THROWS_AS(tq::export_artefact(plain_artefact(), ExportFormat::upstream_json, folder / "no/a"),
                  tq::SystemError);
}

TEST_CASE("what a killed export left is cleared") {
  const TemporaryFolder folder;
  fs::create_directories(folder / ".a.tq-tmp/layer_000");
  tq::test::write_text(folder / ".a.tq-tmp/layer_000/x", "old");
  tq::export_artefact(plain_artefact(), ExportFormat::upstream_json, folder / "a/");
  CHECK_FALSE(fs::exists(folder / ".a.tq-tmp"));
  CHECK_FALSE(fs::exists(folder / "a/layer_000/x"));
  CHECK(tq::import_tables(folder / "a").layers.size() == 2);
}

TEST_CASE("names of formats") {
  for (const ExportFormat format : kFormats)
    CHECK(tq::parse_export_format("--format", tq::to_string(format)) == format);
  CHECK_THROWS_WITH_AS(
      tq::parse_export_format("--format", "gguf"),
      "--format 'gguf' is unknown; choose one of: upstream-json, kv-json, safetensors, c-header",
      tq::UsageError);
}

TEST_CASE("an invalid artefact is not exported") {
  const TemporaryFolder folder;
  tq::Artefact artefact = plain_artefact();
  artefact.layers[0].key_tables.clear();
  for (const ExportFormat format : kFormats) {
    CHECK_THROWS_AS(tq::export_artefact(artefact, format, folder / "a"), tq::InputError);
    CHECK_FALSE(fs::exists(folder / "a"));
  }
}
