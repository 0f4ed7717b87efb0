#include "tests/calibration/artefact/artefact_samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "calibration/artefact/digest.h"
#include "core/random.h"
#include "tests/support/exact_inputs.h"

namespace tq::test {
namespace {

class Sampler {
 public:
  explicit Sampler(std::uint64_t seed) : random_(seed, RandomStream::synthetic) {}

  int below(int bound) { return static_cast<int>(random_.below(static_cast<std::uint32_t>(bound))); }
  bool coin() { return below(2) == 1; }
  double uniform() { return random_.uniform(); }

  Codebook codebook(int bits) {
    std::set<float> chosen;  // distinct as float32
    while (chosen.size() < std::size_t{1} << bits)
      chosen.insert(static_cast<float>(0.9 * (2 * uniform() - 1)));
    Codebook codebook{bits, {}, {-1}};
    // Original values that float32 does not hold.
    for (const float value : chosen) codebook.centroids.push_back(double{value} * (1 + 1e-9 * uniform()));
    const bool midpoints = coin();
    for (std::size_t i = 1; i < codebook.centroids.size(); ++i) {
      const double below = codebook.centroids[i - 1], above = codebook.centroids[i];
      codebook.boundaries.push_back(below + (midpoints ? 0.5 : 0.2 + 0.6 * uniform()) * (above - below));
    }
    codebook.boundaries.push_back(1);
    return codebook;
  }

  TableMetrics metrics() {
    TableMetrics metrics{.relative_mse = uniform(), .cosine = uniform()};
    if (coin()) metrics.softmax_kl = uniform();
    if (coin()) metrics.top1_agreement = uniform();
    if (coin()) metrics.output_error = uniform();
    return metrics;
  }

  GateRecord gate() {
    GateRecord gate;
    for (int i = below(4); i > 0; --i)
      gate.candidates.push_back({fmt::format("candidate {}", i), metrics(), metrics()});
    if (!gate.candidates.empty()) gate.kept = below(static_cast<int>(gate.candidates.size()));
    if (coin()) gate.reason = "held-out softmax KL 0.032 against 0.038";
    return gate;
  }

  LayerArtefact layer(int head_dim, SketchKind sketch) {
    LayerArtefact layer;
    layer.head_dim = head_dim;
    layer.num_kv_heads = 1 << below(3);
    layer.key.mode = coin() ? KeyMode::prod : KeyMode::mse;
    layer.key.bits = 2 + below(4);
    layer.key.sketch = layer.key.mode == KeyMode::prod ? sketch : SketchKind::orthogonal;
    layer.key.scale = layer.key.mode == KeyMode::mse ? static_cast<ScaleRule>(below(3)) : ScaleRule::nc;
    const int key_tables = coin() ? layer.num_kv_heads : 1;
    for (int i = 0; i < key_tables; ++i) {
      const double alpha = layer.key.mode == KeyMode::prod ? 2 * uniform() : 0;
      layer.key_tables.push_back({codebook(layer.key.table_bits()), alpha});
    }
    layer.key_gate = gate();
    if (coin()) {
      layer.value = {.mode = ValueMode::group, .bits = 2 + below(3), .group_size = 8 << below(2)};
      return layer;
    }
    layer.value = {
        .mode = ValueMode::rotated, .bits = 1 + below(5), .scale = static_cast<ScaleRule>(below(3))};
    const int value_tables = coin() ? layer.num_kv_heads : 1;
    for (int i = 0; i < value_tables; ++i) layer.value_tables.push_back(codebook(layer.value.bits));
    layer.value_gate = gate();
    return layer;
  }

