#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/bench/probes.h"

namespace tq::bench {

using Json = nlohmann::ordered_json;

// How far a kernel's result is from the host's.
struct Check {
  const char* measure;  // "relative_error", or "codes_that_differ": a share
  double value, limit;
  std::size_t compared;  // vectors or codes

  // A NaN never does.
  bool holds() const { return value <= limit; }
};

struct Row {
  std::string name;  // unique, and the same in every run: rows of two runs are matched by it
  const char* family;
  Json parameters = Json::object();
  double bytes = 0;          // that must move; 0: that says nothing of this row's time
  bool against_copy = true;  // beside a copy that moves as many bytes
  std::optional<double> empty_us =
      {};  // of an empty launch: what the time is more than that is a number of its own
};

// The rows of a run: printed as they come, and kept for JSON.
class Report {
 public:
  explicit Report(Probes& probes) : probes_(probes) {}

  // Times what was checked and prints it. What did not hold is FAILED and not timed.
  void measure(const Row& row, const std::optional<Check>& check, const std::function<Timing()>& time);
  bool all_held() const { return all_held_; }
  const Json& rows() const { return rows_; }

 private:
  Probes& probes_;
  Json rows_ = Json::array();
  bool all_held_ = true;
};

}  // namespace tq::bench
