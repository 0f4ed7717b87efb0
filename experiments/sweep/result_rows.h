#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tq {

// Which of two values of a metric is the better one. Unknown: this program does not know the metric.
enum class Better { lower, higher, nearer_zero, unknown };

// A number of a result line: of its metrics, or beside them.
struct MetricInfo {
  std::string key;  // in result lines
  std::string title;
  Better better;
};

// Of every metric of sweeps, "pass" (1 or 0), bytes and compression.
const std::vector<MetricInfo>& result_metrics();
MetricInfo result_metric(std::string_view key);

struct Estimate {
  double mean;
  std::optional<double> half_width;  // 95 %; none for plain numbers
};

// By MetricInfo::key; also the numbers that stand beside a line's metrics (bytes, alpha). What could not be
// measured (null) is not there.
using ResultValues = std::map<std::string, Estimate, std::less<>>;

struct LayerValues {
  int layer;
  ResultValues values;
};

// A result line.
struct ResultRow {
  std::string key;
  nlohmann::ordered_json configuration;  // axes in their order, strings and numbers
  std::string capture_sha256;
  ResultValues values;
  std::vector<LayerValues> layers;  // of a capture

  // "" where the axis makes no difference.
  std::string axis(std::string_view name) const;
};

// The rows of a finished or cut sweep, sorted by what they are configured to. Throws UsageError when FOLDER
// holds no sweep, InputError for lines that no sweep has written.
std::vector<ResultRow> read_result_rows(const std::string& folder);

// The axes on which the rows differ, in their order.
std::vector<std::string> varying_axes(const std::vector<const ResultRow*>& rows);

}  // namespace tq
