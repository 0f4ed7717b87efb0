#pragma once

#include "device/queries.cuh"
#include "device/schedule.cuh"

// Segments' sums to the outputs of a row: weighs them by their log-sum-exp, takes rotated values back once,
// divides.
namespace tq::gpu {

// The query heads of a row.
struct Heads {
  int kv_head, first_query, count;
  TQ_DEVICE Heads(const AttendParams& p, const Segment& segment, int most) {
    const int row = segment.row % (p.kv_heads * p.group_parts), part = row % p.group_parts;
    kv_head = row / p.group_parts;
    first_query = kv_head * p.group + part * most;
    count = min(p.group - part * most, most);
  }
};

// y += M^T x for the matrix M that rotated, row by row of heads x d.
template <KeySpec kTable, int kHeads>
TQ_DEVICE void rotate_back(const float* x, float* y, const MixingParams& rotation) {
  constexpr int d = kTable.head_dim;
  const float gain = 1.0f / sqrtf(static_cast<float>(d));
  if constexpr (kTable.rotation == Mixing::dense) {
    for (int task = threadIdx.x; task < kHeads * d; task += blockDim.x) {
      const int head = task / d, j = task % d;
      float total = 0;
      for (int k = 0; k < d; ++k) total = fmaf(x[head * d + k], rotation.matrix[k * d + j], total);
      y[task] += total;
    }
  } else if constexpr (fits_warp(d)) {
    constexpr int k = d / kLanes;
    const int first = static_cast<int>(threadIdx.x % kLanes) * k;
    for (int head = warp_index(); head < kHeads; head += static_cast<int>(blockDim.x) / kLanes) {
      float v[k];
#pragma unroll
      for (int e = 0; e < k; ++e) v[e] = x[head * d + first + e];
      warp_hadamard<d>(v);
#pragma unroll
      for (int e = 0; e < k; ++e) y[head * d + first + e] += v[e] * gain * rotation.signs[first + e];
    }
  } else {
    using H = Hadamard<d>;
    const int l = threadIdx.x % H::kWidth, rows = blockDim.x / H::kWidth;
    for (int start = 0; start < kHeads; start += rows) {
      const int head = start + static_cast<int>(threadIdx.x) / H::kWidth;
      typename H::Registers v = {};
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) {
        if (head < kHeads) v[e] = x[head * d + H::coordinate(e, l)];
      }
      H::template transform<true>(v, l);
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) {
        const int i = H::coordinate(e, l);
        if (head < kHeads) y[head * d + i] += v[e] * gain * rotation.signs[i];
      }
    }
  }
}

// The slots of a row: those of its binary16 tokens, then those of the quantised ones.
struct RowSlots {
  Schedule::Slots exact, quantised;
  TQ_DEVICE int count() const { return exact.count + quantised.count; }
  TQ_DEVICE int operator[](int i) const {
    return i < exact.count ? exact.first + i : quantised.first + i - exact.count;
  }
};

// Turns of equal size in which so many threads do so many tasks.
TQ_SHARED int combine_turns(int tasks, int threads) {
  int turns = (tasks + threads - 1) / threads;
  while (tasks % turns != 0) ++turns;
  return turns;
}

