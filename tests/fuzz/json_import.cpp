#include <algorithm>

#include "calibration/artefact/import.h"
#include "core/error.h"
#include "tests/fuzz/input_file.h"

namespace {

// Drawing rotations of many dimensions again takes most of the time, and is no parsing.
bool is_small(const tq::ImportedTables& tables) {
  const auto small = [](const auto& entry) { return entry.first <= 64; };
  return std::all_of(tables.seeded_rotations.begin(), tables.seeded_rotations.end(), small) &&
         std::all_of(tables.seeded_sketches.begin(), tables.seeded_sketches.end(), small);
}

}  // namespace

// An export as `tq import` and `tq lint` read it: upstream-json, kv-json and, told apart by content, a C
// header.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0 && data[0] == 0x89) return 0;  // HDF5: the target `artefact`
  try {
    const std::string path = tq::fuzz::file_of(data, size);
    if (is_small(tq::import_tables(path))) tq::import_artefact(path);
  } catch (const tq::InputError&) {
  }
  return 0;
}
