// Vector building blocks on tiles (core/tile.h). Included once for every SIMD target.
#if defined(TQ_CORE_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TQ_CORE_TILE_INL_H_
#undef TQ_CORE_TILE_INL_H_
#else
#define TQ_CORE_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "core/tile.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Float = hn::CappedTag<float, kTileRows>;
using Int = hn::RebindToSigned<Float>;
using Unsigned = hn::RebindToUnsigned<Float>;
constexpr std::size_t kLanes = hn::MaxLanes(Float());
constexpr std::size_t kVectors = kTileRows / kLanes;

// One coordinate of the 16 vectors of a tile. The loops over kVectors (1 on AVX-512, 2 on AVX2) are unrolled.
template <typename Tag>
struct Lanes {
  hn::Vec<Tag> v[kVectors];
};
using FloatRow = Lanes<Float>;
using UnsignedRow = Lanes<Unsigned>;

HWY_INLINE FloatRow load(const float* HWY_RESTRICT p) {
  FloatRow r;
  for (std::size_t i = 0; i < kVectors; ++i) r.v[i] = hn::Load(Float(), p + i * kLanes);
  return r;
}
HWY_INLINE void store(const FloatRow& r, float* HWY_RESTRICT p) {
  for (std::size_t i = 0; i < kVectors; ++i) hn::Store(r.v[i], Float(), p + i * kLanes);
}
HWY_INLINE FloatRow broadcast(float value) {
  FloatRow r;
  for (std::size_t i = 0; i < kVectors; ++i) r.v[i] = hn::Set(Float(), value);
  return r;
}
HWY_INLINE FloatRow add(const FloatRow& a, const FloatRow& b) {
  FloatRow r;
  for (std::size_t i = 0; i < kVectors; ++i) r.v[i] = hn::Add(a.v[i], b.v[i]);
  return r;
}
HWY_INLINE FloatRow sub(const FloatRow& a, const FloatRow& b) {
  FloatRow r;
  for (std::size_t i = 0; i < kVectors; ++i) r.v[i] = hn::Sub(a.v[i], b.v[i]);
  return r;
}
HWY_INLINE FloatRow mul(const FloatRow& a, const FloatRow& b) {
  FloatRow r;
  for (std::size_t i = 0; i < kVectors; ++i) r.v[i] = hn::Mul(a.v[i], b.v[i]);
  return r;
}
// a * b + c, rounded twice on every target (see -ffp-contract in CMakeLists.txt).
HWY_INLINE FloatRow mul_add(const FloatRow& a, const FloatRow& b, const FloatRow& c) {
  return add(mul(a, b), c);
}

// rows <= 16 row-major vectors to a tile; missing rows become zeros.
HWY_INLINE void load_tile(const float* HWY_RESTRICT x, std::size_t rows, std::size_t d,
                          float* HWY_RESTRICT tile) {
  const hn::FixedTag<float, 4> four;
  const hn::Repartition<double, decltype(four)> two;
  const auto pairs = [&](auto a) { return hn::BitCast(two, a); };
  const auto singles = [&](auto a) { return hn::BitCast(four, a); };
  for (std::size_t r = 0; r < kTileRows; r += 4) {
    const auto source = [&](std::size_t i, std::size_t j) {
      return r + i < rows ? hn::LoadU(four, x + (r + i) * d + j) : hn::Zero(four);
    };
    for (std::size_t j = 0; j < d; j += 4) {
      const auto a = source(0, j), b = source(1, j), c = source(2, j), e = source(3, j);
      const auto ab_low = hn::InterleaveLower(four, a, b), ab_high = hn::InterleaveUpper(four, a, b);
      const auto ce_low = hn::InterleaveLower(four, c, e), ce_high = hn::InterleaveUpper(four, c, e);
      float* HWY_RESTRICT to = tile + j * kTileRows + r;
      hn::Store(singles(hn::InterleaveLower(two, pairs(ab_low), pairs(ce_low))), four, to);
      hn::Store(singles(hn::InterleaveUpper(two, pairs(ab_low), pairs(ce_low))), four, to + kTileRows);
      hn::Store(singles(hn::InterleaveLower(two, pairs(ab_high), pairs(ce_high))), four, to + 2 * kTileRows);
      hn::Store(singles(hn::InterleaveUpper(two, pairs(ab_high), pairs(ce_high))), four, to + 3 * kTileRows);
    }
  }
}

