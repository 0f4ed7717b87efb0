#pragma once

#include "device/hadamard.cuh"
#include "shared/params.h"
#include "shared/launch.h"

// The prologue of every kernel that scores: the queries of one KV head, rotated and sketched as tiles order
// coordinates, as B fragments in shared memory.
namespace tq::gpu {

// Fragments of one set of queries: block b, query tile t, lane l at ((b tiles + t) 32 + l) x 8 bytes, and the
// factor that was taken out of each head so that binary16 neither overflows nor goes subnormal.
template <int d, int kQueryTiles>
struct QueryFragments {
  Vector2 fragments[d / kBlockCoordinates * kQueryTiles * kLanes];
  float factors[8 * kQueryTiles];
};

// x (heads x d) = the queries; heads from `group` on are zero.
template <int d, int kQueryTiles>
TQ_DEVICE void load_queries(const void* queries, Element element, i64 base, i64 head_stride, int group, float* x) {
  for (int i = threadIdx.x; i < 8 * kQueryTiles * d; i += blockDim.x) {
    const int head = i / d;
    x[i] = head < group ? load_element(element, queries, base + head * head_stride + i % d) : 0.0f;
  }
  __syncthreads();
}

// y = H D x gain, coordinates gathered first where `gather` is given. y may be x.
template <int d, int kHeads>
TQ_DEVICE void mix_hadamard(const float* x, float* y, const float* signs, const u16* gather, float gain) {
  using H = Hadamard<d>;
  const int l = threadIdx.x % H::kWidth;
  const int rows = blockDim.x / H::kWidth;
  for (int start = 0; start < kHeads; start += rows) {
    const int head = start + static_cast<int>(threadIdx.x) / H::kWidth;
    typename H::Registers v = {};
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) {
      const int i = H::coordinate(e, l);
      if (head < kHeads) v[e] = x[head * d + (gather == nullptr ? i : gather[i])] * signs[i];
    }
    H::template transform<false>(v, l);
    __syncwarp();
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) {
      if (head < kHeads) y[head * d + H::coordinate(e, l)] = v[e] * gain;
    }
  }
  __syncthreads();
}

// y = x M, row k of M what input k adds. y may not be x.
template <int d, int kHeads>
TQ_DEVICE void mix_dense(const float* x, float* y, const float* matrix) {
  for (int task = threadIdx.x; task < kHeads * d; task += blockDim.x) {
    const int head = task / d, j = task % d;
    float sum = 0;
    for (int k = 0; k < d; ++k) sum = fmaf(x[head * d + k], matrix[k * d + j], sum);
    y[task] = sum;
  }
  __syncthreads();
}

// x (heads x d) to fragments; coordinate(b, c, j) says which coordinate stands where (shared/tile_layout.h).
template <int d, int kQueryTiles, typename Coordinate>
TQ_DEVICE void store_fragments(const float* x, QueryFragments<d, kQueryTiles>& to, float gain,
                               const Coordinate& coordinate) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, warps = blockDim.x / kLanes;
  for (int head = warp; head < 8 * kQueryTiles; head += warps) {
    float largest = 0;
    for (int i = lane; i < d; i += kLanes) largest = fmaxf(largest, fabsf(x[head * d + i]));
    const PowerOfTwo power = power_of_two(lane_max<kLanes>(largest));
    if (lane == 0) to.factors[head] = power.power * gain;
    const int r = head % 8, t = head / 8;
    for (int i = lane; i < d / 4; i += kLanes) {
      const int b = i / 4, c = i % 4;
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = x[head * d + coordinate(b, c, j)] * power.inverse;
      to.fragments[(b * kQueryTiles + t) * kLanes + 4 * r + c] = {pack_half2(v[0], v[1]), pack_half2(v[2], v[3])};
    }
  }
  __syncthreads();
}

TQ_DEVICE int tile_coordinate(int b, int c, int j) { return 16 * b + 4 * c + j; }

// Rotated queries and, for prod keys, sketched ones, through `scratch` (heads x d floats, twice).
template <KeySpec kKey, int kQueryTiles>
TQ_DEVICE void prepare_queries(const void* queries, Element element, i64 base, i64 head_stride, int group, const KeyTableParams& key,
                               float gain, float* scratch, QueryFragments<kKey.head_dim, kQueryTiles>& rotated,
                               QueryFragments<kKey.head_dim, kQueryTiles>* sketched) {
  constexpr int d = kKey.head_dim, kHeads = 8 * kQueryTiles;
  float *x = scratch, *y = scratch + kHeads * d;
  load_queries<d, kQueryTiles>(queries, element, base, head_stride, group, x);
  if constexpr (kKey.rotation == Mixing::hadamard) {
    mix_hadamard<d, kHeads>(x, y, key.rotation.signs, nullptr, 1.0f / sqrtf(static_cast<float>(d)));
  } else {
    mix_dense<d, kHeads>(x, y, key.rotation.matrix);
  }
  store_fragments<d>(y, rotated, gain, tile_coordinate);
  if constexpr (kKey.prod) {
    if constexpr (kKey.sketch == Mixing::hadamard) {
      const u16* gather = kKey.rotation == Mixing::hadamard ? key.rotation.permutation : nullptr;
      mix_hadamard<d, kHeads>(y, x, key.sketch.signs, gather, 1.0f);
    } else {
      mix_dense<d, kHeads>(y, x, key.sketch.matrix);
    }
    store_fragments<d>(x, *sketched, gain, tile_coordinate);
  }
}

}  // namespace tq::gpu
