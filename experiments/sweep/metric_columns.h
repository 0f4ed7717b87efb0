#pragma once

#include <array>
#include <optional>

#include "calibration/evaluation.h"

namespace tq {

// The metrics of a sweep, in the order in which lines and tables have them.
struct MetricColumn {
  const char* key;    // in result lines
  const char* title;  // in tables; null: only in result lines
  std::optional<double> LayerMetrics::*field;
};

inline constexpr std::array<MetricColumn, 10> kMetricColumns{{
    {"key_relative_mse", "key MSE", &LayerMetrics::key_relative_mse},
    {"key_cosine", "key cos", &LayerMetrics::key_cosine},
    {"inner_product_bias", "<q,k> bias", &LayerMetrics::inner_product_bias},
    {"inner_product_variance", "<q,k> variance", &LayerMetrics::inner_product_variance},
    {"inner_product_error", nullptr, &LayerMetrics::inner_product_error},
    {"softmax_kl", "softmax KL", &LayerMetrics::softmax_kl},
    {"top1_agreement", "top-1", &LayerMetrics::top1_agreement},
    {"value_relative_mse", "value MSE", &LayerMetrics::value_relative_mse},
    {"value_cosine", "value cos", &LayerMetrics::value_cosine},
    {"output_error", "output err", &LayerMetrics::output_error},
}};

}  // namespace tq
