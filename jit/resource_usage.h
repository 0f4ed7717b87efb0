#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tq {

// What one kernel needs, as the assembler reported it.
struct ResourceUsage {
  std::uint32_t registers = 0;            // a thread
  std::uint32_t spill_store_bytes = 0;    // a thread, static count
  std::uint32_t spill_load_bytes = 0;     // a thread, static count
  std::uint32_t stack_frame_bytes = 0;    // a thread: local arrays and spills
  std::uint32_t static_shared_bytes = 0;  // a block
  std::uint32_t constant_bytes = 0;       // banks of constants, parameters among them where reported
  friend bool operator==(const ResourceUsage&, const ResourceUsage&) = default;
};

// From the log of ptxas -v; nothing when it does not speak of this entry function.
std::optional<ResourceUsage> parse_ptxas_log(std::string_view log, std::string_view lowered_name);

}  // namespace tq
