#include "experiments/language_model/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "experiments/language_model/product.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef TQ_LANGUAGE_MODEL_PANEL
#define TQ_LANGUAGE_MODEL_PANEL
namespace tq {
// Columns of the result (rows of the weight) that are packed side by side, and how deep: 32 KiB, which stay
// in the first-level cache while rows of x go by.
inline constexpr std::size_t kPanelColumns = 32;
inline constexpr std::size_t kPanelDepth = 256;
}  // namespace tq
#endif

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lane = hn::CappedTag<float, 16>;

// out[i * out_stride + j] = (add ? out[i * out_stride + j] : 0) + sum over l < depth of
// x[i * stride + l] panel[l * kPanelColumns + j], for Rows rows and two vectors of columns from `column`.
template <std::size_t Rows>
HWY_INLINE void multiply_columns(const float* HWY_RESTRICT x, std::size_t stride,
                                 const float* HWY_RESTRICT panel, std::size_t depth, std::size_t column,
                                 bool add, float* HWY_RESTRICT out, std::size_t out_stride) {
  const Lane f;
  constexpr std::size_t kLanes = hn::MaxLanes(Lane());
  hn::Vec<Lane> sum[Rows][2];
  for (std::size_t i = 0; i < Rows; ++i) {
    const float* row = out + i * out_stride + column;
    sum[i][0] = add ? hn::LoadU(f, row) : hn::Zero(f);
    sum[i][1] = add ? hn::LoadU(f, row + kLanes) : hn::Zero(f);
  }
  for (std::size_t l = 0; l < depth; ++l) {
    const auto first = hn::Load(f, panel + l * kPanelColumns + column);
    const auto second = hn::Load(f, panel + l * kPanelColumns + column + kLanes);
    for (std::size_t i = 0; i < Rows; ++i) {
      const auto factor = hn::Set(f, x[i * stride + l]);
      sum[i][0] = hn::MulAdd(factor, first, sum[i][0]);
      sum[i][1] = hn::MulAdd(factor, second, sum[i][1]);
    }
  }
  for (std::size_t i = 0; i < Rows; ++i) {
    float* row = out + i * out_stride + column;
    hn::StoreU(sum[i][0], f, row);
    hn::StoreU(sum[i][1], f, row + kLanes);
  }
}

// The same for any number of rows and all columns of the panel.
void multiply_panel(const float* x, std::size_t stride, std::size_t rows, const float* panel,
                    std::size_t depth, bool add, float* out, std::size_t out_stride) {
  constexpr std::size_t kLanes = hn::MaxLanes(Lane());
  constexpr std::size_t kRows = kLanes == 16 ? 12 : 6;  // as many sums as registers hold
  std::size_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    for (std::size_t column = 0; column < kPanelColumns; column += 2 * kLanes) {
      multiply_columns<kRows>(x + i * stride, stride, panel, depth, column, add, out + i * out_stride,
                              out_stride);
    }
  }
  for (; i < rows; ++i) {
    for (std::size_t column = 0; column < kPanelColumns; column += 2 * kLanes) {
      multiply_columns<1>(x + i * stride, stride, panel, depth, column, add, out + i * out_stride,
                          out_stride);
    }
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <hwy/aligned_allocator.h>

#include <algorithm>

#include "core/tile.h"

namespace tq {
namespace {
HWY_EXPORT(multiply_panel);

// Rows of x that share a packed panel. Enough to make packing cheap, few enough that x stays in the
// second-level cache.
constexpr std::size_t kChunkRows = 1024;

// panel[l * kPanelColumns + j] = weight[(column + j) * width + begin + l], for l < depth; 0 beyond the last
// column.
void pack(const SafetensorsTensor& weight, std::size_t column, std::size_t columns, std::size_t width,
          std::size_t begin, std::size_t depth, float* panel) {
  constexpr std::size_t kStep = 64;
  float rows[kPanelColumns][kStep] = {};
  for (std::size_t l = 0; l < depth; l += kStep) {
    const std::size_t step = std::min(kStep, depth - l);
    for (std::size_t j = 0; j < columns; ++j) weight.read((column + j) * width + begin + l, step, rows[j]);
    for (std::size_t k = 0; k < step; ++k) {
      for (std::size_t j = 0; j < kPanelColumns; ++j) panel[(l + k) * kPanelColumns + j] = rows[j][k];
    }
  }
}

}  // namespace

void multiply(const float* x, std::size_t rows, const SafetensorsTensor& weight, float* out) {
  const std::size_t n = weight.shape[0], width = weight.shape[1];
  const std::size_t panels = (n + kPanelColumns - 1) / kPanelColumns;
  const std::size_t chunks = (rows + kChunkRows - 1) / kChunkRows, tasks = panels * chunks;
#pragma omp parallel num_threads(team_size(tasks))
  {
    const auto panel = hwy::AllocateAligned<float>(kPanelDepth * kPanelColumns);
    const auto narrow =
        hwy::AllocateAligned<float>(kChunkRows * kPanelColumns);  // for the last, narrower panel
#pragma omp for schedule(dynamic)
    for (std::size_t task = 0; task < tasks; ++task) {
      const std::size_t column = task / chunks * kPanelColumns, columns = std::min(kPanelColumns, n - column);
      const std::size_t row = task % chunks * kChunkRows, chunk_rows = std::min(kChunkRows, rows - row);
      const bool whole = columns == kPanelColumns;
      float* to = out + row * n + column;
      for (std::size_t begin = 0; begin < width; begin += kPanelDepth) {
        const std::size_t depth = std::min(kPanelDepth, width - begin);
        pack(weight, column, columns, width, begin, depth, panel.get());
        HWY_DYNAMIC_DISPATCH(multiply_panel)
        (x + row * width + begin, width, chunk_rows, panel.get(), depth, begin > 0, whole ? to : narrow.get(),
         whole ? n : kPanelColumns);
      }
      for (std::size_t i = 0; i < chunk_rows && !whole; ++i) {
        std::copy_n(narrow.get() + i * kPanelColumns, columns, to + i * n);
      }
    }
  }
}

}  // namespace tq
#endif
