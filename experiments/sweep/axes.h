#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tq {

// What a sweep can vary. The order is that of the product's loops, the first the outermost: configurations
// that share their data come one after the other.
enum class Axis {
  measure,
  source,
  d,
  rows,
  queries,
  heads,
  gqa,
  memory,
  memory_share,
  model,
  text,
  context,
  recent_window,
  seed,
  backend,
  rotation,
  key_mode,
  key_bits,
  sketch,
  alpha,
  value_mode,
  value_bits,
  group_size,
  equalise,
  scale,
};

// The value of key-mode and value-mode under which that side of the cache stays exact; of model and text,
// that there is none.
inline constexpr std::string_view kNone = "none";

// The values of measure: what codecs do to vectors and attention, how exact fused attention over codes is,
// how many tokens a memory holds, or what codecs do to a model's loss. The first is what every sweep measured
// before there was a second: its points do not name it.
inline constexpr std::string_view kQuality = "quality", kFused = "fused", kCapacity = "capacity",
                                  kPerplexity = "perplexity";

// The value of equalise that points name; its other value, none, is what every sweep had before.
inline constexpr std::string_view kChannel = "channel";

struct AxisInfo {
  Axis axis;
  const char* name;           // in files and on the command line
  const char* default_value;  // when a sweep does not name the axis
  std::string help;
};
inline constexpr std::size_t kAxes = 25;
// In the order of the enum.
const std::array<AxisInfo, kAxes>& axes();
inline const AxisInfo& info(Axis axis) { return axes()[static_cast<std::size_t>(axis)]; }

// Throws UsageError that names the nearest axis.
Axis axis_named(std::string_view name);

// A value as configurations hold it (numbers without leading zeros). Throws UsageError when the axis cannot
// have it.
std::string canonical_value(Axis axis, std::string_view text);
// A comma list of such values, in its order, each once.
std::vector<std::string> value_list(Axis axis, std::string_view text);

// Whether the axis' values are numbers, and are written as such.
bool is_number(Axis axis);

// One value an axis; "" where the axis makes no difference.
class Point {
 public:
  const std::string& operator[](Axis axis) const { return values_[static_cast<std::size_t>(axis)]; }
  std::string& operator[](Axis axis) { return values_[static_cast<std::size_t>(axis)]; }

 private:
  std::array<std::string, kAxes> values_;
};

// "key-bits=3 value-mode=group", the axes that are not "".
std::string describe(const Point& point);

// The axes on which the points differ. Where an axis makes no difference follows from the others; that
// equalise is none does not.
std::vector<Axis> varying_axes(const std::vector<const Point*>& points);

}  // namespace tq
