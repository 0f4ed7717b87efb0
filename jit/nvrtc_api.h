#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "jit/shared_library.h"

// The part of NVRTC, CUDA's run-time compiler, that this project uses; see driver_api.h.
namespace tq::nvrtc {

// nvrtcResult. Only the values that the project acts on are named.
enum class Result : int { success = 0 };

using ProgramHandle = struct ProgramObject*;  // nvrtcProgram

struct NvrtcApi {
  explicit NvrtcApi(SharedLibrary opened) : library(std::move(opened)) {}

  template <FixedString Name, typename... Args>
  using Function = LibraryFunction<Name, Result(Args...)>;

  SharedLibrary library;

  LibraryFunction<"nvrtcGetErrorString", const char*(Result)> get_error_string{library};
  Function<"nvrtcVersion", int*, int*> version{library};
  Function<"nvrtcGetNumSupportedArchs", int*> get_num_supported_archs{library};
  Function<"nvrtcGetSupportedArchs", int*> get_supported_archs{library};
  Function<"nvrtcCreateProgram", ProgramHandle*, const char*, const char*, int, const char* const*,
           const char* const*>
      create_program{library};
  Function<"nvrtcDestroyProgram", ProgramHandle*> destroy_program{library};
  Function<"nvrtcAddNameExpression", ProgramHandle, const char*> add_name_expression{library};
  Function<"nvrtcCompileProgram", ProgramHandle, int, const char* const*> compile_program{library};
  Function<"nvrtcGetProgramLogSize", ProgramHandle, std::size_t*> get_program_log_size{library};
  Function<"nvrtcGetProgramLog", ProgramHandle, char*> get_program_log{library};
  Function<"nvrtcGetLoweredName", ProgramHandle, const char*, const char**> get_lowered_name{library};
  Function<"nvrtcGetCUBINSize", ProgramHandle, std::size_t*> get_cubin_size{library};
  Function<"nvrtcGetCUBIN", ProgramHandle, char*> get_cubin{library};
};

// Where NVRTC is looked for: at the explicit place and nowhere else; without one, by the loader (what the
// process has loaded already, LD_LIBRARY_PATH, the system's folders), then in the folders.
struct SearchPlaces {
  std::string explicit_place;        // a library or the folder that holds it; empty: none
  std::vector<std::string> folders;  // after the loader's own places

  // TQ_NVRTC_LIBRARY as the explicit place; lib64 in CUDA_HOME, CUDA_PATH and /usr/local/cuda, and ../lib
  // beside the executable's folder. The only reader of the environment here.
  static SearchPlaces from_environment();
  // What to try, newest version first.
  std::vector<std::string> candidates() const;
};

// NVRTC, opened at the first call from SearchPlaces::from_environment() or what was opened by open() before.
// Throws SystemError when there is none or it is older than 12.0; a later call tries again.
const NvrtcApi& api();

// Opens NVRTC from these places. Throws as api() does, and UsageError when another one is already in use.
void open(const SearchPlaces& places);

struct Version {
  int major = 0, minor = 0;
};
Version version();

// What tells one build of NVRTC from another, as far as it can be known: version and the linker's digest of
// the library, or its size.
const std::string& identity();

}  // namespace tq::nvrtc
