// The other side of test_artefact.py and test_export.py.
//   artefact_program write FOLDER SEED   a random artefact, as FOLDER/master.tq.h5 and in every export
//   artefact_program write-golden FILE   the artefact whose files are frozen
//   artefact_program read FILE           "ok", or the error on stderr and its exit code

#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "calibration/artefact/export.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"

int main(int argc, char** argv) try {
  const std::string command = argc > 2 ? argv[1] : "";
  if (command == "write" && argc == 4) {
    const std::string folder = argv[2];
    const tq::Artefact artefact = tq::test::random_artefact(std::stoull(argv[3]));
    tq::write_artefact(artefact, folder + "/master.tq.h5");
    tq::export_artefact(artefact, tq::ExportFormat::upstream_json, folder + "/upstream");
    tq::export_artefact(artefact, tq::ExportFormat::kv_json, folder + "/turboquant_kv.json");
    tq::export_artefact(artefact, tq::ExportFormat::safetensors, folder + "/tables.safetensors");
    tq::export_artefact(artefact, tq::ExportFormat::c_header, folder + "/tables.h");
    return 0;
  }
  if (command == "write-golden" && argc == 3) {
    tq::write_artefact(tq::test::golden_artefact(), argv[2]);
    return 0;
  }
  if (command == "read" && argc == 3) {
    tq::read_artefact(argv[2]);
    fmt::print("ok\n");
    return 0;
  }
  fmt::print(stderr, "usage: artefact_program write FOLDER SEED | write-golden FILE | read FILE\n");
  return 2;
} catch (const tq::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return static_cast<int>(error.exit_code());
}