template <AttendSpec kSpec>
TQ_DEVICE void combine_row(const AttendParams& p, const RowSlots& slots, const Segment& segment,
                           const Heads& heads, float* scratch) {
  constexpr int d = kSpec.head_dim, kHeads = query_heads(kSpec.query_tiles), kThreads = kSpec.warps * kLanes;
  constexpr bool kRotated = kSpec.quantised && kSpec.value.rotated;
  constexpr int kQuads = kHeads * d / 4,
                kTurns = combine_turns(kQuads, kThreads);  // 4 outputs a thread and turn
  constexpr int kTeams = kThreads / (kQuads / kTurns);     // that share the slots
  float *rotated = scratch, *result = rotated + kHeads * d, *weights = result + kHeads * d;
  const int lane = threadIdx.x % kLanes;
  const auto softmax_of = [&](int i, int head) {
    return p.partial_softmax + (static_cast<i64>(slots[i]) * kHeads + head) * 2;
  };

  // The slots' common maximum and sum, then their weights, kCombineSlots of them at a time.
  for (int head = warp_index(); head < kHeads; head += kSpec.warps) {
    float maximum = -infinity(), sum = 0;
    for (int i = lane; head < heads.count && i < slots.count(); i += kLanes) {
      const float* from = softmax_of(i, head);
      const float theirs = load_other_block(from), next = fmaxf(maximum, theirs);
      const float reference = next == -infinity() ? 0.0f : next;
      sum = sum * exp2_approx(maximum - reference) +
            load_other_block(from + 1) * exp2_approx(theirs - reference);
      maximum = next;
    }
    const float largest = lane_max<kLanes>(maximum), reference = largest == -infinity() ? 0.0f : largest;
    sum = lane_sum<kLanes>(sum * exp2_approx(maximum - reference));
    if (lane != 0) continue;
    float* of_head = weights + kHeads * kCombineSlots + 2 * head;
    of_head[0] = reference;
    of_head[1] = sum == 0 ? 0.0f : 1.0f / sum;  // nothing to attend to: zeros
    if (p.log_sum_exp != nullptr && head < heads.count) {
      constexpr float kLn2 = 0.6931471805599453f;
      p.log_sum_exp[static_cast<i64>(segment.sequence) * p.kv_heads * p.group + heads.first_query + head] =
          (largest + log2f(sum)) * kLn2;
    }
  }
  __syncthreads();

  float4 sums[kTurns][2];  // exact, quantised
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) sums[turn][0] = sums[turn][1] = make_float4(0, 0, 0, 0);
  const int team = threadIdx.x / (kQuads / kTurns), quad = threadIdx.x % (kQuads / kTurns);
  for (int begin = 0; begin < slots.count(); begin += kCombineSlots) {
    const int count = min(slots.count() - begin, kCombineSlots);
    for (int task = threadIdx.x; task < heads.count * count; task += kThreads) {
      const int head = task / count, i = task % count;
      const float* of_head = weights + kHeads * kCombineSlots + 2 * head;
      weights[head * kCombineSlots + i] =
          exp2_approx(load_other_block(softmax_of(begin + i, head)) - of_head[0]) * of_head[1];
    }
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const int at = quad + turn * (kQuads / kTurns), head = at / (d / 4);
      if (head >= heads.count || team >= kTeams) continue;
#pragma unroll 4
      for (int i = team; i < count; i += kTeams) {
        const float4 x =
            load_other_block4(p.partial_output + (static_cast<i64>(slots[begin + i]) * kQuads + at) * 4);
        const float weight = weights[head * kCombineSlots + i];
        float4& sum = sums[turn][begin + i < slots.exact.count ? 0 : 1];
        sum = make_float4(fmaf(weight, x.x, sum.x), fmaf(weight, x.y, sum.y), fmaf(weight, x.z, sum.z),
                          fmaf(weight, x.w, sum.w));
      }
    }
    __syncthreads();
  }
  const auto add = [](float* to, const float4& x, bool first) {
    float4& y = *reinterpret_cast<float4*>(to);
    y = first ? x : make_float4(y.x + x.x, y.y + x.y, y.z + x.z, y.w + x.w);
  };
#pragma unroll
  for (int t = 0; t < kTeams; ++t) {
    if (team == t) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int at = 4 * (quad + turn * (kQuads / kTurns));
        add(result + at, sums[turn][0], t == 0);
        add(kRotated ? rotated + at : result + at, sums[turn][1], kRotated && t == 0);
      }
    }
    __syncthreads();
  }
  if constexpr (kRotated) {
    rotate_back<kSpec.value.table, kHeads>(rotated, result, p.value_rotation);
    __syncthreads();
  }
  const i64 out = segment.sequence * p.out_sequence_stride + heads.first_query * p.out_head_stride;
  for (int task = threadIdx.x; task < heads.count * d; task += kThreads)
    store_element(p.out_element, p.out, out + task / d * p.out_head_stride + task % d, result[task]);
}

// Called by every block that has written sums of a row; the last of them combines, through `scratch`
// (combine_scratch_bytes).
template <AttendSpec kSpec>
TQ_DEVICE void finish_row(const AttendParams& p, const Schedule& schedule, const Segment& segment,
                          const Heads& heads, float* scratch) {
  bool last = false;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const u32 added = static_cast<u32>(segment.count());
    last = atomicAdd(p.finished + segment.row, added) + added == static_cast<u32>(segment.tiles.all());
    if (last) p.finished[segment.row] = 0;
    __threadfence();
  }
  if (!__syncthreads_or(last)) return;
  combine_row<kSpec>(p, {schedule.slots(segment, true), schedule.slots(segment, false)}, segment, heads,
                     scratch);
}

}  // namespace tq::gpu
