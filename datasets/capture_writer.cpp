#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/half.h"
#include "datasets/atomic_file.h"
#include "datasets/capture.h"
#include "datasets/capture_format.h"
#include "datasets/hdf5.h"

namespace tq {
namespace {

using namespace capture_format;

// Tokens in a chunk: at head_dim 128 and 2 bytes an element 64 KiB, and both a whole read and a single row
// are cheap.
constexpr hsize_t kChunkTokens = 256;
// Metadata is written rarely and in small pieces.
constexpr hsize_t kChunkIndices = 16384;

void validate(const CaptureSpec& spec) {
  if (spec.head_dims.empty() || spec.head_dims.size() > static_cast<std::size_t>(kMaxLayers)) {
    throw UsageError("a capture has 1 to {} layers, not {}", kMaxLayers, spec.head_dims.size());
  }
  for (const int head_dim : spec.head_dims) {
    if (head_dim < 1 || head_dim > kMaxHeadDim) {
      throw UsageError("a capture's head_dim is 1 to {}, not {}", kMaxHeadDim, head_dim);
    }
  }
  if (spec.num_kv_heads < 1 || spec.num_q_heads < spec.num_kv_heads || spec.num_q_heads > kMaxHeads ||
      spec.num_q_heads % spec.num_kv_heads != 0) {
    throw UsageError("{} query heads do not share {} KV heads evenly", spec.num_q_heads, spec.num_kv_heads);
  }
  if (spec.key_basis != "post_rope" && spec.key_basis != "pre_rope") {
    throw UsageError("key_basis '{}' is unknown; choose one of: post_rope, pre_rope", spec.key_basis);
  }
  if (spec.deflate_level < 0 || spec.deflate_level > 9) {
    throw UsageError("deflate level {} is out of range: 0 to 9", spec.deflate_level);
  }
}

// A dataset that grows along its first axis.
struct Growing {
  hdf5::Object dataset;
  std::size_t rows = 0;
};

}  // namespace

struct CaptureWriter::State {
  CaptureSpec spec;
  AtomicFile target;
  hdf5::File file;
  std::vector<hdf5::Object> layers;
  hdf5::Object tokens;
  std::map<std::pair<int, Tensor>, Growing> tensors;
  Growing positions, sequence_ids, query_positions, query_sequence_ids;
  std::vector<std::uint16_t> narrow;
  std::vector<double> wide;

