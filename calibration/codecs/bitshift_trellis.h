#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace tq {

// A bitshift trellis code (trellis-coded quantisation, Marcellin and Fischer, IEEE Trans. Commun. 38, 1990;
// in this form QTIP, arXiv:2406.11235, section 3.1). A sequence of symbols of b bits is a bit string; the
// value at a place depends on the last L bits up to it, its window:
//   w_t = (w_{t-1} << b | u_t) mod 2^L, value = levels[w_t].
// The last L - b bits of a window are the state that the next one starts from: 2^(L-b) states with 2^b
// branches each. Immutable; safe to share between threads.
class BitshiftTrellis {
 public:
  // 1 <= b <= 4, 2 b <= L <= 16; levels: 2^L.
  BitshiftTrellis(int symbol_bits, int window_bits, std::span<const float> levels);

  int symbol_bits() const { return symbol_bits_; }
  int window_bits() const { return window_bits_; }
  std::size_t states() const { return std::size_t{1} << (window_bits_ - symbol_bits_); }
  // 2^L, and zeros behind them that a SIMD loop may read.
  const float* levels() const { return levels_.data(); }

  // The windows of a closed sequence, in which the first symbol follows the last. n b >= L.
  void windows_of_ring(const std::uint8_t* symbols, std::size_t n, std::uint16_t* windows) const;

 private:
  int symbol_bits_, window_bits_;
  std::vector<float> levels_;
};

// Levels for iid N(0, 1) places, computed and the same on every machine. 2^L quantiles of a normal
// distribution whose variance, 1 - 4^-b, is that of an optimal reproduction; what window gets which follows
// from
//   cell = newest symbol + 2 (the one before) + oldest symbol, mod 2^b,
//   place in the cell = state times an odd integer near 2^(L-b) / golden ratio, mod 2^(L-b).
// So the 2^b branches that leave a state lie one in each of 2^b equally probable cells, and so do those that
// meet in one; inside the cells, states spread evenly.
std::vector<float> gaussian_levels(int symbol_bits, int window_bits);

// Nearest sequences by Viterbi's algorithm; holds what it needs for up to `longest` places, one search at a
// time. Ties go to the branch whose oldest bits are the lower, so codes do not depend on the SIMD target.
class TrellisSearch {
 public:
  static constexpr std::uint32_t kAnyState = std::numeric_limits<std::uint32_t>::max();

  TrellisSearch(const BitshiftTrellis& trellis, std::size_t longest);

  // The windows of the path nearest to x, n places, in squared error (float32), of those that start from
  // state `from` and end in state `to`. With a state given at both ends n b >= L - b.
  void nearest_path(const float* x, std::size_t n, std::uint32_t from, std::uint32_t to,
                    std::uint16_t* windows);

  // A closed sequence near to x (n b >= L): its seam is where the nearest free path around it passes, and the
  // rest the nearest that closes there (QTIP, algorithm 4). Of N(0, 1) at L = 12, n = 128 its squared error
  // is 2 % above the best closed sequence's at 1 and 2 bits, 0.5 % at 3; more where n is small (n = 64: 8, 4,
  // 1 %).
  void near_ring(const float* x, std::size_t n, std::uint8_t* symbols);

 private:
  // Places on either side of the seam that the free path sees, going round more than once where n is small.
  static constexpr std::size_t kOverlap = 64;

  const BitshiftTrellis& trellis_;
  std::vector<float> costs_, next_costs_;     // by state
  std::vector<std::uint8_t> oldest_symbols_;  // of the best path into a state: [place][state]
  std::vector<float> around_seam_;
  std::vector<std::uint16_t> windows_;
};

}  // namespace tq
