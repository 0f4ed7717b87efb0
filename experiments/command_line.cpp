#include "experiments/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "experiments/commands.h"
#include "experiments/nearest_name.h"

namespace tq {
namespace po = boost::program_options;

namespace {

constexpr unsigned kHelpColumns = 110;

// Boost.Program_options fills what it complains about in for %option%, %value% and the like, and in what it
// filled in once more, without end where that holds such a word itself.
void refuse_placeholders(const std::string& text, const std::string& source) {
  for (std::size_t begin = text.find('%'); begin != std::string::npos; begin = text.find('%', begin + 1)) {
    const std::size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", begin + 1);
    if (end != std::string::npos && end > begin + 1 && text[end] == '%') {
      throw UsageError("{}: {} cannot be part of an option or its value", source,
                       text.substr(begin, end + 1 - begin));
    }
  }
}

}  // namespace

CommandLine::CommandLine(std::string command, std::string summary, std::string example)
    : command_(std::move(command)),
      summary_(std::move(summary)),
      example_(std::move(example)),
      options_("options", kHelpColumns) {
  options_.add_options()("help,h", "print this")("config", po::value<std::string>()->value_name("FILE"),
                                                 "INI file with a section for this command");
}

void CommandLine::positional(const std::vector<std::string>& names) {
  positional_names_ = names;
  for (const std::string& name : names) positional_.add(name.c_str(), 1);
}

void CommandLine::positional_list(const std::string& name) {
  positional_names_ = {name + "..."};
  positional_.add(name.c_str(), -1);
}

bool CommandLine::parse(const std::vector<std::string>& arguments) {
  namespace style = po::command_line_style;
  // No guessing of abbreviated options: a typing error is an error.
  constexpr int kStyle = style::unix_style & ~style::allow_guessing;
  std::string source = command_;  // of what is being read, for messages
  for (const std::string& argument : arguments) refuse_placeholders(argument, source);
  try {
    po::store(
        po::command_line_parser(arguments).options(options_).positional(positional_).style(kStyle).run(),
        values_);
    if (values_.count("help") != 0) {
      print_help();
      return false;
    }
    source = command_ + ": environment (TQ_...)";
    po::store(po::parse_environment(
                  options_,
                  [&](const std::string& variable) -> std::string {
                    if (variable.rfind("TQ_", 0) != 0) return "";
                    std::string name = variable.substr(3);
                    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
                      return c == '_' ? '-' : static_cast<char>(std::tolower(c));
                    });
                    const bool known = !name.empty() && options_.find_nothrow(name, false) != nullptr;
                    if (known) refuse_placeholders(std::getenv(variable.c_str()), variable);
                    return known ? name : "";
                  }),
              values_);
    if (values_.count("config") != 0) {
      source = values_["config"].as<std::string>();
      read_config(source);
    }
    po::notify(values_);
  } catch (const po::error& error) {
    throw UsageError("{}: {}; see tq {} --help", source, error.what(), command_);
  }
  return true;
}

void CommandLine::read_config(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw UsageError("{}: --config {} cannot be read", command_, path);
  // Sections of other commands are theirs to check; here they only must be commands.
  std::stringstream text;
  for (std::string one; std::getline(file, one);) text << one << '\n';
  if (file.bad()) throw UsageError("{}: --config {} cannot be read", command_, path);  // a folder, say
  refuse_placeholders(text.str(), path);
  const po::parsed_options parsed = po::parse_config_file(text, options_, true);
  po::parsed_options mine(&options_);
  for (const po::option& entry : parsed.options) {
    const std::size_t dot = entry.string_key.find('.');
    const std::string section = entry.string_key.substr(0, dot == std::string::npos ? 0 : dot);
    const std::string key = dot == std::string::npos ? entry.string_key : entry.string_key.substr(dot + 1);
    const bool known_section =
        section.empty() || std::any_of(commands().begin(), commands().end(),
                                       [&](const Command& c) { return section == c.name; });
    if (!known_section) throw UsageError("{}: section [{}] is no command; see tq --help", path, section);
    if (!section.empty() && section != command_) continue;
    if (key == "config" || key == "help" || options_.find_nothrow(key, false) == nullptr) {
      std::vector<std::string> names;
      for (const auto& option : options_.options()) names.push_back(option->long_name());
      throw UsageError("{}: '{}' is no option of tq {}; did you mean '{}'? See tq {} --help", path, key,
                       command_, nearest_name(key, names), command_);
    }
    po::option known(key, entry.value);
    mine.options.push_back(known);
  }
  po::store(mine, values_);
}

bool CommandLine::given(const std::string& name) const {
  return values_.count(name) != 0 && !values_[name].defaulted();
}

const std::string& CommandLine::required(const std::string& name) const {
  if (values_.count(name) == 0)
    throw UsageError("{}: --{} is missing; see tq {} --help", command_, name, command_);
  return get<std::string>(name);
}

void refuse_overwriting(const std::string& input, const std::string& output) {
  std::error_code missing;
  if (std::filesystem::equivalent(input, output, missing)) {
    throw UsageError("--out {} is the file that is read; choose another name", output);
  }
}

void CommandLine::print_help() const {
  std::string arguments;
  for (const std::string& name : positional_names_) {
    std::string upper = name;
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    arguments += " " + upper;
  }
  std::ostringstream text;
  text << options_;
  fmt::print("tq {}: {}\n\nusage: tq {}{} [options]\n\n{}\nexample: {}\n", command_, summary_, command_,
             arguments, text.str(), example_);
}

}  // namespace tq
