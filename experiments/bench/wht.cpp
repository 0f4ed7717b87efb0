#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "core/hadamard.h"
#include "experiments/bench/random_vectors.h"
#include "experiments/bench/relative_error.h"
#include "experiments/bench/run.h"
#include "kernel_templates/gpu_codec.h"
#include "kernel_templates/spec_text.h"

// The Walsh-Hadamard transform.
namespace tq::bench {
namespace {

using gpu::Element;

constexpr gpu::i64 kRows = 1 << 20;
constexpr int kCheckedRows = 64;
constexpr float kGain = 0.1f;

// H's entry from the plan's factors, the leftmost one's index the most significant.
double hadamard_entry(const HadamardPlan& plan, int i, int j) {
  const int s = plan.sylvester_order;
  double entry = std::popcount(static_cast<unsigned>(i % s & j % s)) % 2 == 0 ? 1 : -1;
  i /= s, j /= s;
  for (auto order = plan.paley_orders.rbegin(); order != plan.paley_orders.rend(); ++order) {
    const int p = *order, at = i % p * p + j % p;
    entry *= static_cast<double>(paley_matrix(p)[static_cast<std::size_t>(at)]);
    i /= p, j /= p;
  }
  return entry;
}

// Random rows against H in float64.
Check check_rows(Run& run, int d, Element element, const DeviceBuffer& in, const DeviceBuffer& out) {
  const HadamardPlan plan = hadamard_plan(d);
  const std::size_t n = static_cast<std::size_t>(d),
                    row_bytes = n * static_cast<std::size_t>(gpu::element_bytes(element));
  Check check{"relative_error", 0, element == Element::f32 ? 1e-6 : 1e-3, kCheckedRows};
  for (int r = 0; r < kCheckedRows; ++r) {
    const std::size_t at = run.random.below(kRows) * row_bytes;
    const std::vector<float> x = download_vectors(run.gpu.device(), in.address() + at, n, element),
                             y = download_vectors(run.gpu.device(), out.address() + at, n, element);
    std::vector<double> expected(n, 0.0);
    for (int i = 0; i < d; ++i) {
      for (int j = 0; j < d; ++j) {
        expected[static_cast<std::size_t>(i)] +=
            hadamard_entry(plan, i, j) * static_cast<double>(x[static_cast<std::size_t>(j)]);
      }
      expected[static_cast<std::size_t>(i)] *= static_cast<double>(kGain);
    }
    keep_larger(check.value, relative_error(y, expected));
  }
  return check;
}

}  // namespace

void measure_wht(Run& run) {
  const Device& device = run.gpu.device();
  for (const Element element : {Element::f32, Element::f16}) {
    for (const int d : {64, 80, 96, 128, 192, 256, 512}) {
      const DeviceBuffer in =
                             random_vectors(device, static_cast<std::size_t>(kRows * d), element, run.random),
                         out(device, in.bytes());
      // One copy of them is several times the L2 cache.
      const Launch transform = [&](int, StreamRef stream) {
        gpu::wht(run.gpu, d, element, false, in.as<void>(), out.as<void>(), kRows, kGain, stream);
      };
      poison(device, out);
      transform(0, run.timer.stream());
      run.timer.stream().synchronize();
      const Check check = check_rows(run, d, element, in, out);
      run.report.measure({fmt::format("wht d{} {} 2^20 rows", d, gpu::describe(element)),
                          "wht",
                          {{"d", d}, {"element", gpu::describe(element)}, {"rows", kRows}},
                          2.0 * static_cast<double>(in.bytes())},
                         check, [&] { return run.timer.throughput(1, transform); });
    }
  }
}

}  // namespace tq::bench
