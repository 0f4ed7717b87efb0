#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "calibration/layer_stream.h"
#include "datasets/capture.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"
#include "experiments/trust_option.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(ElementType type) {
  switch (type) {
    case ElementType::float16:
      return "float16";
    case ElementType::bfloat16:
      return "bfloat16";
    case ElementType::float32:
      return "float32";
    case ElementType::float64:
      return "float64";
  }
  return "?";
}

struct TensorColumn {
  const char* name;
  Tensor tensor;
  bool LayerInfo::*has;
  ElementType LayerInfo::*type;
};
constexpr TensorColumn kTensors[] = {
    {"k", Tensor::k, &LayerInfo::has_k, &LayerInfo::k_type},
    {"v", Tensor::v, &LayerInfo::has_v, &LayerInfo::v_type},
    {"q", Tensor::q, &LayerInfo::has_q, &LayerInfo::q_type},
    {"k_residual", Tensor::k_residual, &LayerInfo::has_k_residual, &LayerInfo::k_residual_type}};

// Reads every value, so that damage and non-finite numbers anywhere in the file are found.
void check_values(CaptureReader& capture) {
  const CaptureInfo& info = capture.info();
  std::size_t total = 0;
  for (const LayerInfo& layer : info.layers) {
    for (const TensorColumn& column : kTensors) total += layer.*column.has ? capture.rows(column.tensor) : 0;
  }
  ProgressBar bar("checking", total);
  std::vector<float> rows;
  for (int layer = 0; layer < info.num_layers; ++layer) {
    const LayerInfo& shape = info.layers[static_cast<std::size_t>(layer)];
    for (const TensorColumn& column : kTensors) {
      if (!(shape.*column.has)) continue;
      const std::size_t chunk = capture.preferred_rows(layer, column.tensor),
                        count = capture.rows(column.tensor);
      const std::size_t row =
          static_cast<std::size_t>(capture.heads(column.tensor)) * static_cast<std::size_t>(shape.head_dim);
      for (std::size_t begin = 0; begin < count; begin += chunk) {
        const std::size_t size = std::min(chunk, count - begin);
        rows.resize(size * row);
        capture.read(layer, column.tensor, begin, size, rows.data());
        bar.advance(size);
      }
    }
  }
}

std::string optional_number(const std::optional<double>& value) {
  return value ? fmt::format("{:.9g}", *value) : "not stated";
}

void print_text(const CaptureReader& capture) {
  const CaptureInfo& info = capture.info();
  fmt::print("{}\n", capture.path());
  fmt::print("model          {}\n", info.model);
  if (!info.description.empty()) fmt::print("description    {}\n", info.description);
  fmt::print("layers         {}\nheads          {} query, {} key/value\n", info.num_layers, info.num_q_heads,
             info.num_kv_heads);
  fmt::print("tokens         {} ({} with queries)\n", info.tokens, info.query_tokens);
  fmt::print("keys           {}, rope_theta {}, softmax_scale {}\n", info.key_basis,
             optional_number(info.rope_theta), optional_number(info.softmax_scale));
  fmt::print("axes           {}\n\n", info.axis_order);
  Table table({"layer", "head_dim", "k", "v", "q", "k_residual", "stored bytes"});
  for (std::size_t i = 0; i < info.layers.size(); ++i) {
    const LayerInfo& layer = info.layers[i];
    std::vector<std::string> cells{fmt::format("{}", i), fmt::format("{}", layer.head_dim)};
    for (const TensorColumn& column : kTensors) {
      cells.emplace_back(layer.*column.has ? name_of(layer.*column.type) : "-");
    }
    cells.push_back(fmt::format("{}", layer.stored_bytes));
    table.row(cells);
  }
  fmt::print("{}\nall values are finite and all checksums hold\n", table.text());
}

void print_json(const CaptureReader& capture) {
  const CaptureInfo& info = capture.info();
  Json layers = Json::array();
  for (const LayerInfo& layer : info.layers) {
    Json entry{{"head_dim", layer.head_dim}};
    for (const TensorColumn& column : kTensors) {
      entry[column.name] = layer.*column.has ? Json(name_of(layer.*column.type)) : Json(nullptr);
    }
    entry["stored_bytes"] = layer.stored_bytes;
    layers.push_back(entry);
  }
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  const Json json{{"path", capture.path()},
                  {"model", info.model},
                  {"description", info.description},
                  {"num_layers", info.num_layers},
                  {"num_q_heads", info.num_q_heads},
                  {"num_kv_heads", info.num_kv_heads},
                  {"tokens", info.tokens},
                  {"query_tokens", info.query_tokens},
                  {"key_basis", info.key_basis},
                  {"rope_theta", number(info.rope_theta)},
                  {"softmax_scale", number(info.softmax_scale)},
                  {"axis_order", info.axis_order},
                  {"source_dtype", info.source_dtype},
                  {"layers", layers}};
  fmt::print("{}\n", json.dump(2));
}

}  // namespace

ExitCode run_inspect(const Arguments& arguments) {
  CommandLine line("inspect", "say what a capture holds, and check every value of it",
                   "tq inspect model.kv.h5");
  line.add()("capture", boost::program_options::value<std::string>()->value_name("FILE"), "capture to read")(
      "json", boost::program_options::bool_switch(), "JSON instead of text");
  line.positional({"capture"});
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  CaptureReader capture(line.required("capture"), read_trust(line));
  check_values(capture);
  if (line.get<bool>("json")) {
    print_json(capture);
  } else {
    print_text(capture);
  }
  return ExitCode::done;
}

}  // namespace tq
