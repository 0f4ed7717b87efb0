#include "jit/compiler.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>
#include <utility>

#include "jit/nvrtc_api.h"

namespace tq {
namespace {

// The translation unit's name in messages.
constexpr const char* kUnitName = "kernel.cu";

class Program {
 public:
  Program(const KernelSource& source, const SourceTree& tree) {
    std::vector<const char*> contents, names;
    for (const auto& [path, content] : tree.files()) {
      names.push_back(path.c_str());
      contents.push_back(content.c_str());
    }
    const nvrtc::Result result =
        api_.create_program(&handle_, source.text.c_str(), kUnitName, static_cast<int>(names.size()),
                            contents.data(), names.data());
    check(result, source, "nvrtcCreateProgram");
    if (const nvrtc::Result added = api_.add_name_expression(handle_, source.name_expression.c_str());
        added != nvrtc::Result::success) {
      api_.destroy_program(&handle_);
      check(added, source, "nvrtcAddNameExpression");
    }
  }
  ~Program() { api_.destroy_program(&handle_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  nvrtc::Result compile(const std::vector<std::string>& options) {
    std::vector<const char*> arguments;
    for (const std::string& option : options) arguments.push_back(option.c_str());
    return api_.compile_program(handle_, static_cast<int>(arguments.size()), arguments.data());
  }

  // Never fails: it is what explains failures.
  std::string log() const {
    std::size_t bytes = 0;
    if (api_.get_program_log_size(handle_, &bytes) != nvrtc::Result::success || bytes == 0) return {};
    std::string text(bytes, '\0');
    if (api_.get_program_log(handle_, text.data()) != nvrtc::Result::success) return {};
    text.resize(text.find_last_not_of(std::string_view("\0\n", 2)) + 1);
    return text;
  }

  // Empty where NVRTC has none.
  std::vector<std::byte> cubin() const {
    std::size_t bytes = 0;
    if (api_.get_cubin_size(handle_, &bytes) != nvrtc::Result::success) return {};
    std::vector<std::byte> image(bytes);
    if (bytes > 0 &&
        api_.get_cubin(handle_, reinterpret_cast<char*>(image.data())) != nvrtc::Result::success) {
      return {};
    }
    return image;
  }

  std::string lowered_name(const std::string& name_expression) const {
    const char* name = nullptr;
    const nvrtc::Result result = api_.get_lowered_name(handle_, name_expression.c_str(), &name);
    return result == nvrtc::Result::success && name != nullptr ? name : std::string();
  }

 private:
  void check(nvrtc::Result result, const KernelSource& source, const char* call) const {
    if (result == nvrtc::Result::success) return;
    throw SystemError("{}: {} failed: {}", source.label, call, api_.get_error_string(result));
  }

  const nvrtc::NvrtcApi& api_ = nvrtc::api();
  nvrtc::ProgramHandle handle_ = nullptr;
};

std::string_view first_error_line(std::string_view log) {
  const std::size_t at = std::min(log.find("error"), log.find("fatal"));
  if (at == std::string_view::npos) return {};
  const std::size_t start = log.rfind('\n', at) + 1;  // npos + 1 is 0
  return log.substr(start, log.find('\n', at) - start);
}

std::string numbered(std::string_view text) {
  std::string result;
  for (int line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    result += fmt::format("{:5} | {}\n", line, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

}  // namespace

CompileError::CompileError(const KernelSource& source, const Architecture& architecture,
                           const std::vector<std::string>& options, std::string log,
                           const std::string& reason)
    : Error(ExitCode::system, fmt::format("kernel {} does not compile for {}: {}", source.label,
                                          to_string(architecture), reason)),
      log_(std::move(log)),
      report_(fmt::format("{}\nkernel: {}\nname expression: {}\noptions:\n  {}\nlog:\n{}\nsource:\n{}",
                          what(), source.label, source.name_expression, fmt::join(options, "\n  "), log_,
                          numbered(source.text))) {}

std::vector<std::string> compile_options(const KernelSource& source, const Architecture& architecture) {
  std::vector<std::string> options{
      "--gpu-architecture=" + to_string(architecture), "--std=c++20", "--device-as-default-execution-space",
      // Otherwise an #include that the tree does not satisfy is looked for in the current folder.
      "--no-source-include",
      "--ptxas-options=-v",  // for ResourceUsage
  };
  // Where there is a driver, NVRTC from 12.9 on answers what it has assembled before from a cache of the
  // driver's, without ptxas's report. The cache here is CubinCache.
  const nvrtc::Version version = nvrtc::version();
  if (version.major > 12 || (version.major == 12 && version.minor >= 9)) options.push_back("--no-cache");
  options.insert(options.end(), source.options.begin(), source.options.end());
  return options;
}

CompiledImage compile(const KernelSource& source, const SourceTree& tree, const Architecture& architecture) {
  const std::vector<std::string> options = compile_options(source, architecture);
  Program program(source, tree);
  const nvrtc::Result result = program.compile(options);
  CompiledImage image;
  image.log = program.log();
  const auto fail = [&](const std::string& reason) {
    throw CompileError(source, architecture, options, image.log, reason);
  };
  if (result != nvrtc::Result::success) {
    const std::string_view line = first_error_line(image.log);
    fail(line.empty() ? nvrtc::api().get_error_string(result) : std::string(line));
  }
  image.cubin = program.cubin();
  // Also the sign of a failed assembly that NVRTC calls a success, and of a virtual architecture.
  if (image.cubin.empty()) fail("NVRTC returned an empty image");
  image.lowered_name = program.lowered_name(source.name_expression);
  if (image.lowered_name.empty()) fail("'" + source.name_expression + "' names no kernel of it");
  const std::optional<ResourceUsage> usage = parse_ptxas_log(image.log, image.lowered_name);
  if (!usage) fail("the assembler did not report on " + image.lowered_name);
  image.usage = *usage;
  return image;
}

}  // namespace tq