 private:
  Random random_;
};

}  // namespace

Artefact random_artefact(std::uint64_t seed) {
  Sampler sampler(seed);
  Artefact artefact;
  artefact.num_q_heads = 8;
  artefact.key_basis = sampler.coin() ? "post_rope" : "pre_rope";
  if (sampler.coin()) artefact.softmax_scale = 0.1 + 0.1 * sampler.uniform();
  artefact.provenance = {.tool_version = "0.1.0",
                         .command_line = "tq calibrate --capture \"a b.kv.h5\" # \xc3\xa9 */ ",
                         .utc_time = "2026-11-23T18:34:37Z",
                         .capture_name = "a b.kv.h5",
                         .capture_sha256 = std::string(64, 'a'),
                         .model = sampler.coin() ? "" : "a model",
                         .fit_tokens = 512,
                         .held_out_tokens = 511};
  const std::vector<int> dims = sampler.coin() ? std::vector<int>{64, 80} : std::vector<int>{64};
  const auto sketch = static_cast<SketchKind>(sampler.below(2));
  const auto rotation = static_cast<RotationKind>(sampler.below(2));
  for (int layers = 1 + sampler.below(4), i = 0; i < layers; ++i) {
    const int head_dim = dims[static_cast<std::size_t>(sampler.below(static_cast<int>(dims.size())))];
    artefact.layers.push_back(sampler.layer(head_dim, sketch));
    // All 64 bits of a seed survive every format.
    const std::uint64_t object_seed = UINT64_MAX - seed;
    artefact.rotations.emplace(head_dim, Rotation::make(rotation, head_dim, object_seed));
    if (artefact.layers.back().key.mode == KeyMode::prod) {
      artefact.sketches.emplace(head_dim, Sketch::make(sketch, head_dim, object_seed));
    }
  }
  if (sampler.coin()) {
    artefact.policy = CachePolicy{.recent = sampler.below(300), .sinks = sampler.below(9), .flush_block = 1};
  }
  return artefact;
}

Artefact plain_artefact() {
  Artefact artefact;
  artefact.num_q_heads = 4;
  artefact.key_basis = "post_rope";
  artefact.provenance.model = "plain";
  artefact.rotations.emplace(64, Rotation::make(RotationKind::rht, 64, 7));
  artefact.sketches.emplace(64, Sketch::make(SketchKind::orthogonal, 64, 8));
  LayerArtefact layer;
  layer.head_dim = 64;
  layer.num_kv_heads = 2;
  layer.key = {.mode = KeyMode::prod, .bits = 3};
  layer.value = {.mode = ValueMode::rotated, .bits = 3};
  layer.key_tables = {{sphere_codebook(64, 2), isotropic_alpha_orthogonal(64)}};
  layer.value_tables = {sphere_codebook(64, 3)};
  artefact.layers = {layer, layer};
  return artefact;
}

Artefact golden_artefact() {
  Artefact artefact;
  artefact.num_q_heads = 4;
  artefact.key_basis = "pre_rope";
  artefact.softmax_scale = 0.1875;
  artefact.policy = CachePolicy{.recent = 64, .sinks = 4, .flush_block = 1};
  artefact.provenance = {.tool_version = "tq 0.1.0",
                         .command_line = "tq calibrate --capture \"a b.kv.h5\" # \xc3\xa9 */ ",
                         .utc_time = "2026-01-02T03:04:05Z",
                         .capture_name = "a b.kv.h5",
                         .capture_sha256 = std::string(64, 'a'),
                         .model = "a model",
                         .fit_tokens = 512,
                         .held_out_tokens = 511};
  for (const int d : {16, 24})
    artefact.rotations.emplace(d, Rotation::make(RotationKind::rht, d, UINT64_MAX));
  artefact.sketches.emplace(16, Sketch::make(SketchKind::gaussian, 16, 2));
  artefact.sketches.emplace(24, Sketch::make(SketchKind::orthogonal, 24, 3));

  LayerArtefact by_head;
  by_head.head_dim = 16;
  by_head.num_kv_heads = 2;
  by_head.key = {.mode = KeyMode::prod, .bits = 3, .sketch = SketchKind::gaussian};
  by_head.value = {.mode = ValueMode::rotated, .bits = 2, .scale = ScaleRule::ls};
  by_head.key_tables = {{exact_codebook(2), 0.75}, {exact_codebook(2, false), 1.25}};
  by_head.value_tables = {exact_codebook(2, false), exact_codebook(2)};
  const TableMetrics keys{
      .relative_mse = 0.125, .cosine = 0.875, .softmax_kl = 0.0625, .top1_agreement = 0.75};
  by_head.key_gate = {{{"default", keys, keys}, {"tuned", keys, {.relative_mse = 0.25, .cosine = 0.75}}},
                      1,
                      "held-out softmax KL 0.0625 against 0.125 of default"};
  by_head.value_gate = {
      {{"default", keys, {.relative_mse = 0.25, .cosine = 0.5, .output_error = 0.125}}}, 0, "one candidate"};

  LayerArtefact grouped;
  grouped.head_dim = 24;
  grouped.num_kv_heads = 1;
  grouped.key = {.mode = KeyMode::mse, .bits = 2, .scale = ScaleRule::norm};
  grouped.value = {.mode = ValueMode::group, .bits = 3, .group_size = 8};
  grouped.key_tables = {{exact_codebook(2), 0}};

  LayerArtefact orthogonal;
  orthogonal.head_dim = 24;
  orthogonal.num_kv_heads = 4;
  orthogonal.key = {.mode = KeyMode::prod, .bits = 2};
  orthogonal.value = {.mode = ValueMode::rotated, .bits = 3};
  orthogonal.key_tables = {{exact_codebook(1), 0.5}};
  orthogonal.value_tables = {exact_codebook(3)};

  artefact.layers = {by_head, grouped, orthogonal};
  return artefact;
}

bool same_content(const Artefact& a, const Artefact& b) {
  const auto same_objects = [](const auto& x, const auto& y, auto digest) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [&](const auto& p, const auto& q) {
      return p.first == q.first && digest(p.second) == digest(q.second) && p.second.seed() == q.second.seed();
    });
  };
  const auto same_layer = [](const LayerArtefact& x, const LayerArtefact& y) {
    return x.head_dim == y.head_dim && x.num_kv_heads == y.num_kv_heads && x.key == y.key &&
           x.value == y.value && x.key_tables == y.key_tables && x.value_tables == y.value_tables &&
           x.key_gate == y.key_gate && x.value_gate == y.value_gate;
  };
  return a.num_q_heads == b.num_q_heads && a.key_basis == b.key_basis && a.softmax_scale == b.softmax_scale &&
         a.policy == b.policy && a.provenance == b.provenance &&
         same_objects(a.rotations, b.rotations, rotation_digest) &&
         same_objects(a.sketches, b.sketches, sketch_digest) &&
         std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), same_layer);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at == text.npos) throw std::logic_error("'" + from + "' is not in the text");
  return text.replace(at, from.size(), to);
}

}  // namespace tq::test
