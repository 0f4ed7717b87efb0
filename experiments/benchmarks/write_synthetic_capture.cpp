// Writes a synthetic capture of a given size, for benchmarks: write_synthetic_capture OUT GIGABYTES
// [DEFLATE_LEVEL].
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "datasets/synthetic.h"

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    fmt::print(stderr, "usage: write_synthetic_capture OUT.kv.h5 GIGABYTES [DEFLATE_LEVEL]\n");
    return static_cast<int>(tq::ExitCode::usage);
  }
  tq::SyntheticCapture spec;
  spec.rows.distribution = tq::Distribution::outliers;
  spec.num_layers = 8;
  spec.num_kv_heads = 4;
  spec.num_q_heads = 16;
  spec.query_tokens = 16;
  spec.deflate_level = argc == 4 ? std::atoi(argv[3]) : 1;
  // Keys and values, two bytes a coordinate.
  const double token_bytes = 2.0 * 2 * spec.num_layers * spec.num_kv_heads * spec.rows.head_dim;
  spec.tokens = static_cast<std::size_t>(std::atof(argv[2]) * 1e9 / token_bytes);
  try {
    tq::write_synthetic_capture(argv[1], spec);
  } catch (const tq::Error& error) {
    fmt::print(stderr, "write_synthetic_capture: {}\n", error.what());
    return static_cast<int>(error.exit_code());
  }
  return 0;
}
