#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tq {

// A library opened at run time. It stays open: drivers do not like to be closed while the process ends.
class SharedLibrary {
 public:
  // Opens the first of `candidates` (paths, or names for the loader's own search) that can be opened. Throws
  // SystemError "`failure` (what the loader said about the first one); `advice`".
  static SharedLibrary open_first(std::span<const std::string> candidates, std::string_view failure,
                                  std::string_view advice);

  // The address of a function; nullptr where the library has none of that name.
  void* find(const char* symbol) const;
  // The same, but throws SystemError naming library and symbol.
  void* require(const char* symbol) const;
  // The file that was opened.
  std::string file() const;

 private:
  SharedLibrary(std::string name, void* handle) : name_(std::move(name)), handle_(handle) {}

  std::string name_;
  void* handle_;
};

// A name as a template argument.
template <std::size_t N>
struct FixedString {
  consteval FixedString(const char (&given)[N]) {  // NOLINT: implicit, so that a literal will do
    for (std::size_t i = 0; i < N; ++i) text[i] = given[i];
  }
  char text[N];
};

enum class Presence { required, optional };

// One function of a library, looked up when constructed: it knows the name by which it is exported, so that
// an error can say which call failed.
template <FixedString Name, typename Signature>
class LibraryFunction;

template <FixedString Name, typename Return, typename... Args>
class LibraryFunction<Name, Return(Args...)> {
 public:
  using Pointer = Return (*)(Args...);
  static constexpr const char* name() { return kName.text; }

  explicit LibraryFunction(const SharedLibrary& library, Presence presence = Presence::required)
      : pointer_(reinterpret_cast<Pointer>(presence == Presence::required ? library.require(name())
                                                                          : library.find(name()))) {}
  // False for an optional one that the library lacks.
  explicit operator bool() const { return pointer_ != nullptr; }
  Return operator()(Args... args) const { return pointer_(args...); }

 private:
  static constexpr auto kName = Name;
  Pointer pointer_;
};

}  // namespace tq
