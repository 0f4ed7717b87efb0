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
    kv_head = p.group_parts == 1 ? segment.row_of_sequence : segment.row_of_sequence / p.group_parts;
    const int part = segment.row_of_sequence - kv_head * p.group_parts;
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
#pragma unroll 1
    for (int head = warp_index(); head < kHeads; head += static_cast<int>(blockDim.x) / kLanes) {
      float v[k], signs[k];
#pragma unroll
      for (int e = 0; e < k; ++e) signs[e] = rotation.signs[first + e];
#pragma unroll
      for (int e = 0; e < k; ++e) v[e] = x[head * d + first + e];
      warp_hadamard<d>(v);
#pragma unroll
      for (int e = 0; e < k; ++e) y[head * d + first + e] += v[e] * gain * signs[e];
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

// A row's sums in a block's shared memory.
template <AttendSpec kSpec>
struct RowScratch {
  static constexpr int d = kSpec.head_dim, kHeads = query_heads(kSpec.query_tiles);
  static constexpr bool kRotated = kSpec.quantised && kSpec.value.rotated;
  float rotated[kHeads * d];  // of values that are still rotated
  float result[kHeads * d];
  float softmax[2 * kHeads];

  TQ_DEVICE float* sums(bool exact) { return kRotated && !exact ? rotated : result; }
};

template <AttendSpec kSpec>
TQ_DEVICE void store_log_sum_exp(const AttendParams& p, const Segment& segment, int query, float maximum,
                                 float sum) {
  constexpr float kLn2 = 0.6931471805599453f;
  if (p.log_sum_exp != nullptr)
    p.log_sum_exp[static_cast<i64>(segment.sequence) * p.kv_heads * p.group + query] =
        (maximum + log2f(sum)) * kLn2;
}
// Nothing to attend to gives zeros.
TQ_DEVICE float reciprocal_sum(float sum) { return sum == 0 ? 0.0f : 1.0f / sum; }

// A row that one segment has alone: its sums are in `row` already.
template <AttendSpec kSpec>
TQ_DEVICE void divide_row(const AttendParams& p, const Segment& segment, const Heads& heads,
                          RowScratch<kSpec>& row) {
  constexpr int d = kSpec.head_dim;
  float* sums = row.sums(segment.exact);
#pragma unroll 1
  for (int task = threadIdx.x; task < heads.count * d; task += kSpec.warps * kLanes) {
    const int head = task / d;
    const float sum = row.softmax[2 * head + 1], mean = sums[task] * reciprocal_sum(sum);
    row.rotated[task] = row.result[task] = 0;
    sums[task] = mean;
    if (task % d == 0)
      store_log_sum_exp<kSpec>(p, segment, heads.first_query + head, row.softmax[2 * head], sum);
  }
  __syncthreads();
}

// Turns of equal size in which so many threads do so many tasks.
TQ_SHARED int combine_turns(int tasks, int threads) {
  int turns = (tasks + threads - 1) / threads;
  while (tasks % turns != 0) ++turns;
  return turns;
}

template <AttendSpec kSpec>
TQ_DEVICE void combine_row(const AttendParams& p, const RowSlots& slots, const Segment& segment,
                           const Heads& heads, RowScratch<kSpec>& row, float* weights) {
  constexpr int d = kSpec.head_dim, kHeads = query_heads(kSpec.query_tiles), kThreads = kSpec.warps * kLanes;
  constexpr int kQuads = kHeads * d / 4,
                kTurns = combine_turns(kQuads, kThreads);            // 4 outputs a thread and turn
  constexpr int kTurn = kQuads / kTurns, kTeams = kThreads / kTurn;  // that share the slots
  constexpr int kSides = RowScratch<kSpec>::kRotated ? 2 : 1;
  const int lane = threadIdx.x % kLanes, team = threadIdx.x / kTurn, quad = threadIdx.x % kTurn;
  const int count = slots.count();
  const auto softmax_of = [&](int i, int head) {
    return load_other_block2(p.partial_softmax + (static_cast<i64>(slots[i]) * kHeads + head) * 2);
  };
  const auto head_of = [&](int turn) { return (quad + turn * kTurn) / (d / 4); };
  const auto is_mine = [&](int turn) { return team < kTeams && head_of(turn) < heads.count; };
  // Of the last slot where there are fewer.
  const auto outputs_of = [&](int i, int turn) {
    const float* from = p.partial_output + 4 * (quad + turn * kTurn);
    return load_other_block4(from + static_cast<i64>(slots[min(i, count - 1)]) * (kHeads * d));
  };

  // The first slots' outputs are on their way while weights are found.
  constexpr int kAhead = kTurns == 1 ? 16 : 4;  // as registers allow
  float4 ahead[kTurns][kAhead];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    if (!is_mine(turn)) continue;
#pragma unroll
    for (int n = 0; n < kAhead; ++n) ahead[turn][n] = outputs_of(team + n * kTeams, turn);
  }

  // The slots' common maximum and sum, and every slot's weight.
  static_assert(kHeads * kCombineSlots * 4 <= attend_merge_bytes(kSpec) && kCombineSlots % kLanes == 0);
  constexpr int kLaneSlots = kCombineSlots / kLanes;
#pragma unroll 1
  for (int head = warp_index(); head < heads.count; head += kSpec.warps) {
    float2 mine[kLaneSlots];
    float maximum = -infinity(), sum = 0;
#pragma unroll
    for (int j = 0; j < kLaneSlots; ++j) {
      const int i = lane + j * kLanes;
      mine[j] = i < count ? softmax_of(i, head) : make_float2(-infinity(), 0);
    }
#pragma unroll
    for (int j = 0; j < kLaneSlots; ++j) maximum = fmaxf(maximum, mine[j].x);
    maximum = lane_max<kLanes>(maximum);
    const float reference = maximum == -infinity() ? 0.0f : maximum;
#pragma unroll
    for (int j = 0; j < kLaneSlots; ++j) {
      mine[j].x = exp2_approx(mine[j].x - reference);
      sum = fmaf(mine[j].x, mine[j].y, sum);
    }
    sum = lane_sum<kLanes>(sum);
    const float inverse = reciprocal_sum(sum);
#pragma unroll
    for (int j = 0; j < kLaneSlots; ++j)
      weights[head * kCombineSlots + lane + j * kLanes] = mine[j].x * inverse;
    if (lane == 0) store_log_sum_exp<kSpec>(p, segment, heads.first_query + head, maximum, sum);
  }
  __syncthreads();

  float4 sums[kTurns][kSides];  // (exact,) quantised
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    sums[turn][0] = sums[turn][kSides - 1] = make_float4(0, 0, 0, 0);
    if (!is_mine(turn)) continue;
    const float* of_head = weights + head_of(turn) * kCombineSlots;
    const auto add = [&](int i, const float4& x) {
      const float weight = i < count ? of_head[i] : 0.0f;
#pragma unroll
      for (int side = 0; side < kSides; ++side) {
        const float share = kSides == 1 || (i < slots.exact.count) == (side == 0) ? weight : 0.0f;
        float4& sum = sums[turn][side];
        sum = make_float4(fmaf(share, x.x, sum.x), fmaf(share, x.y, sum.y), fmaf(share, x.z, sum.z),
                          fmaf(share, x.w, sum.w));
      }
    };
#pragma unroll
    for (int n = 0; n < kAhead; ++n) add(team + n * kTeams, ahead[turn][n]);
#pragma unroll 1
    for (int i = team + kAhead * kTeams; i < count; i += kTeams) add(i, outputs_of(i, turn));
  }
  const auto add = [](float* to, const float4& x, bool first) {
    float4& y = *reinterpret_cast<float4*>(to);
    y = first ? x : make_float4(y.x + x.x, y.y + x.y, y.z + x.z, y.w + x.w);
  };
