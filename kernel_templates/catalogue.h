#pragma once

#include <string>
#include <vector>

#include "jit/kernel_source.h"
#include "jit/source_tree.h"
#include "kernel_templates/kernels.h"

namespace tq {

struct CatalogueEntry {
  std::string name;  // the source's label
  KernelSource source;
};

// Every specialisation that is supported: head_dim 64, 80, 96, 128, 192, 256 (and all orders of
// core/hadamard.h for the WHT); keys mse and prod of 2..4 bits, both sketches and rotations; values group 2,
// 3, 4, 8 with groups of 16, 32, 64, 128, and rotated 2..4; up to 16 query heads a KV head. Kernels that
// score and attend take the block that a GPU of so much shared memory gives them (kernels.h).
std::vector<CatalogueEntry> catalogue(int shared_limit = gpu::kServerSharedLimit);

// A small part, of large shared memories and of small ones, that takes every template through every branch of
// its own.
std::vector<CatalogueEntry> covering_catalogue();

// The templates, as built into the program.
const SourceTree& kernel_sources();

}  // namespace tq
