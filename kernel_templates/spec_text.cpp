#include "kernel_templates/spec_text.h"

#include <fmt/format.h>

#include <stdexcept>

namespace tq::gpu {
namespace {

[[noreturn]] void no_such_value() {
  throw std::invalid_argument("a specialisation's enum has no such value");
}

std::string name(Element element) {
  switch (element) {
    case Element::f32:
      return "f32";
    case Element::f16:
      return "f16";
    case Element::bf16:
      return "bf16";
  }
  no_such_value();
}
std::string name(Mixing mixing) {
  switch (mixing) {
    case Mixing::hadamard:
      return "hadamard";
    case Mixing::dense:
      return "dense";
  }
  no_such_value();
}
std::string name(ScaleRule rule) {
  switch (rule) {
    case ScaleRule::norm:
      return "norm";
    case ScaleRule::nc:
      return "nc";
    case ScaleRule::ls:
      return "ls";
  }
  no_such_value();
}
std::string name(Layout layout) {
  switch (layout) {
    case Layout::tiles:
      return "tiles";
    case Layout::canonical:
      return "canonical";
  }
  no_such_value();
}
std::string name(Side side) {
  switch (side) {
    case Side::keys:
      return "keys";
    case Side::values:
      return "values";
  }
  no_such_value();
}
std::string name(ScorePart part) {
  switch (part) {
    case ScorePart::all:
      return "all";
    case ScorePart::table:
      return "table";
    case ScorePart::signs:
      return "signs";
  }
  no_such_value();
}

std::string text(Element value) { return "tq::gpu::Element::" + name(value); }
std::string text(Mixing value) { return "tq::gpu::Mixing::" + name(value); }
std::string text(ScaleRule value) { return "tq::gpu::ScaleRule::" + name(value); }
std::string text(Layout value) { return "tq::gpu::Layout::" + name(value); }
std::string text(Side value) { return "tq::gpu::Side::" + name(value); }
std::string text(ScorePart value) { return "tq::gpu::ScorePart::" + name(value); }

}  // namespace

std::string cpp_text(const WhtSpec& spec) {
  const auto& [order, element, transposed] = spec;
  return fmt::format("tq::gpu::WhtSpec{{{}, {}, {}}}", order, text(element), transposed);
}
std::string cpp_text(const KeySpec& spec) {
  const auto& [head_dim, table_bits, prod, scale, rotation, sketch] = spec;
  return fmt::format("tq::gpu::KeySpec{{{}, {}, {}, {}, {}, {}}}", head_dim, table_bits, prod, text(scale),
                     text(rotation), text(sketch));
}
std::string cpp_text(const GroupSpec& spec) {
  const auto& [head_dim, bits, group_size] = spec;
  return fmt::format("tq::gpu::GroupSpec{{{}, {}, {}}}", head_dim, bits, group_size);
}
std::string cpp_text(const ValueSpec& spec) {
  const auto& [rotated, table, group] = spec;
  return fmt::format("tq::gpu::ValueSpec{{{}, {}, {}}}", rotated, cpp_text(table), cpp_text(group));
}
std::string cpp_text(const RotateSpec& spec) {
  const auto& [key, element] = spec;
  return fmt::format("tq::gpu::RotateSpec{{{}, {}}}", cpp_text(key), text(element));
}
std::string cpp_text(const EncodeSpec& spec) {
  const auto& [key, side, layout, element] = spec;
  return fmt::format("tq::gpu::EncodeSpec{{{}, {}, {}, {}}}", cpp_text(key), text(side), text(layout),
                     text(element));
}
std::string cpp_text(const DecodeSpec& spec) {
  const auto& [key, side, layout, element] = spec;
  return fmt::format("tq::gpu::DecodeSpec{{{}, {}, {}, {}}}", cpp_text(key), text(side), text(layout),
                     text(element));
}
std::string cpp_text(const GroupCodecSpec& spec) {
  const auto& [group, layout, element] = spec;
  return fmt::format("tq::gpu::GroupCodecSpec{{{}, {}, {}}}", cpp_text(group), text(layout), text(element));
}
std::string cpp_text(const ScoreSpec& spec) {
  const auto& [key, query_tiles, part, warps, stages] = spec;
  return fmt::format("tq::gpu::ScoreSpec{{{}, {}, {}, {}, {}}}", cpp_text(key), query_tiles, text(part),
                     warps, stages);
}
std::string cpp_text(const AttendSpec& spec) {
  const auto& [quantised, key, value, head_dim, query_tiles, warps, stages] = spec;
  return fmt::format("tq::gpu::AttendSpec{{{}, {}, {}, {}, {}, {}, {}}}", quantised, cpp_text(key),
                     cpp_text(value), head_dim, query_tiles, warps, stages);
}
std::string describe(const KeySpec& key) {
  const std::string codec = key.prod ? fmt::format("prod{}-{}", key.table_bits + 1,
                                                   key.sketch == Mixing::dense ? "gaussian" : "orthogonal")
                                     : fmt::format("mse{}-{}", key.table_bits, name(key.scale));
  return fmt::format("d{} {}{}", key.head_dim, codec, key.rotation == Mixing::dense ? "-qr" : "");
}
std::string describe(const GroupSpec& group) {
  return fmt::format("d{} group{}-gs{}", group.head_dim, group.bits, group.group_size);
}
std::string describe(const ValueSpec& value) {
  if (!value.rotated) return describe(value.group);
  return fmt::format("d{} rotated{}{}", value.table.head_dim, value.table.table_bits,
                     value.table.rotation == Mixing::dense ? "-qr" : "");
}
std::string describe(Element element) { return name(element); }

}  // namespace tq::gpu
