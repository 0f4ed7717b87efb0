#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/codec_config.h"
#include "core/random.h"
#include "datasets/capture.h"

namespace tq {

// Rows with a known law, to check what a codec does where the answer is known.
enum class Distribution {
  gaussian,   // N(0, 1) a coordinate
  laplace,    // density exp(-sqrt(2) |x|) / sqrt(2): variance 1
  student_t,  // Student's t of `degrees_of_freedom` nu: variance nu / (nu - 2) for nu > 2
  sphere,     // uniform on the unit sphere
  outliers,   // gaussian, with `outlier_channels` coordinates times `outlier_scale`
};

std::string_view to_string(Distribution);
template <>
Distribution parse_choice(std::string_view option, std::string_view text);

struct SyntheticSpec {
  Distribution distribution = Distribution::gaussian;
  int head_dim = 128;
  int degrees_of_freedom = 4;  // student_t only, 1 to 1000
  int outlier_channels = 4;    // outliers only, at (i + 1/2) head_dim / outlier_channels, rounded down
  double outlier_scale = 20;
};

// An endless sequence of rows; the same on every machine (core/random.h). `substream` tells apart sequences
// of one seed. Throws UsageError when the spec is out of range.
class SyntheticRows {
 public:
  SyntheticRows(const SyntheticSpec& spec, std::uint64_t seed, std::uint32_t substream);
  // The next `rows` rows: out is [rows][head_dim].
  void next(std::size_t rows, float* out);
  // Leaves out the next `rows` rows, in constant time: parts of a sequence can be made side by side.
  void skip(std::size_t rows);

 private:
  double draw();

  SyntheticSpec spec_;
  Random random_;
};

struct SyntheticCapture {
  SyntheticSpec rows;  // the law of keys, values and queries alike
  int num_layers = 1, num_kv_heads = 1, num_q_heads = 1;
  std::size_t tokens = 0;
  std::size_t query_tokens = 0;     // 0: no queries; else spread evenly, the last at the last token
  std::size_t sequence_length = 0;  // tokens a sequence; 0: all tokens are one
  std::uint64_t seed = 0;
  ElementType storage = ElementType::float16;
  int deflate_level = 4;
};

// Streams a capture to `path` in memory that does not grow with its tokens. Tensor t of layer l is substream
// 4 l + t of the seed, in the order [token][head][head_dim].
void write_synthetic_capture(const std::string& path, const SyntheticCapture& spec);

}  // namespace tq
