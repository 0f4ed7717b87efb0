#include "experiments/sweep/capacity.h"

#include <fmt/format.h>

#include <vector>

#include "experiments/sweep/head_bytes.h"
#include "experiments/table.h"

namespace tq {
namespace {

std::uint64_t max_tokens(const CapacityShape& shape, int bytes) {
  return shape.memory * shape.percent / (100 * shape.kv_heads * static_cast<std::uint64_t>(bytes));
}

std::string gigabytes(std::uint64_t bytes) {
  return fmt::format("{:.6g} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace

std::string capacity_line(const Configuration& configuration) {
  const CapacityShape& shape = *configuration.capacity;
  const HeadBytes bytes = head_bytes(configuration.codec, configuration.data.head_dim);
  const auto of_all_heads = [&](int head) { return shape.kv_heads * static_cast<std::uint64_t>(head); };
  nlohmann::ordered_json line;
  line["key"] = configuration.key;
  line["configuration"] = to_json(configuration.point);
  line["bytes_per_token"] = of_all_heads(bytes.stored);
  line["padded_bytes_per_token"] = of_all_heads(bytes.padded);
  line["fp16_bytes_per_token"] = of_all_heads(bytes.fp16);
  line["compression"] = compression(bytes.fp16, bytes.stored);
  line["padded_compression"] = compression(bytes.fp16, bytes.padded);
  line["metrics"] = {{"max_tokens", max_tokens(shape, bytes.stored)},
                     {"padded_max_tokens", max_tokens(shape, bytes.padded)},
                     {"fp16_max_tokens", max_tokens(shape, bytes.fp16)}};
  return line.dump();
}

std::string capacity_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines) {
  std::vector<const Configuration*> rows;
  for (const Configuration& configuration : plan.configurations) {
    if (configuration.capacity) rows.push_back(&configuration);
  }
  if (rows.empty()) return "";
  std::vector<const Point*> points;
  for (const Configuration* row : rows) points.push_back(&row->point);
  const std::vector<Axis> varying = varying_axes(points);
  std::vector<std::string> header;
  for (const Axis axis : varying) header.emplace_back(info(axis).name);
  header.insert(header.end(), {"bytes", "max context", "vs FP16", "padded", "max context", "vs FP16"});
  Table table(header);
  for (const Configuration* row : rows) {
    const nlohmann::json line = nlohmann::json::parse(lines.at(row->key)), metrics = line["metrics"];
    std::vector<std::string> cells;
    for (const Axis axis : varying) {
      const std::string& value = row->point[axis];
      const bool memory = axis == Axis::memory;
      cells.push_back(value.empty() ? "-" : memory ? gigabytes(row->capacity->memory) : value);
    }
    const auto add = [&](const char* bytes, const char* tokens, const char* ratio) {
      cells.push_back(fmt::format("{}", line[bytes].get<std::uint64_t>() / row->capacity->kv_heads));
      cells.push_back(fmt::format("{}", metrics[tokens].get<std::uint64_t>()));
      cells.push_back(fmt::format("{:.2f}x", line[ratio].get<double>()));
    };
    add("bytes_per_token", "max_tokens", "compression");
    add("padded_bytes_per_token", "padded_max_tokens", "padded_compression");
    table.row(cells);
  }
  return "tokens that the share of a memory holds; bytes: of a token and KV head, keys and values\n"
         "padded: key indices at no fewer than four bits, as upstream counts them\n\n" +
         table.text();
}

}  // namespace tq
