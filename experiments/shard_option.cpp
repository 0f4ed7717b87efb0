#include "experiments/shard_option.h"

#include <charconv>
#include <string>

#include "core/error.h"

namespace tq {
namespace po = boost::program_options;

void add_shard_option(CommandLine& line, const char* help) {
  line.add()("shard", po::value<std::string>()->value_name("I/N"), help);
}

Shard read_shard_option(const CommandLine& line) {
  if (!line.given("shard")) return {};
  const std::string& text = line.get<std::string>("shard");
  const char* const end = text.data() + text.size();
  int number = 0, count = 0;
  const auto [slash, no_number] = std::from_chars(text.data(), end, number);
  if (no_number == std::errc() && slash != end && *slash == '/') {
    const auto [rest, no_count] = std::from_chars(slash + 1, end, count);
    if (no_count == std::errc() && rest == end && number >= 1 && number <= count) return {number - 1, count};
  }
  throw UsageError("--shard '{}' is not I/N with 1 <= I <= N, as in 2/8", text);
}

}  // namespace tq
