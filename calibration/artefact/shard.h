#pragma once

#include <string>
#include <vector>

#include "calibration/artefact/artefact.h"

namespace tq {

// One of several separate runs that share a job: items index, index + count, ... of it.
struct Shard {
  int index = 0, count = 1;
  friend bool operator==(const Shard&, const Shard&) = default;
};

// What one of several runs of a calibration leaves: the artefact with the layers of its shard alone.
struct ArtefactShard {
  Artefact artefact;
  Shard shard;
  int num_layers = 0;   // of the whole artefact
  std::string options;  // what decided the result; the same in all shards of one calibration
};

// The layers of a shard. Throws UsageError where there are fewer layers than shards.
std::vector<int> layers_of(const Shard& shard, int num_layers);

// An artefact's file (artefact.h) under a format name of its own, with attributes for what is added; checked
// as strictly when it is read.
void write_shard(const ArtefactShard& shard, const std::string& path);
ArtefactShard read_shard(const std::string& path, Trust trust);

// The artefact that one run would have written; its time is the latest of theirs. Throws InputError that
// names a file, where a shard is missing, there twice, or of another calibration.
Artefact merge_shards(const std::vector<std::string>& paths, Trust trust);

}  // namespace tq
