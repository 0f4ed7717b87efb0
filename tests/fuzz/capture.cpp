#include <algorithm>
#include <vector>

#include "core/error.h"
#include "datasets/capture.h"
#include "tests/fuzz/input_file.h"

namespace {

// Every value of every tensor; what a tensor lacks is an InputError, not the end of the others.
void read_everything(tq::CaptureReader& capture) {
  const tq::CaptureInfo& info = capture.info();
  std::vector<float> rows;
  for (int layer = 0; layer < info.num_layers; ++layer) {
    const std::size_t head_dim =
        static_cast<std::size_t>(info.layers[static_cast<std::size_t>(layer)].head_dim);
    for (const tq::Tensor tensor : {tq::Tensor::k, tq::Tensor::v, tq::Tensor::q, tq::Tensor::k_residual}) {
      try {
        const std::size_t all = capture.rows(tensor), step = capture.preferred_rows(layer, tensor);
        for (std::size_t begin = 0; begin < all; begin += step) {
          const std::size_t count = std::min(step, all - begin);
          rows.resize(count * static_cast<std::size_t>(capture.heads(tensor)) * head_dim);
          capture.read(layer, tensor, begin, count, rows.data());
        }
      } catch (const tq::InputError&) {
      }
    }
  }
}

}  // namespace

// A capture, opened as commands open it, but in this process, and read to its end.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    tq::CaptureReader capture(tq::fuzz::file_of(data, size), tq::Trust::full);
    read_everything(capture);
  } catch (const tq::InputError&) {
  }
  return 0;
}
