#pragma once

#include <exception>
#include <string_view>
#include <utility>

// Where C++ ends: exceptions become exit codes and a line of text.
namespace tq::c_api {

const char* last_error() noexcept;

// The exit code of the exception being handled; its message becomes this thread's last_error().
int record_exception() noexcept;

template <typename Body>
int guarded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return 0;
  } catch (...) {
    return record_exception();
  }
}

// Throws UsageError "`what` is null".
void require(const void* pointer, std::string_view what);

}  // namespace tq::c_api
