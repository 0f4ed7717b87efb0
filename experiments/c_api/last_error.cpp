#include "experiments/c_api/last_error.h"

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>

#include "core/error.h"

namespace tq::c_api {
namespace {

// A fixed array: keeping the message must not fail.
thread_local std::array<char, 2048> message{};

int record(ExitCode code, std::string_view text) noexcept {
  const std::size_t length = std::min(text.size(), message.size() - 1);
  std::replace_copy(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length), message.begin(), '\n',
                    ' ');
  message[length] = 0;
  return static_cast<int>(code);
}

}  // namespace

const char* last_error() noexcept { return message.data(); }

int record_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return record(error.exit_code(), error.what());
  } catch (const std::bad_alloc&) {
    return record(ExitCode::system, "out of memory");
  } catch (const std::length_error&) {  // a vector of more than there can be
    return record(ExitCode::system, "out of memory");
  } catch (const std::logic_error& error) {  // core's answer to arguments that no caller of its own gives
    return record(ExitCode::usage, error.what());
  } catch (const std::exception& error) {
    return record(ExitCode::system, error.what());
  } catch (...) {
    return record(ExitCode::system, "unknown error");
  }
}

void require(const void* pointer, std::string_view what) {
  if (pointer == nullptr) throw UsageError("{} is null", what);
}

}  // namespace tq::c_api
