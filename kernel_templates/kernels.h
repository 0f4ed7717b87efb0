#pragma once

#include "jit/kernel_source.h"
#include "shared/spec.h"

// Specialisation to source: one include and one instantiation each. Labels name the specialisation for
// people.
namespace tq::gpu {

KernelSource wht_kernel(const WhtSpec&);  // any order that core/hadamard.h knows
KernelSource rotate_kernel(const RotateSpec&);
KernelSource encode_kernel(const EncodeSpec&);
KernelSource decode_kernel(const DecodeSpec&);
KernelSource encode_groups_kernel(const GroupCodecSpec&);
KernelSource decode_groups_kernel(const GroupCodecSpec&);
KernelSource scores_kernel(const ScoreSpec&);
KernelSource attend_kernel(const AttendSpec&);
KernelSource combine_kernel(const CombineSpec&);
KernelSource append_kernel();

// Several Paley factors: a row in shared memory instead of registers (device/wht_mixed.cuh).
bool wht_is_mixed(int order);

// Tiles of 8 query heads that an attention block takes of `group` query heads a KV head: two where their sums
// fit the registers; otherwise two blocks read the same tiles.
int attend_query_tiles(int head_dim, int group);
inline constexpr int kAttendWarps = 8;

}  // namespace tq::gpu