// The first rows <= 16 vectors of a tile to row-major memory.
HWY_INLINE void store_tile(const float* HWY_RESTRICT tile, std::size_t rows, std::size_t d,
                           float* HWY_RESTRICT x) {
  const hn::FixedTag<float, 4> four;
  const hn::Repartition<double, decltype(four)> two;
  const auto pairs = [&](auto a) { return hn::BitCast(two, a); };
  const auto singles = [&](auto a) { return hn::BitCast(four, a); };
  for (std::size_t r = 0; r < rows; r += 4) {
    const auto put = [&](std::size_t i, std::size_t j, auto v) {
      if (r + i < rows) hn::StoreU(singles(v), four, x + (r + i) * d + j);
    };
    for (std::size_t j = 0; j < d; j += 4) {
      const float* HWY_RESTRICT from = tile + j * kTileRows + r;
      const auto a = hn::Load(four, from), b = hn::Load(four, from + kTileRows);
      const auto c = hn::Load(four, from + 2 * kTileRows), e = hn::Load(four, from + 3 * kTileRows);
      const auto ab_low = hn::InterleaveLower(four, a, b), ab_high = hn::InterleaveUpper(four, a, b);
      const auto ce_low = hn::InterleaveLower(four, c, e), ce_high = hn::InterleaveUpper(four, c, e);
      put(0, j, hn::InterleaveLower(two, pairs(ab_low), pairs(ce_low)));
      put(1, j, hn::InterleaveUpper(two, pairs(ab_low), pairs(ce_low)));
      put(2, j, hn::InterleaveLower(two, pairs(ab_high), pairs(ce_high)));
      put(3, j, hn::InterleaveUpper(two, pairs(ab_high), pairs(ce_high)));
    }
  }
}

