#include "jit/architecture.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "jit/nvrtc_api.h"

namespace tq {

Architecture Architecture::parse(std::string_view text) {
  constexpr std::string_view kPrefix = "sm_";
  std::string_view digits = text;
  Architecture result;
  int number = 0;
  bool valid = digits.starts_with(kPrefix);
  if (valid) {
    digits.remove_prefix(kPrefix.size());
    result.specific = digits.ends_with('a');
    if (result.specific) digits.remove_suffix(1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    valid = error == std::errc() && end == digits.data() + digits.size() && digits.size() >= 2 &&
            digits.size() <= 3 && digits.front() >= '1' && digits.front() <= '9';
  }
  if (!valid) throw UsageError("'{}' is no GPU architecture; expected sm_90, sm_90a, sm_120, ...", text);
  result.major = number / 10;
  result.minor = number % 10;
  return result;
}

std::string to_string(const Architecture& architecture) {
  return fmt::format("sm_{}{}{}", architecture.major, architecture.minor, architecture.specific ? "a" : "");
}

std::vector<Architecture> supported_architectures() {
  const nvrtc::NvrtcApi& api = nvrtc::api();
  int count = 0;
  std::vector<int> numbers;
  if (api.get_num_supported_archs(&count) == nvrtc::Result::success) {
    numbers.resize(static_cast<std::size_t>(count));
    if (api.get_supported_archs(numbers.data()) != nvrtc::Result::success) numbers.clear();
  }
  if (numbers.empty()) throw SystemError("{} does not say what it compiles for", api.library.file());
  std::vector<Architecture> result;
  for (const int number : numbers) result.push_back({number / 10, number % 10});
  std::sort(result.begin(), result.end());
  return result;
}

Architecture newest_architecture() { return supported_architectures().back(); }

Architecture best_architecture_for(const Architecture& device) {
  std::optional<Architecture> best;
  for (const Architecture& known : supported_architectures()) {
    if (known.major == device.major && known.minor <= device.minor) best = known;
  }
  if (!best) {
    const nvrtc::Version version = nvrtc::version();
    throw SystemError("NVRTC {}.{} ({}) does not compile for {}; a {} one is needed", version.major,
                      version.minor, nvrtc::api().library.file(), to_string(device),
                      device > newest_architecture() ? "newer" : "older");
  }
  return *best;
}

}  // namespace tq
