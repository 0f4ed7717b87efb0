#pragma once

#include <boost/program_options.hpp>
#include <string>
#include <vector>

namespace tq {

// The options of one subcommand: from the command line, else the environment (TQ_ and the option's name in
// capitals), else the subcommand's section of the INI file given by --config, else the default.
class CommandLine {
 public:
  CommandLine(std::string command, std::string summary, std::string example);

  // Declare before parse().
  boost::program_options::options_description_easy_init add() { return options_.add_options(); }
  // The named options may be given without their names, in this order.
  void positional(const std::vector<std::string>& names);
  // So may any number of values of this one, a list of strings.
  void positional_list(const std::string& name);

  // False after printing --help. Throws UsageError for unknown or malformed options, also in the INI file.
  bool parse(const std::vector<std::string>& arguments);

  // Given by the user, anywhere.
  bool given(const std::string& name) const;
  template <typename T>
  const T& get(const std::string& name) const {
    return values_[name].as<T>();
  }
  // A string that must be given.
  const std::string& required(const std::string& name) const;

 private:
  void read_config(const std::string& path);
  void print_help() const;

  std::string command_, summary_, example_;
  boost::program_options::options_description options_;
  boost::program_options::positional_options_description positional_;
  std::vector<std::string> positional_names_;
  boost::program_options::variables_map values_;
};

// Throws UsageError when `output` names the same file or folder as `input`.
void refuse_overwriting(const std::string& input, const std::string& output);

}  // namespace tq
