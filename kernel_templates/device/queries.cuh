#pragma once

#include "device/hadamard.cuh"
#include "shared/launch.h"
#include "shared/params.h"

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
TQ_DEVICE void load_queries(const void* queries, Element element, i64 base, i64 head_stride, int group,
                            float* x) {
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

// Block and lane column in which a coordinate stands; its place in the block's four is i % 4.
struct FragmentPlace {
  int b, c;
};
TQ_DEVICE FragmentPlace tile_place(int i) { return {i / 16, i % 16 / 4}; }

// One head to its fragments, by a warp: a lane's pairs n hold coordinates pair(n), pair(n) + 1, or nothing
// where pair(n) is d or more.
template <int d, int kQueryTiles, int kPairs, typename Pair, typename Place>
TQ_DEVICE void store_head(const float (&x)[kPairs][2], int head, float gain,
                          QueryFragments<d, kQueryTiles>& to, const Pair& pair, const Place& place) {
  float largest = 0;
#pragma unroll
  for (int n = 0; n < kPairs; ++n) {
    if (pair(n) < d) largest = fmaxf(largest, fmaxf(fabsf(x[n][0]), fabsf(x[n][1])));
  }
  const PowerOfTwo power = power_of_two(lane_max<kLanes>(largest));
  if (threadIdx.x % kLanes == 0) to.factors[head] = power.power * gain;
#pragma unroll
  for (int n = 0; n < kPairs; ++n) {
    const int i = pair(n);
    if (i >= d) continue;
    const FragmentPlace at = place(i);
    to.fragments[(at.b * kQueryTiles + head / 8) * kLanes + 4 * (head % 8) + at.c].x[i % 4 / 2] =
        pack_half2(x[n][0] * power.inverse, x[n][1] * power.inverse);
  }
}

// Heads from elsewhere to fragments as they are: load(head, i, x) gives coordinates i and i + 1. Heads from
// `group` on are zero. All threads of the block; the caller synchronises.
template <int d, int kQueryTiles, typename Load, typename Place>
TQ_DEVICE void store_fragments(const Load& load, int group, float gain, QueryFragments<d, kQueryTiles>& to,
                               const Place& place) {
  constexpr int kPairs = (d + 2 * kLanes - 1) / (2 * kLanes);
  const auto pair = [](int n) { return 2 * static_cast<int>(threadIdx.x % kLanes) + 2 * kLanes * n; };
#pragma unroll 1
  for (int head = warp_index(); head < 8 * kQueryTiles; head += static_cast<int>(blockDim.x) / kLanes) {
    float x[kPairs][2] = {};
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      if (head < group && pair(n) < d) load(head, pair(n), x[n]);
    }
    store_head(x, head, gain, to, pair, place);
  }
}

// Where butterflies in a warp's registers prepare queries.
TQ_SHARED bool prepared_in_warps(const KeySpec& key) {
  return fits_warp(key.head_dim) && key.rotation == Mixing::hadamard &&
         (!key.prod || key.sketch == Mixing::hadamard);
}

// The queries of one KV head, and the signs they are multiplied by, on their way to registers: asked for
// before anything that memory would serve first. A warp's first head; of other paths nothing.
template <KeySpec kKey>
struct QueriesAhead {
  static constexpr int k = prepared_in_warps(kKey) ? kKey.head_dim / kLanes : 1;
  float first[k], signs[k];

  TQ_DEVICE static int coordinate() { return static_cast<int>(threadIdx.x % kLanes) * k; }
  TQ_DEVICE static void load_head(const void* queries, Element element, i64 base, i64 head_stride, int group,
                                  int head, float (&x)[k]) {
#pragma unroll
    for (int e = 0; e < k; ++e) x[e] = 0;
    if (head < group) load_elements(element, queries, base + head * head_stride + coordinate(), x);
  }
  TQ_DEVICE void load(const void* queries, Element element, i64 base, i64 head_stride, int group,
                      const KeyTableParams& key) {
    if constexpr (prepared_in_warps(kKey)) {
      load_head(queries, element, base, head_stride, group, warp_index(), first);
#pragma unroll
      for (int e = 0; e < k; ++e) signs[e] = key.rotation.signs[coordinate() + e];
    }
  }
  // Read once all of it has arrived.
  TQ_DEVICE float arrived() const {
    float all = 0;
#pragma unroll
    for (int e = 0; e < k; ++e) all += first[e] + signs[e];
    return all;
  }
};

