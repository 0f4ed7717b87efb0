#include "calibration/gate.h"

#include <fmt/format.h>

namespace tq {
namespace {

struct Judge {
  const char* name;
  bool lower_is_better;
  double (*value)(const TableMetrics&);
};

Judge judge_for(GateSide side, const TableMetrics& metrics) {
  if (side == GateSide::keys && metrics.softmax_kl) {
    return {"softmax KL", true, [](const TableMetrics& m) { return *m.softmax_kl; }};
  }
  if (side == GateSide::values && metrics.output_error) {
    return {"attention-output error", true, [](const TableMetrics& m) { return *m.output_error; }};
  }
  return {"cosine", false, [](const TableMetrics& m) { return m.cosine; }};
}

}  // namespace

TableMetrics key_metrics(const LayerMetrics& metrics) {
  return {metrics.key_relative_mse.value_or(0), metrics.key_cosine.value_or(0), metrics.softmax_kl,
          metrics.top1_agreement, std::nullopt};
}

TableMetrics value_metrics(const LayerMetrics& metrics) {
  return {metrics.value_relative_mse.value_or(0), metrics.value_cosine.value_or(0), std::nullopt,
          std::nullopt, metrics.output_error};
}

void apply_gate(GateSide side, GateRecord& gate) {
  if (gate.candidates.empty()) return;
  const Judge judge = judge_for(side, gate.candidates.front().held_out);
  const auto score = [&](std::size_t i) { return judge.value(gate.candidates[i].held_out); };
  std::size_t best = 0;
  for (std::size_t i = 1; i < gate.candidates.size(); ++i) {
    if (judge.lower_is_better ? score(i) < score(best) : score(i) > score(best)) best = i;
  }
  gate.kept = static_cast<int>(best);
  if (gate.candidates.size() == 1) {
    gate.reason = "only the default was a candidate";
    return;
  }
  const std::size_t rival = best == 0 ? 1 : 0;
  std::size_t second =
      rival;  // what it is compared with: the default, or the best of those that lost to the default
  for (std::size_t i = 1; best == 0 && i < gate.candidates.size(); ++i) {
    if (judge.lower_is_better ? score(i) < score(second) : score(i) > score(second)) second = i;
  }
  gate.reason = fmt::format("held-out {} {:.6g} against {:.6g} of {}", judge.name, score(best), score(second),
                            gate.candidates[second].name);
}

}  // namespace tq
