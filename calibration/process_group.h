#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tq {

// The processes that work on one job together, of which this is one. The class itself is a job of one
// process; several are behind MPI (experiments/processes.h). Collective calls are made by all members in the
// same order.
class ProcessGroup {
 public:
  ProcessGroup() = default;
  virtual ~ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  virtual int rank() const { return 0; }
  virtual int size() const { return 1; }
  // Collective. The bytes that every member gave, by rank.
  virtual std::vector<std::string> all_gather(const std::string& own) const { return {own}; }
  // Collective. The members that give the same colour, in the order of their ranks here.
  virtual std::unique_ptr<const ProcessGroup> split(int /*colour*/) const {
    return std::make_unique<ProcessGroup>();
  }
};

inline const ProcessGroup& one_process() {
  static const ProcessGroup group;
  return group;
}

// The items [first, second) of 0 .. items - 1 that are `rank`'s, as even as can be.
inline std::pair<std::size_t, std::size_t> share_of(std::size_t items, int rank, int size) {
  const auto r = static_cast<std::size_t>(rank), n = static_cast<std::size_t>(size);
  return {items * r / n, items * (r + 1) / n};
}

}  // namespace tq
