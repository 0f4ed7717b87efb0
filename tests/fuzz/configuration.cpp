#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/sweep/sweep_plan.h"
#include "tests/fuzz/input_file.h"

namespace tq {

// Of the program: what sections a file may have.
const std::vector<Command>& commands() {
  static const std::vector<Command> list{{"sweep", "", nullptr}, {"eval", "", nullptr}};
  return list;
}

namespace {

namespace po = boost::program_options;

constexpr std::size_t kMostPoints = 64;  // of a product that is planned here

bool is_file(const std::string& source) { return is_capture(source); }

// The axes and rules of a sweep, and its plan where it is small and names no files.
void read_sweep(const CommandLine& line) {
  std::vector<ExcludeRule> rules;
  if (line.given("exclude")) {
    for (const std::string& text : line.get<std::vector<std::string>>("exclude")) {
      rules.push_back(parse_exclude_rule(text));
    }
  }
  std::array<std::vector<std::string>, kAxes> values;
  std::size_t points = 1;
  for (const AxisInfo& axis : axes()) {
    std::vector<std::string>& own = values[static_cast<std::size_t>(axis.axis)];
    own =
        value_list(axis.axis, line.given(axis.name) ? line.get<std::string>(axis.name) : axis.default_value);
    points *= std::min(own.size(), kMostPoints);
    if (points > kMostPoints) return;
  }
  const auto& sources = values[static_cast<std::size_t>(Axis::source)];
  const auto& models = values[static_cast<std::size_t>(Axis::model)];
  const auto& texts = values[static_cast<std::size_t>(Axis::text)];
  const auto none = [](const std::string& name) { return name == kNone; };
  if (std::any_of(sources.begin(), sources.end(), is_file) ||
      !std::all_of(models.begin(), models.end(), none) || !std::all_of(texts.begin(), texts.end(), none)) {
    return;
  }
  InputCatalogue inputs(Trust::full);
  plan_sweep(values, rules, inputs);
}

}  // namespace
}  // namespace tq

// An INI file, as --config of `tq sweep` reads it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    tq::CommandLine line("sweep", "", "");
    line.add()("out", tq::po::value<std::string>(), "")("jobs", tq::po::value<int>(), "")(
        "json", tq::po::bool_switch(), "")("exclude", tq::po::value<std::vector<std::string>>()->composing(),
                                           "");
    for (const tq::AxisInfo& axis : tq::axes()) line.add()(axis.name, tq::po::value<std::string>(), "");
    if (line.parse({"--config", tq::fuzz::file_of(data, size)})) tq::read_sweep(line);
  } catch (const tq::Error&) {
  }
  return 0;
}
