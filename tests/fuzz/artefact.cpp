#include "calibration/artefact/artefact.h"
#include "core/error.h"
#include "tests/fuzz/input_file.h"

// A master copy, *.tq.h5.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    tq::read_artefact(tq::fuzz::file_of(data, size), tq::Trust::full);
  } catch (const tq::InputError&) {
  }
  return 0;
}
