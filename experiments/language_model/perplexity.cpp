#include "experiments/language_model/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "experiments/language_model/next_token.h"

namespace tq {
namespace {

// Logits of the baseline and of the cache, at one time: bounded, since vocabularies are large.
constexpr std::size_t kMostLogits = std::size_t{1} << 25;

std::vector<Prediction> predict_window(const LanguageModel& model, std::span<const std::uint32_t> window,
                                       const std::vector<float>& baseline, const std::vector<float>& states) {
  const auto vocab_size = static_cast<std::size_t>(model.config().vocab_size);
  const auto hidden = static_cast<std::size_t>(model.config().hidden_size);
  const std::size_t rows = window.size() - 1;
  const std::size_t chunk = std::clamp<std::size_t>(kMostLogits / vocab_size, 1, rows);
  std::vector<float> exact(chunk * vocab_size), other(chunk * vocab_size);
  std::vector<Prediction> predictions(rows);
  for (std::size_t begin = 0; begin < rows; begin += chunk) {
    const std::size_t count = std::min(chunk, rows - begin);
    model.logits(&baseline[begin * hidden], count, exact.data());
    model.logits(&states[begin * hidden], count, other.data());
    compare_predictions(exact.data(), other.data(), count, vocab_size, &window[begin + 1],
                        &predictions[begin]);
  }
  return predictions;
}

// Means of the windows, from position `begin` on.
class WindowSums {
 public:
  explicit WindowSums(std::size_t begin) : begin_(begin) {}

  void add(const std::vector<Prediction>& window) {
    Means sums;
    for (std::size_t i = begin_; i < window.size(); ++i) {
      const Prediction& at = window[i];
      sums.nats += at.nats;
      sums.baseline_nats += at.baseline_nats;
      sums.increase += at.nats - at.baseline_nats;
      sums.kl += at.kl;
      sums.agreement += at.same_top ? 1 : 0;
    }
    positions_ = window.size() - begin_;
    for (double Means::*field :
         {&Means::nats, &Means::baseline_nats, &Means::increase, &Means::kl, &Means::agreement})
      sums.*field /= static_cast<double>(positions_);
    windows_.push_back(sums);
  }

  PredictionMeans result() const {
    return {positions_ * windows_.size(), estimate(&Means::nats), estimate(&Means::baseline_nats),
            estimate(&Means::increase),   estimate(&Means::kl),   estimate(&Means::agreement)};
  }

 private:
  struct Means {
    double nats = 0, baseline_nats = 0, increase = 0, kl = 0, agreement = 0;
  };

  WindowMean estimate(double Means::*field) const {
    const auto count = static_cast<double>(windows_.size());
    WindowMean result;
    for (const Means& window : windows_) result.mean += window.*field / count;
    if (windows_.size() < 2) return result;
    double squares = 0;
    for (const Means& window : windows_) squares += std::pow(window.*field - result.mean, 2);
    result.standard_error = std::sqrt(squares / (count - 1) / count);
    return result;
  }

  std::size_t begin_, positions_ = 0;  // positions_: of one window
  std::vector<Means> windows_;
};

}  // namespace

TextWindows::TextWindows(std::vector<std::uint32_t> tokens, std::size_t context)
    : tokens_(std::move(tokens)), context_(context) {
  if (context < 2) throw UsageError("a window of {} tokens predicts none", context);
  if (tokens_.size() < context) {
    throw InputError("{} tokens are fewer than one window of {}; take more text or a smaller context",
                     tokens_.size(), context);
  }
}

PerplexityReport measure_perplexity(
    const LanguageModel& model, const TextWindows& windows, std::size_t far_from,
    const std::function<std::vector<float>(std::size_t window)>& baseline_states, AttentionCache& cache,
    const std::function<void(std::size_t)>& progress) {
  PerplexityReport report;
  report.windows = windows.count();
  const bool far = far_from < windows.context() - 1;
  WindowSums all(0), beyond(far_from);
  for (std::size_t i = 0; i < windows.count(); ++i) {
    const std::vector<float> states = model.read(windows[i], cache, [&] { progress(windows.context()); });
    const std::vector<Prediction> predictions = predict_window(model, windows[i], baseline_states(i), states);
    for (std::size_t t = 0; t < predictions.size(); ++t) {
      if (std::isfinite(predictions[t].kl) && std::isfinite(predictions[t].nats)) continue;
      throw InputError(
          "the model's logits after token {} are not finite; its weights are damaged, or the model needs "
          "numbers "
          "beyond binary16 in its cache",
          i * windows.context() + t);
    }
    all.add(predictions);
    if (far) beyond.add(predictions);
  }
  report.all = all.result();
  if (far) report.far = beyond.result();
  return report;
}

}  // namespace tq