// sum over j of a[j] b[j], for each of the 16 vectors. Four partial sums: shorter chains and smaller rounding
// errors.
HWY_INLINE FloatRow dot(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, std::size_t d) {
  FloatRow sum[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  for (std::size_t j = 0; j < d; j += 4) {
    for (std::size_t k = 0; k < 4; ++k) {
      sum[k] = mul_add(load(a + (j + k) * kTileRows), load(b + (j + k) * kTileRows), sum[k]);
    }
  }
  return add(add(sum[0], sum[1]), add(sum[2], sum[3]));
}

// Index of the cell that y lies in: how many of the 2^B - 1 inner boundaries are below y (a tie goes down).
template <int B>
HWY_INLINE UnsignedRow cell_index(const FloatRow& y, const float* HWY_RESTRICT inner) {
  UnsignedRow index;
  for (std::size_t i = 0; i < kVectors; ++i) {
    if constexpr (B <= 5) {
      auto count = hn::Zero(Int());
      for (int k = 0; k < (1 << B) - 1; ++k) {
        const auto above = hn::VecFromMask(Float(), hn::Gt(y.v[i], hn::Set(Float(), inner[k])));
        count = hn::Sub(count, hn::BitCast(Int(), above));
      }
      index.v[i] = hn::BitCast(Unsigned(), count);
    } else {  // binary search: B gathers instead of 2^B - 1 comparisons
      auto count = hn::Zero(Int());
      for (int step = 1 << (B - 1); step > 0; step >>= 1) {
        const auto probe = hn::Add(count, hn::Set(Int(), step - 1));
        const auto above = hn::VecFromMask(Float(), hn::Gt(y.v[i], hn::GatherIndex(Float(), inner, probe)));
        count = hn::Add(count, hn::And(hn::BitCast(Int(), above), hn::Set(Int(), step)));
      }
      index.v[i] = hn::BitCast(Unsigned(), count);
    }
  }
  return index;
}

// centroids[index], 2^B entries. In registers where they fit, else gathered.
template <int B>
class CentroidTable {
 public:
  explicit HWY_INLINE CentroidTable(const float* HWY_RESTRICT centroids) : centroids_(centroids) {
    if constexpr (kInRegisters) {
      float padded[kRegisters * kLanes] = {};
      for (std::size_t i = 0; i < kSize; ++i) padded[i] = centroids[i];
      for (std::size_t k = 0; k < kRegisters; ++k) table_[k] = hn::LoadU(Float(), padded + k * kLanes);
    }
  }
  HWY_INLINE FloatRow operator()(const UnsignedRow& index) const {
    FloatRow value;
    for (std::size_t i = 0; i < kVectors; ++i) {
      if constexpr (kInRegisters) {
        const auto lane = hn::And(index.v[i], hn::Set(Unsigned(), kLanes - 1));
        value.v[i] = hn::TableLookupLanes(table_[0], hn::IndicesFromVec(Float(), lane));
        if constexpr (kRegisters == 2) {
          const auto high = hn::TableLookupLanes(table_[1], hn::IndicesFromVec(Float(), lane));
          const auto is_high =
              hn::Gt(hn::BitCast(Int(), index.v[i]), hn::Set(Int(), static_cast<int>(kLanes) - 1));
          value.v[i] = hn::IfThenElse(hn::RebindMask(Float(), is_high), high, value.v[i]);
        }
      } else {
        value.v[i] = hn::GatherIndex(Float(), centroids_, hn::BitCast(Int(), index.v[i]));
      }
    }
    return value;
  }

 private:
  static constexpr std::size_t kSize = std::size_t{1} << B;
  static constexpr std::size_t kRegisters = kSize <= kLanes ? 1 : kSize / kLanes;
  static constexpr bool kInRegisters = kRegisters <= 2;
  const float* centroids_;
  hn::Vec<Float> table_[kInRegisters ? kRegisters : 1];
};

// Codes of the 16 vectors, laid end to end, least significant bit first (core/packing.h), as 32-bit words:
// word w of vector r is words[w * 16 + r].
template <int B>
class PackedWriter {
 public:
  explicit HWY_INLINE PackedWriter(std::uint32_t* HWY_RESTRICT words) : words_(words) {
    for (std::size_t i = 0; i < kVectors; ++i) pending_.v[i] = hn::Zero(Unsigned());
  }
  HWY_INLINE void push(const UnsignedRow& code) {
    for (std::size_t i = 0; i < kVectors; ++i) {
      pending_.v[i] = hn::Or(pending_.v[i], hn::ShiftLeftSame(code.v[i], used_));
    }
    used_ += B;
    if (used_ >= 32) {
      used_ -= 32;
      flush();
      for (std::size_t i = 0; i < kVectors; ++i) {
        pending_.v[i] = used_ > 0 ? hn::ShiftRightSame(code.v[i], B - used_) : hn::Zero(Unsigned());
      }
    }
  }
  HWY_INLINE void finish() {
    if (used_ > 0) flush();
  }

 private:
  HWY_INLINE void flush() {
    for (std::size_t i = 0; i < kVectors; ++i) hn::Store(pending_.v[i], Unsigned(), words_ + i * kLanes);
    words_ += kTileRows;
  }
  std::uint32_t* HWY_RESTRICT words_;
  UnsignedRow pending_;
  int used_ = 0;
};

template <int B>
class PackedReader {
 public:
  explicit HWY_INLINE PackedReader(const std::uint32_t* HWY_RESTRICT words) : words_(words) { fetch(); }
  HWY_INLINE UnsignedRow next() {
    UnsignedRow code;
    const auto mask = hn::Set(Unsigned(), (1u << B) - 1);
    if (used_ + B <= 32) {
      for (std::size_t i = 0; i < kVectors; ++i) {
        code.v[i] = hn::And(hn::ShiftRightSame(current_.v[i], used_), mask);
      }
      used_ += B;
      return code;
    }
    UnsignedRow low;
    for (std::size_t i = 0; i < kVectors; ++i) {
      low.v[i] = used_ < 32 ? hn::ShiftRightSame(current_.v[i], used_) : hn::Zero(Unsigned());
    }
    const int taken = 32 - used_;
    fetch();
    for (std::size_t i = 0; i < kVectors; ++i) {
      code.v[i] = hn::And(hn::Or(low.v[i], hn::ShiftLeftSame(current_.v[i], taken)), mask);
    }
    used_ = B - taken;
    return code;
  }

 private:
  HWY_INLINE void fetch() {
    for (std::size_t i = 0; i < kVectors; ++i) current_.v[i] = hn::Load(Unsigned(), words_ + i * kLanes);
    words_ += kTileRows;
  }
  const std::uint32_t* HWY_RESTRICT words_;
  UnsignedRow current_;
  int used_ = 0;
};

// Word tiles to and from rows of `bytes` bytes each.
HWY_INLINE void store_words(const std::uint32_t* HWY_RESTRICT words, std::size_t rows, std::size_t bytes,
                            std::uint8_t* HWY_RESTRICT out) {
  for (std::size_t r = 0; r < rows; ++r, out += bytes) {
    std::size_t w = 0;
    for (; 4 * w + 4 <= bytes; ++w) std::memcpy(out + 4 * w, words + w * kTileRows + r, 4);
    std::memcpy(out + 4 * w, words + w * kTileRows + r, bytes - 4 * w);
  }
}
HWY_INLINE void load_words(const std::uint8_t* HWY_RESTRICT in, std::size_t rows, std::size_t bytes,
                           std::uint32_t* HWY_RESTRICT words) {
  const std::size_t count = (bytes + 3) / 4;
  if (rows < kTileRows) std::memset(words, 0, count * kTileRows * sizeof(*words));
  for (std::size_t r = 0; r < rows; ++r, in += bytes) {
    std::size_t w = 0;
    for (; 4 * w + 4 <= bytes; ++w) std::memcpy(words + w * kTileRows + r, in + 4 * w, 4);
    if (4 * w < bytes) {
      std::uint32_t last = 0;
      std::memcpy(&last, in + 4 * w, bytes - 4 * w);
      words[w * kTileRows + r] = last;
    }
  }
}

// function(std::integral_constant<int, bits>) for a run-time bit width: one dispatch a tile, none an element.
template <typename Function>
HWY_INLINE auto with_bits(int bits, Function&& function) {
  switch (bits) {
    case 1:
      return function(std::integral_constant<int, 1>());
    case 2:
      return function(std::integral_constant<int, 2>());
    case 3:
      return function(std::integral_constant<int, 3>());
    case 4:
      return function(std::integral_constant<int, 4>());
    case 5:
      return function(std::integral_constant<int, 5>());
    case 6:
      return function(std::integral_constant<int, 6>());
    case 7:
      return function(std::integral_constant<int, 7>());
    default:
      return function(std::integral_constant<int, 8>());
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
