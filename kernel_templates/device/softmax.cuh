#pragma once

#include "device/score_tile.cuh"

// The online softmax of a warp over tiles of 64 tokens, and the sums it weighs (base 2 throughout).
//
// The running maximum is that of score + e, e the exponent of the tile's largest value scale: weights
// 2^(score + e - maximum) times scales / 2^e then stay within binary16, whatever the values' magnitude.
namespace tq::gpu {

template <int d, int kQueryTiles>
struct Softmax {
  float maximum[kQueryTiles][2];                        // a lane's two heads of each query tile
  float sum[kQueryTiles][2];                            // of 2^(score - maximum), this lane's tokens
  float output[d / kBlockCoordinates][kQueryTiles][4];  // fragment C: coordinates x heads

  TQ_DEVICE void reset() {
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) maximum[t][i] = -infinity(), sum[t][i] = 0;
#pragma unroll
      for (int b = 0; b < d / kBlockCoordinates; ++b) {
#pragma unroll
        for (int k = 0; k < 4; ++k) output[b][t][k] = 0;
      }
    }
  }

  // Turns scores into weights 2^(score + exponent - maximum). `rescale(factors)` multiplies further sums that
  // the caller keeps; called when a maximum has risen.
  template <typename Rescale>
  TQ_DEVICE void weigh(ScoreFragments<kQueryTiles>& scores, int exponent, const Rescale& rescale) {
    const float e = static_cast<float>(exponent);
    float shift[kQueryTiles][2], factor[kQueryTiles][2];
    bool risen = false;
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float largest = -infinity();
#pragma unroll
        for (int s = 0; s < 4; ++s)
          largest = fmaxf(largest, fmaxf(scores.sum[s][t][i], scores.sum[s][t][2 + i]));
#pragma unroll
        for (int mask = 4; mask < kLanes; mask <<= 1)
          largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, mask));
        const float next = fmaxf(maximum[t][i], largest + e);
        risen |= next > maximum[t][i];
        // Nothing visible yet: any reference will do, but not infinity less infinity.
        const float reference = next == -infinity() ? 0.0f : next;
        factor[t][i] = exp2_approx(maximum[t][i] - reference);
        shift[t][i] = e - reference;
        maximum[t][i] = next;
      }
    }
    if (__any_sync(kFullWarp, risen)) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) sum[t][i] *= factor[t][i];
#pragma unroll
        for (int b = 0; b < d / kBlockCoordinates; ++b) {
#pragma unroll
          for (int k = 0; k < 4; ++k) output[b][t][k] *= factor[t][k % 2];
        }
      }
      rescale(factor);
    }
    const float scale = __int_as_float((127 - exponent) << 23);
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
      float added[2] = {};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float weight = exp2_approx(scores.sum[s][t][k] + shift[t][k % 2]);
          scores.sum[s][t][k] = weight;
          added[k % 2] += weight;
        }
      }
      sum[t][0] = fmaf(added[0], scale, sum[t][0]);
      sum[t][1] = fmaf(added[1], scale, sum[t][1]);
    }
  }
};

// Scores of tokens from `count` on become -infinity.
template <int kQueryTiles>
TQ_DEVICE void hide_tokens(ScoreFragments<kQueryTiles>& scores, int lane, int count) {
  if (count >= kTileTokens) return;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (score_token(lane, s, k) < count) continue;
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) scores.sum[s][t][k] = -infinity();
    }
  }
}

// Weights of a sub-tile, times a scale a token, as fragment B of the values' product.
TQ_DEVICE void weight_fragment(const float (&weights)[4], float scale_low, float scale_high, u32 (&b)[2]) {
  b[0] = transpose_8x8(pack_half2(weights[0] * scale_low, weights[1] * scale_low));
  b[1] = transpose_8x8(pack_half2(weights[2] * scale_high, weights[3] * scale_high));
}

// Where a segment's sums go: [head][d] and [head] {maximum, sum}.
struct Partial {
  float* output;
  float* softmax;
};

// A block's warps to one partial result: output (not yet divided), maximum and sum of every head.
// coordinate(b, r, h) says what stands in row r + 8 h of block b.
template <int d, int kQueryTiles, int kWarps, typename Coordinate>
TQ_DEVICE void merge_warps(Softmax<d, kQueryTiles>& softmax, char* work, int group, const Partial& partial,
                           const Coordinate& coordinate) {
  constexpr int kHeads = 8 * kQueryTiles, kStride = d + 4;
  float* merge = reinterpret_cast<float*>(work);
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, r = lane / 4, c = lane % 4;
  __syncthreads();  // the tables, or what else was there, are no longer read
#pragma unroll
  for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float* to = merge + (warp * kHeads + 8 * t + 2 * c + i) * kStride;
      float total = softmax.sum[t][i];
#pragma unroll
      for (int mask = 4; mask < kLanes; mask <<= 1) total += __shfl_xor_sync(kFullWarp, total, mask);
      if (r == 0) {
        to[d] = softmax.maximum[t][i];
        to[d + 1] = total;
      }
#pragma unroll
      for (int b = 0; b < d / kBlockCoordinates; ++b) {
#pragma unroll
        for (int h = 0; h < 2; ++h) to[coordinate(b, r, h)] = softmax.output[b][t][2 * h + i];
      }
    }
  }
  __syncthreads();
  // A warp's maximum to its weight, in place; then all outputs, four a thread.
  for (int head = threadIdx.x; head < kHeads; head += kWarps * kLanes) {
    float maxima[kWarps], maximum = -infinity(), total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      maxima[w] = merge[(w * kHeads + head) * kStride + d];
      maximum = fmaxf(maximum, maxima[w]);
    }
    const float reference = maximum == -infinity() ? 0.0f : maximum;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      float* row = merge + (w * kHeads + head) * kStride;
      const float weight = exp2_approx(maxima[w] - reference);
      total = fmaf(weight, row[d + 1], total);
      row[d] = weight;
    }
    if (head < group) {
      partial.softmax[2 * head] = maximum;
      partial.softmax[2 * head + 1] = total;
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int task = threadIdx.x; task < group * (d / 4); task += kWarps * kLanes) {
    const int head = task / (d / 4), j = task % (d / 4) * 4;
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* row = merge + (w * kHeads + head) * kStride;
      const float4 x = *reinterpret_cast<const float4*>(row + j);
      const float weight = row[d];
      total = make_float4(fmaf(weight, x.x, total.x), fmaf(weight, x.y, total.y), fmaf(weight, x.z, total.z),
                          fmaf(weight, x.w, total.w));
    }
    *reinterpret_cast<float4*>(partial.output + head * d + j) = total;
  }
}

}  // namespace tq::gpu
