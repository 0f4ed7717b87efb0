#include "experiments/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace tq {

ProgressBar::ProgressBar(std::string label, std::size_t total)
    : label_(std::move(label)),
      total_(std::max<std::size_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(Clock::now()),
      last_(start_) {}

ProgressBar::~ProgressBar() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void ProgressBar::advance(std::size_t amount) {
  done_ = std::min(total_, done_ + amount);
  if (!terminal_) return;
  constexpr std::chrono::milliseconds kDelay(500), kInterval(100);
  const Clock::time_point now = Clock::now();
  if (now - start_ < kDelay || now - last_ < kInterval) return;
  last_ = now;
  shown_ = true;
  constexpr std::size_t kWidth = 30;
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const std::size_t filled = static_cast<std::size_t>(share * kWidth);
  const std::string remaining =
      share > 0 ? fmt::format("{:.0f} s left", elapsed * (1 - share) / share) : std::string("starting");
  fmt::print(stderr, "\r\033[K{} [{}{}] {:3.0f} %  {}", label_, std::string(filled, '='),
             std::string(kWidth - filled, ' '), 100 * share, remaining);
  std::fflush(stderr);
}

}  // namespace tq
