#include "datasets/synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"

namespace tq {
namespace {

constexpr std::array<std::string_view, 5> kDistributionNames{"gaussian", "laplace", "student_t", "sphere",
                                                             "outliers"};
// Tokens generated and written at a time: whole chunks of the capture.
constexpr std::size_t kBlockTokens = 1024;

void validate(const SyntheticSpec& spec) {
  if (spec.head_dim < 1 || spec.head_dim > 1024) {
    throw UsageError("head_dim {} is out of range: 1 to 1024", spec.head_dim);
  }
  if (spec.degrees_of_freedom < 1 || spec.degrees_of_freedom > 1000) {
    throw UsageError("degrees of freedom {} are out of range: 1 to 1000", spec.degrees_of_freedom);
  }
  if (spec.outlier_channels < 0 || spec.outlier_channels > spec.head_dim) {
    throw UsageError("outlier channels {} are out of range: 0 to head_dim {}", spec.outlier_channels,
                     spec.head_dim);
  }
  if (!std::isfinite(spec.outlier_scale))
    throw UsageError("outlier scale {} is not finite", spec.outlier_scale);
}

void validate(const SyntheticCapture& spec) {
  if (spec.tokens == 0 || spec.tokens > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw UsageError("tokens {} are out of range: 1 to {}", spec.tokens,
                     std::numeric_limits<std::int32_t>::max());
  }
  if (spec.query_tokens > spec.tokens) {
    throw UsageError("query tokens {} are more than the tokens, {}", spec.query_tokens, spec.tokens);
  }
}

}  // namespace

std::string_view to_string(Distribution value) {
  return kDistributionNames.at(static_cast<std::size_t>(value));
}

template <>
Distribution parse_choice(std::string_view option, std::string_view text) {
  const auto found = std::find(kDistributionNames.begin(), kDistributionNames.end(), text);
  if (found == kDistributionNames.end()) {
    throw UsageError("{} '{}' is unknown; choose one of: {}", option, text,
                     fmt::join(kDistributionNames, ", "));
  }
  return static_cast<Distribution>(found - kDistributionNames.begin());
}

SyntheticRows::SyntheticRows(const SyntheticSpec& spec, std::uint64_t seed, std::uint32_t substream)
    : spec_(spec), random_(seed, RandomStream::synthetic, substream) {
  validate(spec);
}

double SyntheticRows::draw() {
  switch (spec_.distribution) {
    case Distribution::gaussian:
    case Distribution::sphere:
    case Distribution::outliers:
      return random_.normal();
    case Distribution::laplace: {
      // Inversion: |x| is exponential with mean 1/sqrt(2).
      const double u = random_.uniform();
      const double magnitude = -portable_log(u < 0.5 ? 2 * u : 2 * (1 - u)) * std::sqrt(0.5);
      return u < 0.5 ? -magnitude : magnitude;
    }
    case Distribution::student_t: {
      const double numerator = random_.normal();
      double chi_squared = 0;
      for (int i = 0; i < spec_.degrees_of_freedom; ++i) {
        const double z = random_.normal();
        chi_squared += z * z;
      }
      return numerator / std::sqrt(chi_squared / spec_.degrees_of_freedom);
    }
  }
  return 0;
}

void SyntheticRows::skip(std::size_t rows) {
  const bool sums_squares = spec_.distribution == Distribution::student_t;
  const std::uint64_t uniforms = sums_squares ? 1 + static_cast<std::uint64_t>(spec_.degrees_of_freedom) : 1;
  constexpr std::uint64_t kWordsOfUniform = 2;
  random_.skip(rows * static_cast<std::uint64_t>(spec_.head_dim) * uniforms * kWordsOfUniform);
}

void SyntheticRows::next(std::size_t rows, float* out) {
  const std::size_t head_dim = static_cast<std::size_t>(spec_.head_dim);
  std::vector<double> row(head_dim);
  for (std::size_t i = 0; i < rows; ++i, out += head_dim) {
    for (double& value : row) value = draw();
    if (spec_.distribution == Distribution::sphere) {
      double squares = 0;
      for (const double value : row) squares += value * value;
      for (double& value : row) value /= std::sqrt(squares);
    } else if (spec_.distribution == Distribution::outliers) {
      const std::size_t channels = static_cast<std::size_t>(spec_.outlier_channels);
      for (std::size_t c = 0; c < channels; ++c)
        row[(2 * c + 1) * head_dim / (2 * channels)] *= spec_.outlier_scale;
    }
    std::transform(row.begin(), row.end(), out, [](double value) { return static_cast<float>(value); });
  }
}

void write_synthetic_capture(const std::string& path, const SyntheticCapture& spec) {
  validate(spec.rows);
  validate(spec);
  CaptureSpec capture;
  capture.model = "synthetic";
  capture.description =
      fmt::format("{} rows of the portable generator, seed {}", to_string(spec.rows.distribution), spec.seed);
  capture.num_q_heads = spec.num_q_heads;
  capture.num_kv_heads = spec.num_kv_heads;
  capture.head_dims.assign(static_cast<std::size_t>(std::max(spec.num_layers, 0)), spec.rows.head_dim);
  capture.storage = spec.storage;
  capture.deflate_level = spec.deflate_level;
  CaptureWriter writer(path, std::move(capture));

  std::vector<float> block;
  const auto write_tensor = [&](int layer, Tensor tensor, int heads, std::size_t tokens) {
    const std::uint32_t substream = static_cast<std::uint32_t>(4 * layer + static_cast<int>(tensor));
    SyntheticRows rows(spec.rows, spec.seed, substream);
    for (std::size_t begin = 0; begin < tokens; begin += kBlockTokens) {
      const std::size_t count = std::min(kBlockTokens, tokens - begin) * static_cast<std::size_t>(heads);
      block.resize(count * static_cast<std::size_t>(spec.rows.head_dim));
      rows.next(count, block.data());
      writer.append(layer, tensor, block);
    }
  };
  for (int layer = 0; layer < spec.num_layers; ++layer) {
    write_tensor(layer, Tensor::k, spec.num_kv_heads, spec.tokens);
    write_tensor(layer, Tensor::v, spec.num_kv_heads, spec.tokens);
    write_tensor(layer, Tensor::q, spec.num_q_heads, spec.query_tokens);
  }

  const std::size_t length = spec.sequence_length == 0 ? spec.tokens : spec.sequence_length;
  std::vector<std::int32_t> positions, sequences;
  const auto place = [&](std::size_t token) {
    positions.push_back(static_cast<std::int32_t>(token % length));
    sequences.push_back(static_cast<std::int32_t>(token / length));
  };
  for (std::size_t begin = 0; begin < spec.tokens; begin += kBlockTokens) {
    positions.clear();
    sequences.clear();
    for (std::size_t i = begin; i < std::min(begin + kBlockTokens, spec.tokens); ++i) place(i);
    writer.append_tokens(positions, sequences);
  }
  positions.clear();
  sequences.clear();
  for (std::size_t i = 0; i < spec.query_tokens; ++i) place((i + 1) * spec.tokens / spec.query_tokens - 1);
  if (spec.query_tokens > 0) writer.append_queries(positions, sequences);
  writer.finish();
}

}  // namespace tq
