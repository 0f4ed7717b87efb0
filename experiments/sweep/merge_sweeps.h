#pragma once

#include <string>
#include <vector>

namespace tq {

// Writes the folder that one run would have written from those of `tq sweep --shard 1/N` to `N/N`, in any
// order: results.jsonl byte for byte, the timings and the manifest's runs one shard after the other. `out`
// must not exist, or be empty. Throws InputError that names a folder where a shard is missing, there twice,
// not finished, or of another sweep.
void merge_sweeps(const std::vector<std::string>& folders, const std::string& out);

}  // namespace tq
