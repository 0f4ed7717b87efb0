#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/artefact/artefact_layout.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export.h"
#include "calibration/artefact/import.h"
#include "tests/calibration/artefact/artefact_samples.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"

using tq::ExportFormat;
using tq::test::check_golden_file;
using tq::test::golden_artefact;
using tq::test::golden_path;
using tq::test::read_text;
using tq::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

// An export whose format_version moves gets a new name here, and both are read.
struct FrozenExport {
  ExportFormat format;
  const char* name;
};
constexpr FrozenExport kWritten[] = {{ExportFormat::kv_json, "export_version_1.turboquant_kv.json"},
                                     {ExportFormat::safetensors, "export_version_1.safetensors"},
                                     {ExportFormat::c_header, "export_version_1.h"}};
constexpr const char* kUniformWritten = "export_version_1_uniform.turboquant_kv.json";
constexpr const char* kUpstreamWritten = "export_version_1_upstream";
constexpr const char* kRead[] = {"export_version_1.turboquant_kv.json", "export_version_1.safetensors",
                                 "export_version_1.h", "export_version_1_upstream"};
constexpr const char* kUniformRead[] = {"export_version_1_uniform.turboquant_kv.json"};

// sphere_mse() is computed by the C library's functions, which differ in the last digits.
std::string without_computed_numbers(std::string json) {
  for (const std::string_view name : {"\"mse_per_coord\": ", "\"mse_total\": "}) {
    std::size_t at = 0;
    while ((at = json.find(name, at)) != std::string::npos) {
      at += name.size();
      json.erase(at, json.find_first_not_of("-+.0123456789e", at) - at);
      json.insert(at, 1, '0');
    }
  }
  return json;
}

// No other layer's head dimension: head_size and rotation stand at the top of turboquant_kv.json.
tq::Artefact uniform_artefact() {
  tq::Artefact artefact = golden_artefact();
  artefact.layers.resize(1);
  artefact.rotations.erase(24);
  artefact.sketches.erase(24);
  artefact.policy.reset();
  artefact.softmax_scale.reset();
  return artefact;
}

}  // namespace

TEST_CASE("frozen: digests of an artefact") {
  tq::test::GoldenDigests golden("artefact_digests");
  const tq::Artefact artefact = golden_artefact();
  golden.check("artefact digest 1", tq::artefact_digest(artefact));
  golden.check("artefact digest 1, neither policy nor softmax scale",
               tq::artefact_digest(uniform_artefact()));
  golden.check("rotation digest 1", tq::rotation_digest(artefact.rotations.at(16)));
  golden.check("rotation digest 1, dense", tq::rotation_digest(tq::test::exact_dense_rotation(16)));
  golden.check("sketch digest 1, orthogonal", tq::sketch_digest(artefact.sketches.at(24)));
  golden.check("sketch digest 1, gaussian", tq::sketch_digest(artefact.sketches.at(16)));
}

TEST_CASE("frozen: exports") {
  const TemporaryFolder folder;
  const auto exported = [&](const tq::Artefact& artefact, ExportFormat format) {
    tq::export_artefact(artefact, format, folder / "export");
    return read_text(folder / "export");
  };
  for (const FrozenExport& file : kWritten)
    check_golden_file(file.name, exported(golden_artefact(), file.format));
  check_golden_file(kUniformWritten, exported(uniform_artefact(), ExportFormat::kv_json));

  fs::remove(folder / "export");
  tq::export_artefact(golden_artefact(), ExportFormat::upstream_json, folder / "export");
  std::size_t files = 0, frozen_files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "export")) {
    if (!entry.is_regular_file()) continue;
    ++files;
    const std::string name =
        fmt::format("{}/{}", kUpstreamWritten, fs::relative(entry.path(), folder / "export").string());
    check_golden_file(name, without_computed_numbers(read_text(entry.path().string())));
  }
  for (const auto& entry : fs::recursive_directory_iterator(golden_path(kUpstreamWritten)))
    frozen_files += entry.is_regular_file();
  CHECK(files == frozen_files);
}

TEST_CASE("frozen: exports of every version are read") {
  const auto check = [](const char* name, const tq::Artefact& artefact) {
    CAPTURE(name);
    CHECK(tq::artefact_digest(tq::import_artefact(golden_path(name))) == tq::artefact_digest(artefact));
  };
  for (const char* name : kRead) check(name, golden_artefact());
  for (const char* name : kUniformRead) check(name, uniform_artefact());
}

// What is written today is compared with the file of today's version by h5py (test_artefact.py): HDF5's own
// bytes are the library's.
TEST_CASE("frozen: master copies of every version are read") {
  const TemporaryFolder folder;
  tq::write_artefact(golden_artefact(), folder / "a");
  tq::test::add_golden_file(fmt::format("artefact_version_{}.tq.h5", tq::kArtefactVersion),
                            read_text(folder / "a"));
  for (int version = 1; version <= tq::kArtefactVersion; ++version) {
    CAPTURE(version);
    const std::string path = golden_path(fmt::format("artefact_version_{}.tq.h5", version));
    CHECK(tq::test::same_content(tq::read_artefact(path), golden_artefact()));
  }
}
