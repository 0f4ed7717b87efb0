#include "experiments/language_model/gate.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "experiments/language_model/gate.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void gate_run(float* HWY_RESTRICT x, const float* HWY_RESTRICT up, std::size_t count) {
  const hn::CappedTag<float, 16> f;
  const auto one = hn::Set(f, 1.0f);
  // e^88 is finite, and where it stands for more, silu(x) is 0 to float32 all the same.
  const auto silu_up = [&](auto v, auto u) HWY_ATTR {
    const auto e = hn::Exp(f, hn::Min(hn::Neg(v), hn::Set(f, 88.0f)));
    return hn::Mul(hn::Div(v, hn::Add(one, e)), u);
  };
  std::size_t i = 0;
  for (; i + hn::Lanes(f) <= count; i += hn::Lanes(f))
    hn::StoreU(silu_up(hn::LoadU(f, x + i), hn::LoadU(f, up + i)), f, x + i);
  for (; i < count; ++i) x[i] = hn::GetLane(silu_up(hn::Set(f, x[i]), hn::Set(f, up[i])));
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/tile.h"

namespace tq {
namespace {
HWY_EXPORT(gate_run);
}  // namespace

void gate(float* x, const float* up, std::size_t count) {
  constexpr std::size_t kRun = 4096;
  const std::size_t runs = (count + kRun - 1) / kRun;
#pragma omp parallel for schedule(static) num_threads(team_size(runs))
  for (std::size_t run = 0; run < runs; ++run) {
    const std::size_t begin = run * kRun;
    HWY_DYNAMIC_DISPATCH(gate_run)(x + begin, up + begin, std::min(kRun, count - begin));
  }
}

}  // namespace tq
#endif
