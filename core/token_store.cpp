#include "core/token_store.h"

#include <omp.h>

#include <algorithm>
#include <bit>

#include "core/half.h"
#include "core/packing.h"
#include "core/tile.h"

namespace tq {
namespace {

// Halves and codes are saved as they lie in memory.
static_assert(std::endian::native == std::endian::little);

PageLayout page_layout(const CacheLayer& layer) {
  PageLayout layout;
  if (layer.exact()) return layout;
  const auto d = static_cast<std::size_t>(layer.head_dim);
  std::size_t end = 0;
  const auto place = [&](std::size_t row_bytes) {
    const std::size_t begin = end;
    end += kPageTokens * row_bytes;
    return begin;
  };
  const KeyConfig& key = layer.keys.front()->config();
  const bool prod = key.mode == KeyMode::prod;
  layout.key_codes = place(layout.key_code_bytes = packed_bytes(d, key.table_bits()));
  layout.key_scales = place(layout.key_scale_bytes = 2);
  layout.key_signs = place(layout.key_sign_bytes = prod ? d / 8 : 0);
  layout.key_residual_norms = place(layout.key_residual_norm_bytes = prod ? 2 : 0);
  const ValueConfig& value = layer.values.front()->config();
  const bool group = value.mode == ValueMode::group;
  const std::size_t groups = group ? d / static_cast<std::size_t>(value.group_size) : 1;
  layout.value_codes = place(layout.value_code_bytes = packed_bytes(d, value.bits));
  layout.value_scales = place(layout.value_scale_bytes = 2 * groups);
  layout.value_zeros = place(layout.value_zero_bytes = group ? 2 * groups : 0);
  layout.head_bytes = end;
  return layout;
}

std::uint16_t* halves(std::uint8_t* bytes) { return reinterpret_cast<std::uint16_t*>(bytes); }

// Calls step(page, first row, rows) for the pages that tokens [begin, end) lie in.
template <typename Step>
void for_each_page(std::size_t begin, std::size_t end, const Step& step) {
  while (begin < end) {
    const std::size_t row = begin % kPageTokens, rows = std::min(end - begin, kPageTokens - row);
    step(begin / kPageTokens, row, rows);
    begin += rows;
  }
}

}  // namespace

TokenStore::TokenStore(const CacheLayer& layer, const CachePolicy& policy)
    : layer_(&layer),
      policy_(policy),
      layout_(page_layout(layer)),
      d_(static_cast<std::size_t>(layer.head_dim)),
      kv_heads_(static_cast<std::size_t>(layer.num_kv_heads)) {}

TokenCounts TokenStore::counts_after(std::size_t tokens) const {
  return layer_->exact() ? TokenCounts{tokens, 0, 0} : token_counts(policy_, tokens);
}

// --- where things lie ---

std::size_t TokenStore::page_rows(std::size_t page) const {
  return std::min(kPageTokens, counts().quantised - page * kPageTokens);
}

std::uint8_t* TokenStore::head_part(std::size_t page, int kv_head) const {
  return code_pages_[page].get() + static_cast<std::size_t>(kv_head) * layout_.head_bytes;
}

KeyBlock TokenStore::mutable_keys(std::size_t page, int kv_head, std::size_t row) const {
  std::uint8_t* part = head_part(page, kv_head);
  KeyBlock block;
  block.codes = part + layout_.key_codes + row * layout_.key_code_bytes;
  block.scales = halves(part + layout_.key_scales) + row;
  if (layout_.key_sign_bytes > 0) {
    block.signs = part + layout_.key_signs + row * layout_.key_sign_bytes;
    block.residual_norms = halves(part + layout_.key_residual_norms) + row;
  }
  return block;
}

ValueBlock TokenStore::mutable_values(std::size_t page, int kv_head, std::size_t row) const {
  std::uint8_t* part = head_part(page, kv_head);
  std::uint8_t* codes = part + layout_.value_codes + row * layout_.value_code_bytes;
  std::uint16_t* scales = halves(part + layout_.value_scales + row * layout_.value_scale_bytes);
  if (layout_.value_zero_bytes == 0) return KeyBlock{codes, scales, nullptr, nullptr};
  return GroupBlock{codes, halves(part + layout_.value_zeros + row * layout_.value_zero_bytes), scales};
}

ConstKeyBlock TokenStore::keys(std::size_t page, int kv_head) const { return mutable_keys(page, kv_head, 0); }

ConstValueBlock TokenStore::values(std::size_t page, int kv_head) const {
  return std::visit([](const auto& block) { return ConstValueBlock(block); },
                    mutable_values(page, kv_head, 0));
}

std::uint16_t* TokenStore::sink(Side side, int kv_head, std::size_t token) const {
  const std::size_t array = 2 * static_cast<std::size_t>(kv_head) + (side == Side::values ? 1 : 0);
  return sink_pages_[token / kPageTokens].get() + (array * kPageTokens + token % kPageTokens) * d_;
}

std::uint16_t* TokenStore::window_slot(Side side, int kv_head, std::size_t slot) const {
  const std::size_t array = (side == Side::values ? kv_heads_ : 0) + static_cast<std::size_t>(kv_head);
  return window_.get() + (array * window_size() + slot) * d_;
}

template <typename Piece>
void TokenStore::for_each_sink_run(Side side, int kv_head, std::size_t begin, std::size_t count,
                                   const Piece& piece) const {
  for_each_page(begin, begin + count, [&](std::size_t page, std::size_t row, std::size_t rows) {
    piece(sink(side, kv_head, page * kPageTokens + row), rows);
  });
}

template <typename Piece>
void TokenStore::for_each_window_run(Side side, int kv_head, std::size_t begin, std::size_t count,
                                     const Piece& piece) const {
  while (count > 0) {
    const std::size_t slot = (window_first_ + begin) % window_size();
    const std::size_t rows = std::min(count, window_size() - slot);
    piece(window_slot(side, kv_head, slot), rows);
    begin += rows;
    count -= rows;
  }
}

void TokenStore::read_exact(Part part, Side side, int kv_head, std::size_t begin, std::size_t count,
                            float* out) const {
  const auto widen = [&](const std::uint16_t* rows, std::size_t run) {
    half_to_float(rows, out, run * d_);
    out += run * d_;
  };
  if (part == Part::sinks) {
    for_each_sink_run(side, kv_head, begin, count, widen);
  } else {
    for_each_window_run(side, kv_head, begin, count, widen);
  }
}

std::size_t TokenStore::allocated_bytes() const {
  const std::size_t window = window_ ? 4 * kv_heads_ * window_size() * d_ : 0;
  return code_pages_.size() * kv_heads_ * layout_.head_bytes +
         sink_pages_.size() * 4 * kv_heads_ * kPageTokens * d_ + window;
}

// --- adding tokens ---

void TokenStore::reserve(const TokenCounts& counts) {
  while (sink_pages_.size() * kPageTokens < counts.sinks)
    sink_pages_.push_back(std::make_unique<std::uint16_t[]>(2 * kv_heads_ * kPageTokens * d_));
  while (code_pages_.size() * kPageTokens < counts.quantised)
    code_pages_.push_back(std::make_unique<std::uint8_t[]>(kv_heads_ * layout_.head_bytes));
  if (counts.window > 0 && !window_)
    window_ = std::make_unique<std::uint16_t[]>(2 * kv_heads_ * window_size() * d_);
}

void TokenStore::append(const float* k, const float* v, std::size_t tokens) {
  const TokenCounts before = counts(), after = counts_after(tokens_ + tokens);
  reserve(after);
  const std::size_t stride = kv_heads_ * d_;
  const std::size_t to_sinks = after.sinks - before.sinks;
  store_sinks(k, v, to_sinks);
  k += to_sinks * stride;
  v += to_sinks * stride;
  // The oldest tokens of window and input are quantised; the input that is left enters the window.
  const std::size_t quantised = after.quantised - before.quantised;
  quantise(k, v, quantised);
  const std::size_t leaving = std::min(quantised, before.window), skipped = quantised - leaving;
  if (leaving > 0) window_first_ = (window_first_ + leaving) % window_size();
  store_window(k + skipped * stride, v + skipped * stride, before.window - leaving,
               tokens - to_sinks - skipped);
  tokens_ += tokens;
}

void TokenStore::store_sinks(const float* k, const float* v, std::size_t tokens) {
  const std::size_t first = counts().sinks;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t head = 0; head < kv_heads_; ++head, k += d_, v += d_) {
      float_to_half_saturate(k, sink(Side::keys, static_cast<int>(head), first + t), d_);
      float_to_half_saturate(v, sink(Side::values, static_cast<int>(head), first + t), d_);
    }
  }
}