  State(const std::string& path, CaptureSpec initial);
  Growing create(const hdf5::Object& parent, std::string_view name, hid_t type, std::vector<hsize_t> row,
                 hsize_t chunk_rows) const;
  void extend(Growing& growing, hid_t memory_type, std::size_t rows, const void* data);
  void append_indices(Growing& growing, std::string_view name, std::span<const std::int32_t> values);
  const void* stored_form(std::span<const float> values);
};

CaptureWriter::State::State(const std::string& path, CaptureSpec initial)
    : spec((validate(initial), std::move(initial))),
      target(path),
      file(hdf5::create_for_writing(target.temporary(), path)) {
  const hdf5::Object& root = file.root();
  hdf5::write_attribute(root, "format", kFormat);
  hdf5::write_attribute(root, "format_version", kVersion);
  hdf5::write_attribute(root, "model", spec.model);
  hdf5::write_attribute(root, "description", spec.description);
  hdf5::write_attribute(root, "num_layers", static_cast<int>(spec.head_dims.size()));
  hdf5::write_attribute(root, "num_q_heads", spec.num_q_heads);
  hdf5::write_attribute(root, "num_kv_heads", spec.num_kv_heads);
  const bool one_head_dim = std::all_of(spec.head_dims.begin(), spec.head_dims.end(),
                                        [&](int d) { return d == spec.head_dims[0]; });
  if (one_head_dim) hdf5::write_attribute(root, "head_dim", spec.head_dims[0]);
  hdf5::write_attribute(root, "key_basis", spec.key_basis);
  hdf5::write_attribute(root, "axis_order", "tokens,heads,head_dim");
  hdf5::write_attribute(root, "source_dtype", spec.source_dtype);
  if (spec.rope_theta) hdf5::write_attribute(root, "rope_theta", *spec.rope_theta);
  if (spec.softmax_scale) hdf5::write_attribute(root, "softmax_scale", *spec.softmax_scale);
  const hdf5::Object parent = hdf5::create_group(root, "layers");
  for (std::size_t i = 0; i < spec.head_dims.size(); ++i) {
    layers.push_back(hdf5::create_group(parent, layer_name(static_cast<int>(i))));
  }
  tokens = hdf5::create_group(root, "tokens");
}

// `row` is the shape below the token axis; a chunk holds one head.
Growing CaptureWriter::State::create(const hdf5::Object& parent, std::string_view name, hid_t type,
                                     std::vector<hsize_t> row, hsize_t chunk_rows) const {
  std::vector<hsize_t> extents(row), limits(row), chunk(row);
  extents.insert(extents.begin(), 0);
  limits.insert(limits.begin(), H5S_UNLIMITED);
  chunk.insert(chunk.begin(), chunk_rows);
  if (chunk.size() == 3) chunk[1] = 1;
  const hdf5::Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), limits.data()),
                           H5Sclose);
  const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data());
  if (spec.deflate_level > 0) {
    H5Pset_shuffle(creation.get());
    H5Pset_deflate(creation.get(), static_cast<unsigned>(spec.deflate_level));
  }
  H5Pset_fletcher32(creation.get());
  H5Pset_obj_track_times(creation.get(), false);
  // Every chunk is written by someone; filling it first would only cost.
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  const hdf5::Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  // One unfinished chunk a head: appending in small pieces must not deflate a chunk twice.
  const std::size_t heads = row.empty() ? 1 : row[0];
  std::size_t chunk_bytes = H5Tget_size(type);
  for (const hsize_t size : chunk) chunk_bytes *= size;
  H5Pset_chunk_cache(access.get(), 10 * heads + 1, (heads + 1) * chunk_bytes, 1.0);
  hdf5::Handle dataset(H5Dcreate2(parent.id(), std::string(name).c_str(), type, space.get(), H5P_DEFAULT,
                                  creation.get(), access.get()),
                       H5Dclose);
  hdf5::Object object(std::move(dataset), parent.file(), fmt::format("{}/{}", parent.name(), name));
  if (!object)
    throw SystemError("{}: cannot create the dataset ({})", object.where(), hdf5::take_error_stack());
  return {std::move(object), 0};
}

void CaptureWriter::State::extend(Growing& growing, hid_t memory_type, std::size_t rows, const void* data) {
  const hid_t dataset = growing.dataset.id();
  std::vector<hsize_t> extents;
  for (const std::size_t extent : hdf5::extents_of(growing.dataset)) extents.push_back(extent);
  std::vector<hsize_t> start(extents.size(), 0), count(extents);
  start[0] = growing.rows;
  count[0] = rows;
  extents[0] = growing.rows + rows;
  bool ok = H5Dset_extent(dataset, extents.data()) >= 0;
  const hdf5::Handle space(H5Dget_space(dataset), H5Sclose);
  const hdf5::Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
                            H5Sclose);
  ok = ok &&
       H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) >= 0;
  ok = ok && H5Dwrite(dataset, memory_type, memory.get(), space.get(), H5P_DEFAULT, data) >= 0;
  if (!ok) throw SystemError("{}: cannot write ({})", growing.dataset.where(), hdf5::take_error_stack());
  growing.rows += rows;
}

// The values in the storage's type, native byte order.
const void* CaptureWriter::State::stored_form(std::span<const float> values) {
  switch (spec.storage) {
    case ElementType::float16:
      narrow.resize(values.size());
      float_to_half(values.data(), narrow.data(), values.size());
      return narrow.data();
    case ElementType::bfloat16:
      narrow.resize(values.size());
      float_to_bfloat16(values.data(), narrow.data(), values.size());
      return narrow.data();
    case ElementType::float32:
      return values.data();
    case ElementType::float64:
      wide.assign(values.begin(), values.end());
      return wide.data();
  }
  return nullptr;
}

