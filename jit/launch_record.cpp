#include "jit/launch_record.h"

#include <fmt/format.h>

#include <utility>

namespace tq {
namespace {

struct LaunchRecord {
  std::shared_ptr<const std::string> label;
  LaunchShape shape;
};
thread_local LaunchRecord last;

std::string to_text(const Dim3& size) { return fmt::format("{}x{}x{}", size.x, size.y, size.z); }

}  // namespace

std::string describe_launch(const std::string& label, const LaunchShape& shape) {
  return fmt::format("{}, grid {}, block {}, {} bytes of dynamic shared memory", label, to_text(shape.grid),
                     to_text(shape.block), shape.shared_bytes);
}

void record_launch(std::shared_ptr<const std::string> label, const LaunchShape& shape) {
  last = {std::move(label), shape};
}

std::string last_launch() { return last.label ? describe_launch(*last.label, last.shape) : std::string(); }

}  // namespace tq