void TokenStore::store_window(const float* k, const float* v, std::size_t held, std::size_t tokens) {
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::size_t slot = (window_first_ + held + t) % window_size();
    for (std::size_t head = 0; head < kv_heads_; ++head, k += d_, v += d_) {
      float_to_half_saturate(k, window_slot(Side::keys, static_cast<int>(head), slot), d_);
      float_to_half_saturate(v, window_slot(Side::values, static_cast<int>(head), slot), d_);
    }
  }
}

void TokenStore::quantise(const float* k, const float* v, std::size_t count) {
  if (count == 0) return;
  const TokenCounts held = counts();
  const std::size_t begin = held.quantised, end = begin + count;
  const std::size_t first_page = begin / kPageTokens, last_page = (end - 1) / kPageTokens;
  // Rows [row, row + rows) of those to quantise, as the floats that binary16 holds. `halves`: d of them.
  const auto gather = [&](Side side, int head, std::size_t row, std::size_t rows, std::uint16_t* halves,
                          float* out) {
    const std::size_t old = row < held.window ? std::min(rows, held.window - row) : 0;
    read_exact(Part::window, side, head, row, old, out);
    const float* input = (side == Side::keys ? k : v) + static_cast<std::size_t>(head) * d_;
    for (std::size_t r = old; r < rows; ++r) {
      const float* x = input + (row + r - held.window) * kv_heads_ * d_;
      float_to_half_saturate(x, halves, d_);
      half_to_float(halves, out + r * d_, d_);
    }
  };
  const int threads = team_size((count * kv_heads_ + kBlockRows - 1) / kBlockRows);
  std::vector<float> scratch(static_cast<std::size_t>(threads) * kPageTokens * d_);
  std::vector<std::uint16_t> narrow(static_cast<std::size_t>(threads) * d_);
  const std::size_t tasks = (last_page - first_page + 1) * kv_heads_;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::size_t task = 0; task < tasks; ++task) {
    const std::size_t page = first_page + task / kv_heads_;
    const int head = static_cast<int>(task % kv_heads_);
    const std::size_t from = std::max(begin, page * kPageTokens);
    const std::size_t rows = std::min(end, (page + 1) * kPageTokens) - from;
    const std::size_t row = from % kPageTokens;
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    float* x = scratch.data() + thread * kPageTokens * d_;
    std::uint16_t* halves = narrow.data() + thread * d_;
    gather(Side::keys, head, from - begin, rows, halves, x);
    layer_->key_codec(head).encode_block(x, rows, mutable_keys(page, head, row));
    gather(Side::values, head, from - begin, rows, halves, x);
    layer_->value_codec(head).encode_block(x, rows, mutable_values(page, head, row));
  }
}