void CaptureWriter::State::append_indices(Growing& growing, std::string_view name,
                                          std::span<const std::int32_t> values) {
  if (!growing.dataset) growing = create(tokens, name, H5T_STD_I32LE, {}, kChunkIndices);
  if (!values.empty()) extend(growing, H5T_NATIVE_INT32, values.size(), values.data());
}

CaptureWriter::CaptureWriter(const std::string& path, CaptureSpec spec)
    : state_(std::make_unique<State>(path, std::move(spec))) {}
CaptureWriter::~CaptureWriter() = default;

void CaptureWriter::append(int layer, Tensor tensor, std::span<const float> rows) {
  const CaptureSpec& spec = state_->spec;
  if (layer < 0 || static_cast<std::size_t>(layer) >= spec.head_dims.size()) {
    throw UsageError("layer {} is out of range: the capture has {}", layer, spec.head_dims.size());
  }
  const std::size_t head_dim = static_cast<std::size_t>(spec.head_dims[static_cast<std::size_t>(layer)]);
  const std::size_t heads =
      static_cast<std::size_t>(tensor == Tensor::q ? spec.num_q_heads : spec.num_kv_heads);
  if (rows.size() % (heads * head_dim) != 0) {
    throw UsageError("{} values are not whole rows of {} heads x {}", rows.size(), heads, head_dim);
  }
  if (rows.empty()) return;
  Growing& growing = state_->tensors[{layer, tensor}];
  const hdf5::Handle type = hdf5_type(spec.storage);
  if (!growing.dataset) {
    growing = state_->create(state_->layers[static_cast<std::size_t>(layer)], name_of(tensor), type.get(),
                             {heads, head_dim}, kChunkTokens);
  }
  const hdf5::Handle memory(H5Tcopy(type.get()), H5Tclose);
  H5Tset_order(memory.get(), H5Tget_order(H5T_NATIVE_FLOAT));
  state_->extend(growing, memory.get(), rows.size() / (heads * head_dim), state_->stored_form(rows));
}

void CaptureWriter::append_tokens(std::span<const std::int32_t> positions,
                                  std::span<const std::int32_t> sequence_ids) {
  state_->append_indices(state_->positions, "position", positions);
  state_->append_indices(state_->sequence_ids, "sequence_id", sequence_ids);
}

void CaptureWriter::append_queries(std::span<const std::int32_t> positions,
                                   std::span<const std::int32_t> sequence_ids) {
  state_->append_indices(state_->query_positions, "q_position", positions);
  state_->append_indices(state_->query_sequence_ids, "q_sequence_id", sequence_ids);
}

void CaptureWriter::finish() {
  State& state = *state_;
  // Rows that every dataset of a kind must have: those of the first one.
  const auto agree = [](std::optional<std::size_t>& rows, const Growing& growing, std::string_view what) {
    if (!growing.dataset) return;
    if (!rows) rows = growing.rows;
    if (*rows != growing.rows) {
      throw UsageError("{} has {} {} where others have {}", growing.dataset.where(), growing.rows, what,
                       *rows);
    }
  };
  std::optional<std::size_t> tokens, queries;
  std::vector<bool> has_tensor(state.layers.size());
  for (const auto& [key, growing] : state.tensors) {
    has_tensor[static_cast<std::size_t>(key.first)] = true;
    key.second == Tensor::q ? agree(queries, growing, "query tokens") : agree(tokens, growing, "tokens");
  }
  for (std::size_t i = 0; i < has_tensor.size(); ++i) {
    if (!has_tensor[i]) throw UsageError("layer {} of the capture was never written", i);
  }
  agree(tokens, state.positions, "tokens");
  agree(tokens, state.sequence_ids, "tokens");
  agree(queries, state.query_positions, "query tokens");
  agree(queries, state.query_sequence_ids, "query tokens");

  state.file.flush();
  state.tensors.clear();
  for (Growing* indices :
       {&state.positions, &state.sequence_ids, &state.query_positions, &state.query_sequence_ids}) {
    *indices = {};
  }
  state.layers.clear();
  state.tokens = {};
  state.file.close();
  state.target.commit();
}

}  // namespace tq
