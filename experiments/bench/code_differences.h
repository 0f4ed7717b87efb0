#pragma once

#include <cstddef>
#include <cstdint>

#include "core/value_codec.h"
#include "experiments/bench/report.h"

namespace tq::bench {

// The device's codes against core's. A code may differ where its coordinate lies within rounding of a
// boundary; whether every one does is the GPU tests' question. Here their share must be that of chance.
class CodeDifferences {
 public:
  void add(const KeyCodec& codec, const ConstKeyBlock& is, const ConstKeyBlock& should, std::size_t rows);
  void add(const ValueCodec& codec, const ConstValueBlock& is, const ConstValueBlock& should,
           std::size_t rows);
  // What is stored as it came: binary16.
  void add_exact(const float* is, const float* should, std::size_t count);

  Check check() const;

 private:
  void add_codes(const std::uint8_t* is, const std::uint8_t* should, std::size_t rows, std::size_t d,
                 int bits);
  // May be one unit in the last place off.
  void add_scalar(std::uint16_t is, std::uint16_t should);

  std::size_t compared_ = 0, differ_ = 0;
};

}  // namespace tq::bench
