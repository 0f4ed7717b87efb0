#include "calibration/residual_alpha.h"

#include <algorithm>
#include <cmath>

#include "calibration/fit_alpha.h"
#include "core/error.h"

namespace tq {
namespace {

// Errors of r^ = (alpha/d) ||r|| g against r, both in units of ||r||, summed over vectors.
struct ResidualErrors {
  ExactSum rg, gg, cosine;
  std::uint64_t rows = 0;

  void add(const ResidualProducts& p) {
    if (!(p.norm > 0) || !(p.gg > 0)) return;
    ++rows;
    rg.add(static_cast<double>(p.rg));
    gg.add(static_cast<double>(p.gg));
    cosine.add(static_cast<double>(p.rg) / std::sqrt(static_cast<double>(p.gg)));
  }
  TableMetrics metrics(double alpha, int head_dim) const {
    const double n = static_cast<double>(std::max<std::uint64_t>(rows, 1)), beta = alpha / head_dim;
    TableMetrics metrics;
    metrics.relative_mse = 1 - 2 * beta * rg.value() / n + beta * beta * gg.value() / n;
    metrics.cosine = cosine.value() / n;
    return metrics;
  }
};

}  // namespace

void calibrate_from_residuals(Capture& capture, const LayerContext& layer, const CalibrationOptions& options,
                              LayerArtefact& result) {
  if (options.key.mode != KeyMode::prod) {
    throw UsageError(
        "layer {} holds k_residual but no k: only alpha can be fitted to it; use --key-mode prod",
        layer.layer);
  }
  if (options.alpha == AlphaTarget::cos || options.alpha == AlphaTarget::score) {
    throw UsageError("layer {} holds k_residual but no k: --alpha {} needs keys; use --alpha mse",
                     layer.layer, to_string(options.alpha));
  }
  const KeyTables fallback = default_key_tables(options.key, layer.info.head_dim);
  const KeyCodec codec(options.key, layer.rotation, layer.sketch, fallback);
  const std::size_t heads = layer.kv_heads(), d = layer.head_dim(), tables = options.per_head ? heads : 1;
  std::vector<ResidualStatistics> statistics(tables);
  std::vector<ResidualErrors> fit(tables), held_out(tables);
  const std::size_t tokens = capture.info().tokens;
  const std::size_t chunk = capture.preferred_rows(layer.layer, Tensor::k_residual);
  std::vector<float> rows;
  std::vector<ResidualProducts> products;
  for (std::size_t begin = 0; begin < tokens;) {
    const std::size_t end = std::min({tokens, (begin / chunk + 1) * chunk, layer.split->run_end(begin)});
    const std::size_t count = end - begin;
    rows.resize(heads * count * d);
    products.resize(heads * count);
    capture.read(layer.layer, Tensor::k_residual, begin, count, rows.data());
    codec.residual_products_rotated(rows.data(), heads * count, products.data());
    for (std::size_t i = 0; i < products.size(); ++i) {
      const std::size_t table = options.per_head ? i / count : 0;
      (layer.split->held_out(begin) ? held_out : fit)[table].add(products[i]);
      if (!layer.split->held_out(begin))
        statistics[table].add(products[i], i / count << 40 | (begin + i % count));
    }
    layer.progress(count);
    begin = end;
  }
  std::vector<KeyTables> fitted;
  Candidate standard{"default", {}, {}}, tuned{"default table, fitted alpha", {}, {}};
  const auto add_mean = [&](TableMetrics& mean, const TableMetrics& one) {
    mean.relative_mse += one.relative_mse / static_cast<double>(tables);
    mean.cosine += one.cosine / static_cast<double>(tables);
  };
  for (std::size_t i = 0; i < tables; ++i) {
    const double alpha = fit_alpha(options.alpha, statistics[i], layer.info.head_dim, layer.where);
    fitted.push_back({fallback.codebook, alpha});
    add_mean(standard.fit, fit[i].metrics(fallback.qjl_scale, layer.info.head_dim));
    add_mean(standard.held_out, held_out[i].metrics(fallback.qjl_scale, layer.info.head_dim));
    add_mean(tuned.fit, fit[i].metrics(alpha, layer.info.head_dim));
    add_mean(tuned.held_out, held_out[i].metrics(alpha, layer.info.head_dim));
  }
  const bool better = tuned.held_out.relative_mse < standard.held_out.relative_mse;
  result.key_gate.reason =
      fmt::format("held-out relative error of the residual {:.6g} against {:.6g} of {}",
                  (better ? tuned : standard).held_out.relative_mse,
                  (better ? standard : tuned).held_out.relative_mse, (better ? standard : tuned).name);
  result.key_gate.kept = better ? 1 : 0;
  result.key_gate.candidates = {standard, tuned};
  result.key_tables = better ? fitted : std::vector<KeyTables>{fallback};
}

}  // namespace tq
