#include "kernel_templates/kernels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/hadamard.h"
#include "kernel_templates/spec_text.h"
#include "shared/launch.h"

namespace tq::gpu {
namespace {

std::string include(const char* file) { return fmt::format("#include \"device/{}.cuh\"\n", file); }

template <typename Spec>
KernelSource instantiate(std::string label, const char* name, const Spec& spec) {
  return {std::move(label), include(name), fmt::format("tq::gpu::{}<{}>", name, cpp_text(spec)), {}};
}

KeySpec without_scale_rule(KeySpec key) {
  key.scale = ScaleRule::norm;
  return key;
}

const char* side_name(Side side) { return side == Side::keys ? "keys" : "values"; }
std::string block_name(int warps, int stages) { return fmt::format(" warps{} stages{}", warps, stages); }
const char* layout_name(Layout layout) { return layout == Layout::tiles ? "tiles" : "canonical"; }

}  // namespace

bool wht_is_mixed(int order) { return hadamard_plan(order).paley_orders.size() > 1; }

KernelSource wht_kernel(const WhtSpec& spec) {
  const std::string label =
      fmt::format("wht d{} {}{}", spec.order, describe(spec.element), spec.transposed ? " transposed" : "");
  if (transforms_halves(spec)) return instantiate(label, "wht_halves", spec);
  if (!wht_is_mixed(spec.order)) return instantiate(label, "wht", spec);
  const HadamardPlan plan = hadamard_plan(spec.order);
  return {label,
          include("wht_mixed"),
          fmt::format("tq::gpu::wht_mixed<{}, {}, {}>", cpp_text(spec), plan.sylvester_order,
                      fmt::join(plan.paley_orders, ", ")),
          {}};
}

KernelSource rotate_kernel(const RotateSpec& asked) {
  const RotateSpec spec{without_scale_rule(asked.key), asked.element};
  return instantiate(fmt::format("rotate {} {}", describe(spec.key), describe(spec.element)), "rotate", spec);
}
KernelSource encode_kernel(const EncodeSpec& asked) {
  EncodeSpec spec = asked;
  if (spec.layout == Layout::canonical) spec.side = Side::keys;
  return instantiate(fmt::format("encode {} {} {} {}", side_name(spec.side), describe(spec.key),
                                 layout_name(spec.layout), describe(spec.element)),
                     "encode", spec);
}
KernelSource encode_halves_kernel(const EncodeSpec& spec) {
  return instantiate(fmt::format("encode {} {} {} {} as halves", side_name(spec.side), describe(spec.key),
                                 layout_name(spec.layout), describe(spec.element)),
                     "encode_halves", spec);
}
KernelSource decode_kernel(const DecodeSpec& asked) {
  DecodeSpec spec = asked;
  spec.key = without_scale_rule(spec.key);
  if (spec.layout == Layout::canonical) spec.side = Side::keys;
  return instantiate(fmt::format("decode {} {} {} {}", side_name(spec.side), describe(spec.key),
                                 layout_name(spec.layout), describe(spec.element)),
                     "decode", spec);
}
KernelSource encode_groups_kernel(const GroupCodecSpec& spec) {
  return instantiate(fmt::format("encode values {} {} {}", describe(spec.group), layout_name(spec.layout),
                                 describe(spec.element)),
                     "encode_groups", spec);
}
KernelSource decode_groups_kernel(const GroupCodecSpec& spec) {
  KernelSource source = instantiate(fmt::format("decode values {} {} {}", describe(spec.group),
                                                layout_name(spec.layout), describe(spec.element)),
                                    "decode_groups", spec);
  source.text = include("decode");
  return source;
}
KernelSource scores_kernel(const ScoreSpec& asked) {
  ScoreSpec spec = asked;
  spec.key = without_scale_rule(spec.key);
  return instantiate(blockless_label(spec) + block_name(spec.warps, spec.stages), "scores", spec);
}
KernelSource attend_kernel(const AttendSpec& asked) {
  AttendSpec spec = asked;
  spec.key = without_scale_rule(spec.key);
  if (!spec.value.rotated) spec.value.table = {};
  return instantiate(blockless_label(spec) + block_name(spec.warps, spec.stages), "attend", spec);
}
KernelSource append_kernel() { return {"append", include("append"), "tq::gpu::append", {}}; }

std::string blockless_label(const ScoreSpec& spec) {
  const char* part = spec.part == ScorePart::all ? "" : spec.part == ScorePart::table ? " table" : " signs";
  return fmt::format("scores {} heads{}{}", describe(without_scale_rule(spec.key)), 8 * spec.query_tiles,
                     part);
}
std::string blockless_label(const AttendSpec& spec) {
  const std::string codecs =
      spec.quantised ? fmt::format("{} / {}", describe(without_scale_rule(spec.key)), describe(spec.value))
                     : fmt::format("d{} binary16", spec.head_dim);
  return fmt::format("attend {} heads{}", codecs, 8 * spec.query_tiles);
}

int attend_query_tiles(int head_dim, int group) { return group > 8 && head_dim <= 128 ? 2 : 1; }

AttendSpec with_block(AttendSpec spec, int shared_limit) {
  // 8 warps leave a thread as many registers as it can have, and need the fewest bytes on their way and the
  // least merging that still keep memory busy.
  spec.stages = spec.quantised ? 1 : 0;
  for (spec.warps = 8; spec.warps >= 4; spec.warps -= 4) {
    if (attend_shared_bytes(spec) <= shared_limit) return spec;
  }
  spec.warps = 8;
  spec.stages = 0;
  return spec;
}

ScoreSpec with_block(ScoreSpec spec, int shared_limit) {
  spec.stages = 1;
  for (spec.warps = 16; spec.warps >= 4; spec.warps -= 4) {
    if (score_shared_bytes(spec) <= shared_limit) return spec;
  }
  spec.warps = 8;
  spec.stages = 0;
  return spec;
}

}  // namespace tq::gpu
