#pragma once

#include "jit/kernel_source.h"
#include "shared/spec.h"

// Specialisation to source: one include and one instantiation each. Labels name the specialisation for
// people.
namespace tq::gpu {

KernelSource wht_kernel(const WhtSpec&);  // any order that core/hadamard.h knows
KernelSource rotate_kernel(const RotateSpec&);
KernelSource encode_kernel(const EncodeSpec&);
KernelSource encode_halves_kernel(const EncodeSpec&);  // where encodes_halves() (shared/launch.h) holds
KernelSource decode_kernel(const DecodeSpec&);
KernelSource encode_groups_kernel(const GroupCodecSpec&);
KernelSource decode_groups_kernel(const GroupCodecSpec&);
KernelSource scores_kernel(const ScoreSpec&);
KernelSource attend_kernel(const AttendSpec&);
KernelSource append_kernel();

// The label without warps and stages: what kernels that differ only in their block have in common.
std::string blockless_label(const ScoreSpec&);
std::string blockless_label(const AttendSpec&);

// Several Paley factors: a row in shared memory instead of registers (device/wht_mixed.cuh).
bool wht_is_mixed(int order);

// Tiles of 8 query heads that an attention block takes of `group` query heads a KV head: two where their sums
// fit the registers; otherwise two blocks read the same tiles.
int attend_query_tiles(int head_dim, int group);

// Fills in `warps` and `stages`: staged, and as many warps as registers and `shared_limit` bytes of shared
// memory allow; where staged tiles of 4 warps do not fit, 8 warps of unstaged ones.
AttendSpec with_block(AttendSpec spec, int shared_limit);
ScoreSpec with_block(ScoreSpec spec, int shared_limit);
// The limits of sm_90 and newer server chips, and the smallest of all (sm_86, sm_89, sm_120).
inline constexpr int kServerSharedLimit = 227 << 10, kLeastSharedLimit = 99 << 10;

}  // namespace tq::gpu
