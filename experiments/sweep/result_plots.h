#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/alpha_plot.h"
#include "experiments/sweep/averaged_rows.h"
#include "experiments/sweep/layer_bars_plot.h"
#include "experiments/sweep/pareto_plot.h"

// The plots of a sweep's results. All rows are of one input.
namespace tq {

// "keys prod 3 orthogonal mse, values group 2/32, rotation qr": both codecs, and of the other axes those that
// vary.
std::string configuration_label(const ResultRow& row, const std::vector<std::string>& varying);

// The rows' varying axes.
std::vector<std::string> varying_axes(const std::vector<AveragedRow>& rows);

// The metrics of which a plot can be made: known, and neither bytes nor compression.
std::vector<std::string> plottable_metrics(const ResultValues& values);

// One point a row; all rows have `x` (bytes_per_token or padded_bytes_per_token) and the metric. Where keys
// alone or values alone are quantised and the metric is their relative MSE or cosine, with the
// rate-distortion bound of a Gaussian source: R bits a coordinate leave no less than 4^-R of its variance.
ParetoPlot pareto_of(const std::vector<AveragedRow>& rows, const std::string& x, const MetricInfo& y);

// One series a row. A metric that is better the higher, as a cosine or a share, is drawn as what it lacks to
// 1.
LayerBarsPlot layers_of(const std::vector<AveragedRow>& rows, const MetricInfo& y);

// One curve for the rows that differ in alpha alone, where one of them has a number for alpha. Its points are
// the rows with numbers, its targets those with names whose line says which alpha was in use.
AlphaPlot alphas_of(const std::vector<AveragedRow>& rows, const MetricInfo& y);

}  // namespace tq
