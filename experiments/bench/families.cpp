#include "experiments/bench/run.h"

namespace tq::bench {

const std::vector<Family>& families() {
  static const std::vector<Family> list{
      {"wht", "the Walsh-Hadamard transform", false, measure_wht},
      {"encode", "vectors to tiles", false, measure_encode},
      {"score", "scores of all tokens", false, measure_score},
      {"attend", "one decode step's attention", false, measure_attend},
      {"append", "one token into a cache", false, measure_append},
      {"prefill", "a prompt's tokens into a cache", false, measure_prefill},
      {"first", "a kernel's first use, compiled or from the disk cache", false, measure_first_use},
      {"size", "attention against tokens, batch, head_dim and bits", true, measure_size},
      {"capacity", "the longest context of 32 layers that fits, and attention over it", true,
       measure_capacity},
  };
  return list;
}

}  // namespace tq::bench
