#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/error.h"
#include "jit/architecture.h"
#include "jit/kernel_source.h"
#include "jit/resource_usage.h"
#include "jit/source_tree.h"

namespace tq {

// One kernel, compiled.
struct CompiledImage {
  std::vector<std::byte> cubin;
  std::string lowered_name;  // the entry function's name in it
  ResourceUsage usage;
  std::string log;  // warnings and ptxas's report
};

// A kernel that does not compile. what() is one line: label, architecture, the first error. report() is all
// there is to a bug report: that, the options, the log and the numbered source.
class CompileError : public Error {
 public:
  CompileError(const KernelSource& source, const Architecture& architecture,
               const std::vector<std::string>& options, std::string log, const std::string& reason);
  const std::string& log() const { return log_; }
  const std::string& report() const { return report_; }

 private:
  std::string log_, report_;
};

// All options with which a kernel is compiled, its own last.
//
// C++20; a function without an execution space is a device function, so that headers for both sides can be
// plain C++. Nothing is included from a disk: a kernel sees the source tree and what NVRTC has built in.
std::vector<std::string> compile_options(const KernelSource& source, const Architecture& architecture);

// Throws CompileError; SystemError when NVRTC is missing. Needs no GPU. Safe on many threads at once.
CompiledImage compile(const KernelSource& source, const SourceTree& tree, const Architecture& architecture);

}  // namespace tq