#pragma unroll 1
  for (int t = 0; t < kTeams; ++t) {
    if (team == t) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int at = 4 * (quad + turn * kTurn);
        add(row.result + at, sums[turn][0], t == 0);
        if (kSides == 2) add(row.rotated + at, sums[turn][kSides - 1], t == 0);
      }
    }
    __syncthreads();
  }
}

// Called by every block that has written sums of a row, with all of its threads (weights: room for those of
// kCombineSlots slots a head); the last one, or the only
// one, writes the outputs.
template <AttendSpec kSpec>
TQ_DEVICE void finish_row(const AttendParams& p, const Schedule& schedule, const Segment& segment,
                          const Heads& heads, RowScratch<kSpec>& row, float* weights) {
  constexpr int d = kSpec.head_dim, kThreads = kSpec.warps * kLanes;
  __syncthreads();
  if (segment.is_whole_row()) {
    divide_row<kSpec>(p, segment, heads, row);
  } else {
    bool last = false;
    if (threadIdx.x == 0) {
      const u32 added = static_cast<u32>(segment.count());
      last = add_acquire_release(p.finished + segment.row, added) + added ==
             static_cast<u32>(segment.tiles.all());
      if (last) p.finished[segment.row] = 0;
    }
    if (!__syncthreads_or(last)) return;
    combine_row<kSpec>(p, {schedule.slots(segment, true), schedule.slots(segment, false)}, segment, heads,
                       row, weights);
  }
  if constexpr (RowScratch<kSpec>::kRotated) {
    rotate_back<kSpec.value.table, RowScratch<kSpec>::kHeads>(row.rotated, row.result, p.value_rotation);
    __syncthreads();
  }
  const i64 out = segment.sequence * p.out_sequence_stride + heads.first_query * p.out_head_stride;
#pragma unroll 1
  for (int task = threadIdx.x; task < heads.count * d; task += kThreads)
    store_element(p.out_element, p.out, out + task / d * p.out_head_stride + task % d, row.result[task]);
}

}  // namespace tq::gpu
