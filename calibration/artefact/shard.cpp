#include "calibration/artefact/shard.h"

#include <algorithm>

#include "calibration/artefact/artefact_layout.h"
#include "core/error.h"
#include "datasets/atomic_file.h"
#include "datasets/hdf5.h"

namespace tq {
namespace {

constexpr std::string_view kIndex = "shard", kCount = "shards", kLayers = "layers_of_all_shards",
                           kOptions = "options";

int read_count(const hdf5::InputGroup& root, std::string_view name, int lowest, int highest) {
  const std::int64_t value = root.int64_attribute(std::string(name));
  if (value < lowest || value > highest) {
    throw InputError("{}: attribute '{}' is {}; {} to {} is wanted", root.where(), name, value, lowest,
                     highest);
  }
  return static_cast<int>(value);
}

// What differs between the calibrations that two shards are of; empty: nothing.
std::string difference(const ArtefactShard& a, const ArtefactShard& b) {
  const Provenance &p = a.artefact.provenance, &q = b.artefact.provenance;
  const auto line = [](std::string_view what, const auto& mine, const auto& other) {
    return fmt::format("{} '{}' where the first has '{}'", what, hdf5::one_line(fmt::format("{}", mine)),
                       hdf5::one_line(fmt::format("{}", other)));
  };
  if (a.options != b.options) return line("options", a.options, b.options);
  if (p.capture_sha256 != q.capture_sha256) return line("capture", p.capture_sha256, q.capture_sha256);
  if (p.tool_version != q.tool_version) return line("program", p.tool_version, q.tool_version);
  if (a.shard.count != b.shard.count) return line("number of shards", a.shard.count, b.shard.count);
  Provenance same_time = p;
  same_time.utc_time = q.utc_time;
  if (same_time != q) return line("command line", p.command_line, q.command_line);
  const bool same_model = a.num_layers == b.num_layers && a.artefact.num_q_heads == b.artefact.num_q_heads &&
                          a.artefact.key_basis == b.artefact.key_basis &&
                          a.artefact.softmax_scale == b.artefact.softmax_scale;
  return same_model ? "" : "another model's shape";
}

}  // namespace

std::vector<int> layers_of(const Shard& shard, int num_layers) {
  if (shard.count > num_layers) {
    throw UsageError("shard {}/{}: there are {} layers, and no more shards than that", shard.index + 1,
                     shard.count, num_layers);
  }
  std::vector<int> layers;
  for (int layer = shard.index; layer < num_layers; layer += shard.count) layers.push_back(layer);
  return layers;
}

void write_shard(const ArtefactShard& shard, const std::string& path) {
  validate(shard.artefact, path);
  AtomicFile output(path);
  {
    hdf5::File file = hdf5::create_for_writing(output.temporary(), path);
    write_contents(file.root(), shard.artefact, kShardFormat);
    hdf5::write_attribute(file.root(), std::string(kIndex), shard.shard.index + 1);
    hdf5::write_attribute(file.root(), std::string(kCount), shard.shard.count);
    hdf5::write_attribute(file.root(), std::string(kLayers), shard.num_layers);
    hdf5::write_attribute(file.root(), std::string(kOptions), std::string_view(shard.options));
    file.close();
  }
  output.commit();
}

ArtefactShard read_shard(const std::string& path, Trust trust) {
  const hdf5::InputGroup root = hdf5::open_input(path, trust);
  ArtefactShard shard;
  shard.artefact = read_contents(root, path, kShardFormat, {kIndex, kCount, kLayers, kOptions});
  shard.num_layers = read_count(root, kLayers, 1, static_cast<int>(kMaxLayers));
  shard.shard.count = read_count(root, kCount, 1, shard.num_layers);
  shard.shard.index = read_count(root, kIndex, 1, shard.shard.count) - 1;
  shard.options = root.string_attribute(std::string(kOptions));
  if (const std::size_t layers = layers_of(shard.shard, shard.num_layers).size();
      shard.artefact.layers.size() != layers) {
    throw InputError("{}: holds {} layers; shard {} of {} has {}", root.where(), shard.artefact.layers.size(),
                     shard.shard.index + 1, shard.shard.count, layers);
  }
  return shard;
}

Artefact merge_shards(const std::vector<std::string>& paths, Trust trust) {
  std::optional<ArtefactShard> first;
  std::vector<std::string> found;  // the file of every shard
  Artefact merged;
  for (const std::string& path : paths) {
    ArtefactShard shard = read_shard(path, trust);
    if (!first) {
      first = shard;
      merged = shard.artefact;
      merged.layers.assign(static_cast<std::size_t>(shard.num_layers), {});
      found.resize(static_cast<std::size_t>(shard.shard.count));
    } else if (const std::string what = difference(shard, *first); !what.empty()) {
      throw InputError("{}: is a shard of another calibration: {}", path, what);
    }
    std::string& file = found[static_cast<std::size_t>(shard.shard.index)];
    if (!file.empty()) {
      throw InputError("{}: is shard {}, and so is {}", path, shard.shard.index + 1, file);
    }
    file = path;
    const std::vector<int> layers = layers_of(shard.shard, shard.num_layers);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      merged.layers[static_cast<std::size_t>(layers[i])] = std::move(shard.artefact.layers[i]);
    }
    merged.rotations.merge(shard.artefact.rotations);
    merged.sketches.merge(shard.artefact.sketches);
    merged.provenance.utc_time = std::max(merged.provenance.utc_time, shard.artefact.provenance.utc_time);
  }
  const auto missing = std::find(found.begin(), found.end(), "");
  if (missing != found.end()) {
    throw InputError("{}: is one of {} shards, and shard {} is missing", paths.front(), found.size(),
                     missing - found.begin() + 1);
  }
  return merged;
}

}  // namespace tq