// --- bytes in and out ---

template <typename BeforePage, typename Piece>
void TokenStore::for_each_piece(const BeforePage& before_page, const Piece& piece) const {
  const TokenCounts held = counts();
  const int heads = layer_->num_kv_heads;
  const auto exact = [&](std::uint16_t* rows, std::size_t run) { piece(rows, 2 * run * d_); };
  for_each_page(0, held.sinks, [&](std::size_t page, std::size_t, std::size_t rows) {
    before_page({(page + 1) * kPageTokens, 0, 0});
    for (int head = 0; head < heads; ++head) {
      for (const Side side : {Side::keys, Side::values})
        for_each_sink_run(side, head, page * kPageTokens, rows, exact);
    }
  });
  for_each_page(0, held.quantised, [&](std::size_t page, std::size_t, std::size_t rows) {
    before_page({0, (page + 1) * kPageTokens, 0});
    for (int head = 0; head < heads; ++head) {
      std::uint8_t* part = head_part(page, head);
      piece(part + layout_.key_codes, rows * layout_.key_code_bytes);
      piece(part + layout_.key_scales, rows * layout_.key_scale_bytes);
      piece(part + layout_.key_signs, rows * layout_.key_sign_bytes);
      piece(part + layout_.key_residual_norms, rows * layout_.key_residual_norm_bytes);
      piece(part + layout_.value_codes, rows * layout_.value_code_bytes);
      piece(part + layout_.value_scales, rows * layout_.value_scale_bytes);
      piece(part + layout_.value_zeros, rows * layout_.value_zero_bytes);
    }
  });
  before_page({0, 0, held.window});
  for (const Side side : {Side::keys, Side::values}) {
    for (int head = 0; head < heads; ++head) for_each_window_run(side, head, 0, held.window, exact);
  }
}

void TokenStore::save(const std::function<void(const void*, std::size_t)>& write) const {
  for_each_piece([](const TokenCounts&) {}, write);
}

void TokenStore::restore(std::size_t tokens, const std::function<void(void*, std::size_t)>& read) {
  tokens_ = tokens;
  for_each_piece([&](const TokenCounts& needed) { reserve(needed); }, read);
}

}  // namespace tq
