#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace tq {

// What the command line exits with. 0: done. 130: interrupted by SIGINT.
enum class ExitCode : int {
  done = 0,
  gate_failed = 1,  // the command ran, and what it checked did not hold
  usage = 2,        // an option, a configuration or a combination of them
  bad_input = 3,    // a file's content
  system = 4,       // the machine: disk full, no permission, no memory
  interrupted = 130,
};

// Base of every error that the project throws on purpose. The message is one line for a person: what is
// wrong, where (file, object, option), and what to do where that is not plain.
class Error : public std::runtime_error {
 public:
  ExitCode exit_code() const { return exit_code_; }

 protected:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), exit_code_(code) {}

 private:
  ExitCode exit_code_;
};

class UsageError : public Error {
 public:
  template <typename... Args>
  explicit UsageError(fmt::format_string<Args...> text, Args&&... args)
      : Error(ExitCode::usage, fmt::format(text, std::forward<Args>(args)...)) {}
};

class InputError : public Error {
 public:
  template <typename... Args>
  explicit InputError(fmt::format_string<Args...> text, Args&&... args)
      : Error(ExitCode::bad_input, fmt::format(text, std::forward<Args>(args)...)) {}
};

class SystemError : public Error {
 public:
  template <typename... Args>
  explicit SystemError(fmt::format_string<Args...> text, Args&&... args)
      : Error(ExitCode::system, fmt::format(text, std::forward<Args>(args)...)) {}
};

}  // namespace tq
