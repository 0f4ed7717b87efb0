#pragma once

#include <string_view>

#include "calibration/residual_statistics.h"
#include "core/codec_config.h"

namespace tq {

// The QJL alpha for a target:
// - unbiased: sqrt(pi/2), no data;
// - mse: alpha* = d sum(||r|| <r,g>) / sum(||r||^2 ||g||^2), g = S^T sign(S r): least squares, closed form;
// - cos: maximises the mean cosine of x and x^ over the sampled rows, by golden section over [0, 2] to 1e-6;
// - score: least squares over captured queries, sum(a b) / sum(b^2).
// Throws InputError when the statistics hold nothing to fit the target to; `where` begins the message
// ("model.kv.h5: layer 3").
double fit_alpha(AlphaTarget target, const ResidualStatistics& statistics, int head_dim,
                 std::string_view where);

// The objective of `cos`: mean over the sample of <x, x^> / (||x|| ||x^||) at this alpha.
double mean_cosine(const std::vector<ResidualProducts>& sample, double alpha, int head_dim);

}  // namespace tq