// Rotated and sketched queries by butterflies in a warp's registers, a warp a head.
template <KeySpec kKey, int kQueryTiles>
TQ_DEVICE void prepare_in_warps(const void* queries, Element element, i64 base, i64 head_stride, int group,
                                const KeyTableParams& key, float gain, const QueriesAhead<kKey>& ahead,
                                QueryFragments<kKey.head_dim, kQueryTiles>& rotated,
                                QueryFragments<kKey.head_dim, kQueryTiles>* sketched) {
  constexpr int d = kKey.head_dim, k = d / kLanes;
  const int first = ahead.coordinate(), warps = static_cast<int>(blockDim.x) / kLanes;
  const auto pair = [&](int n) { return first + 2 * n; };
#pragma unroll 1
  for (int head = warp_index(); head < 8 * kQueryTiles; head += warps) {
    float x[k], pairs[k / 2][2];
    if (head == warp_index()) {
#pragma unroll
      for (int e = 0; e < k; ++e) x[e] = ahead.first[e];
    } else {
      ahead.load_head(queries, element, base, head_stride, group, head, x);
    }
#pragma unroll
    for (int e = 0; e < k; ++e) x[e] *= ahead.signs[e];
    warp_hadamard<d>(x);
#pragma unroll
    for (int e = 0; e < k; ++e) pairs[e / 2][e % 2] = x[e] = x[e] * (1.0f / sqrtf(static_cast<float>(d)));
    store_head(pairs, head, gain, rotated, pair, tile_place);
    if constexpr (kKey.prod) {
      // The sketch takes the rotated coordinates in the rotation's order: from the lanes that have them.
      float gathered[k];
#pragma unroll
      for (int e = 0; e < k; ++e) {
        const int from = key.rotation.permutation[first + e];
#pragma unroll
        for (int i = 0; i < k; ++i) {
          const float theirs = from_lane(x[i], from / k);
          if (i == from % k) gathered[e] = theirs;
        }
        gathered[e] *= key.sketch.signs[first + e];
      }
      warp_hadamard<d>(gathered);
#pragma unroll
      for (int e = 0; e < k; ++e) pairs[e / 2][e % 2] = gathered[e];
      store_head(pairs, head, gain, *sketched, pair, tile_place);
    }
  }
}

// Rotated queries and, for prod keys, sketched ones; `ahead` was loaded with the same arguments.
// fill_tables() is work of all threads that may use the place of `scratch` (query_scratch_bytes). The caller
// synchronises.
template <KeySpec kKey, int kQueryTiles, typename FillTables>
TQ_DEVICE void prepare_queries(const void* queries, Element element, i64 base, i64 head_stride, int group,
                               const KeyTableParams& key, float gain, const QueriesAhead<kKey>& ahead,
                               float* scratch, const FillTables& fill_tables,
                               QueryFragments<kKey.head_dim, kQueryTiles>& rotated,
                               QueryFragments<kKey.head_dim, kQueryTiles>* sketched) {
  constexpr int d = kKey.head_dim, kHeads = 8 * kQueryTiles;
  if constexpr (prepared_in_warps(kKey)) {
    fill_tables();
    prepare_in_warps<kKey, kQueryTiles>(queries, element, base, head_stride, group, key, gain, ahead, rotated,
                                        sketched);
  } else {
    float *x = scratch, *y = scratch + kHeads * d;
    const auto from = [](const float* heads) {
      return [heads](int head, int i, float(&pair)[2]) {
        pair[0] = heads[head * d + i];
        pair[1] = heads[head * d + i + 1];
      };
    };
    load_queries<d, kQueryTiles>(queries, element, base, head_stride, group, x);
    if constexpr (kKey.rotation == Mixing::hadamard) {
      mix_hadamard<d, kHeads>(x, y, key.rotation.signs, nullptr, 1.0f / sqrtf(static_cast<float>(d)));
    } else {
      mix_dense<d, kHeads>(x, y, key.rotation.matrix);
    }
    store_fragments(from(y), kHeads, gain, rotated, tile_place);
    if constexpr (kKey.prod) {
      if constexpr (kKey.sketch == Mixing::hadamard) {
        const u16* gather = kKey.rotation == Mixing::hadamard ? key.rotation.permutation : nullptr;
        mix_hadamard<d, kHeads>(y, x, key.sketch.signs, gather, 1.0f);
      } else {
        mix_dense<d, kHeads>(y, x, key.sketch.matrix);
      }
      store_fragments(from(x), kHeads, gain, *sketched, tile_place);
    }
    __syncthreads();
    fill_tables();
  }
}

}  // namespace tq::gpu
