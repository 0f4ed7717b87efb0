#include "jit/resource_usage.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace tq {
namespace {

std::string_view next_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// The sum of the numbers that stand before `unit`: "8 bytes cmem[0], 16 bytes cmem[2]" -> 24 for " bytes
// cmem".
std::uint32_t number_before(std::string_view line, std::string_view unit) {
  std::uint32_t sum = 0;
  for (std::size_t at = line.find(unit); at != std::string_view::npos; at = line.find(unit, at + 1)) {
    std::size_t start = at;
    while (start > 0 && line[start - 1] >= '0' && line[start - 1] <= '9') --start;
    std::uint32_t number = 0;
    std::from_chars(line.data() + start, line.data() + at, number);
    sum += number;
  }
  return sum;
}

}  // namespace

// ptxas info    : Compiling entry function 'NAME' for 'sm_90'
// ptxas info    : Function properties for NAME
// ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
// ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
// Functions that are not inlined report their own properties (stack and spills) between or after these.
std::optional<ResourceUsage> parse_ptxas_log(std::string_view log, std::string_view lowered_name) {
  const std::string start = "Compiling entry function '" + std::string(lowered_name) + "'";
  const std::string properties = "Function properties for " + std::string(lowered_name);
  ResourceUsage usage;
  bool inside = false, own_properties = false;
  while (!log.empty()) {
    const std::string_view line = next_line(log);
    if (line.find("Compiling entry function") != std::string_view::npos) {
      inside = line.find(start) != std::string_view::npos;
    } else if (line.find("Function properties for ") != std::string_view::npos) {
      own_properties = line.ends_with(properties);
    } else if (own_properties && line.find(" bytes stack frame") != std::string_view::npos) {
      usage.stack_frame_bytes = number_before(line, " bytes stack frame");
      usage.spill_store_bytes = number_before(line, " bytes spill stores");
      usage.spill_load_bytes = number_before(line, " bytes spill loads");
      own_properties = false;
    } else if (inside && line.find(" registers") != std::string_view::npos) {
      usage.registers = number_before(line, " registers");
      usage.static_shared_bytes = number_before(line, " bytes smem");
      usage.constant_bytes = number_before(line, " bytes cmem");
      return usage;
    }
  }
  return std::nullopt;
}

}  // namespace tq
