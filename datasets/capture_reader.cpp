#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/half.h"
#include "datasets/box_reader.h"
#include "datasets/capture.h"
#include "datasets/capture_format.h"
#include "datasets/input_tree.h"

namespace tq {
namespace {

using namespace capture_format;

// A tensor over this is not a capture of any model; the check also keeps products of extents far from
// overflow.
constexpr std::size_t kMaxTensorBytes = std::size_t{1} << 44;
// Inflated chunks that one open dataset keeps.
constexpr std::size_t kChunkCacheBytes = std::size_t{64} << 20;
// What read() of preferred_rows() may fill, in bytes of float32, and what it should at least be worth a call.
constexpr std::size_t kMaxPreferredBytes = std::size_t{512} << 20;
constexpr std::size_t kMinPreferredBytes = std::size_t{4} << 20;
// Metadata is looked through in blocks of this many tokens.
constexpr std::size_t kIndexBlock = 65536;

enum class AxisOrder { tokens_heads, heads_tokens, batch_heads_tokens };

AxisOrder parse_axis_order(const hdf5::InputGroup& root, const std::string& text) {
  if (text == "tokens,heads,head_dim") return AxisOrder::tokens_heads;
  if (text == "heads,tokens,head_dim") return AxisOrder::heads_tokens;
  if (text == "batch,heads,tokens,head_dim") return AxisOrder::batch_heads_tokens;
  throw InputError(
      "{}: axis_order '{}' is unknown; it must be 'tokens,heads,head_dim', 'heads,tokens,head_dim' or "
      "'batch,heads,tokens,head_dim'",
      root.where(), hdf5::one_line(text));
}

// The extents of a tensor, whatever their order in the file. Rows are batch x tokens.
struct Shape {
  std::size_t batch = 1, tokens = 0, heads = 0, head_dim = 0;
  std::size_t rows() const { return batch * tokens; }
};

Shape shape_from(AxisOrder order, const hdf5::Extents& e) {
  switch (order) {
    case AxisOrder::tokens_heads:
      return {1, e[0], e[1], e[2]};
    case AxisOrder::heads_tokens:
      return {1, e[1], e[0], e[2]};
    case AxisOrder::batch_heads_tokens:
      return {e[0], e[2], e[1], e[3]};
  }
  return {};
}

// The inverse of shape_from, for selections.
hdf5::Extents in_file_order(AxisOrder order, const Shape& s) {
  switch (order) {
    case AxisOrder::tokens_heads:
      return {s.tokens, s.heads, s.head_dim};
    case AxisOrder::heads_tokens:
      return {s.heads, s.tokens, s.head_dim};
    case AxisOrder::batch_heads_tokens:
      return {s.batch, s.heads, s.tokens, s.head_dim};
  }
  return {};
}

struct TensorMeta {
  hdf5::InputDataset dataset;  // described once: a second answer could differ
  Shape shape;
  Shape chunk;  // all 0 where the dataset is not chunked
  ElementType type{};
};

// uint16 may be bfloat16 that a library without such a type stored; nothing else is guessed at.
ElementType element_type_of(const hdf5::InputDataset& dataset) {
  switch (dataset.info().kind) {
    case hdf5::ElementKind::float16:
      return ElementType::float16;
    case hdf5::ElementKind::bfloat16:
      return ElementType::bfloat16;
    case hdf5::ElementKind::float32:
      return ElementType::float32;
    case hdf5::ElementKind::float64:
      return ElementType::float64;
    case hdf5::ElementKind::uint16:
      if (dataset.has_attribute("dtype") && dataset.string_attribute("dtype") == "bfloat16") {
        return ElementType::bfloat16;
      }
      throw InputError("{}: holds uint16; where these are bfloat16, set its attribute dtype = \"bfloat16\"",
                       dataset.where());
    default:
      throw InputError("{}: must hold float16, bfloat16, float32 or float64 elements", dataset.where());
  }
}

int read_count(const hdf5::InputGroup& root, const std::string& name, int max) {
  const std::int64_t value = root.int64_attribute(name);
  if (value < 1 || value > max) {
    throw InputError("{}: attribute '{}' is {}; it must be 1 to {}", root.where(), name, value, max);
  }
  return static_cast<int>(value);
}

std::string read_text(const hdf5::InputGroup& root, const std::string& name) {
  return root.has_attribute(name) ? root.string_attribute(name) : std::string();
}

std::optional<double> read_positive(const hdf5::InputGroup& root, const std::string& name) {
  if (!root.has_attribute(name)) return std::nullopt;
  const double value = root.double_attribute(name);
  if (!std::isfinite(value) || value <= 0) {
    throw InputError("{}: attribute '{}' is {}; it must be positive and finite", root.where(), name, value);
  }
  return value;
}

// Rows that tensors of one kind must share; remembers who said so first.
struct AgreedRows {
  std::optional<std::size_t> batch, tokens;
  std::string first;

  void agree(const hdf5::InputDataset& dataset, const Shape& shape) {
    if (!tokens) {
      batch = shape.batch;
      tokens = shape.tokens;
      first = dataset.name();
    } else if (*batch != shape.batch || *tokens != shape.tokens) {
      throw InputError("{}: has {} tokens where {} has {}", dataset.where(), shape.rows(), first,
                       *batch * *tokens);
    }
  }
  std::size_t rows() const { return tokens ? *batch * *tokens : 0; }
};

void widen(ElementType type, const std::byte* raw, std::size_t count, float* out) {
  switch (type) {
    case ElementType::float16:
      half_to_float(reinterpret_cast<const std::uint16_t*>(raw), out, count);
      break;
    case ElementType::bfloat16:
      bfloat16_to_float(reinterpret_cast<const std::uint16_t*>(raw), out, count);
      break;
    case ElementType::float32:
      std::copy_n(reinterpret_cast<const float*>(raw), count, out);
      break;
    case ElementType::float64:
      std::copy_n(reinterpret_cast<const double*>(raw), count, out);
      break;
  }
}

bool all_finite(const float* values, std::size_t count) {
  // Without a branch in it the loop vectorises.
  std::uint32_t special = 0;
  for (std::size_t i = 0; i < count; ++i) {
    special |= (std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return special == 0;
}

}  // namespace

struct CaptureReader::State {
  struct Layer {
    std::array<std::optional<TensorMeta>, kTensors.size()> tensors;
  };
  std::string path;
  hdf5::InputGroup root;
  AxisOrder order{};
  CaptureInfo info;
  std::vector<Layer> layers;
  AgreedRows token_rows, query_rows;
  std::optional<hdf5::BoxReader> positions, sequence_ids;  // where the capture has them
  std::vector<std::int32_t> query_positions, query_sequence_ids;
  int open_layer = -1;
  std::array<std::optional<hdf5::BoxReader>, kTensors.size()> open;
  std::vector<std::byte> raw;

  State(const std::string& capture, Trust trust);
  void read_attributes();
  void read_layers();
  void read_layer(const hdf5::InputGroup& group, int index, Layer& layer, LayerInfo& description);
  TensorMeta read_meta(const hdf5::InputDataset& dataset, Tensor tensor) const;
  void open_tokens();
  std::optional<hdf5::BoxReader> open_indices(const hdf5::InputGroup& group, const std::string& name,
                                              std::size_t rows) const;
  void read_indices(hdf5::BoxReader& indices, std::size_t begin, std::size_t count, std::int32_t* out) const;
  void positions_of(std::size_t begin, std::size_t count, std::int32_t* out);
  void sequence_ids_of(std::size_t begin, std::size_t count, std::int32_t* out);
  void find_query_sequences();
  const TensorMeta& meta(int layer, Tensor tensor) const;
  hdf5::BoxReader& boxes(int layer, Tensor tensor);
  void read_batch(hdf5::BoxReader& boxes, const TensorMeta& meta, const Shape& start, const Shape& count);
  [[noreturn]] void fail_not_finite(const TensorMeta& meta, int layer, Tensor tensor, std::size_t head,
                                    std::size_t begin, std::span<const float> rows,
                                    std::size_t head_dim) const;
};

CaptureReader::State::State(const std::string& capture, Trust trust)
    : path(capture), root(hdf5::open_input(capture, trust)) {
  read_attributes();
  read_layers();
  open_tokens();
}

void CaptureReader::State::read_attributes() {
  if (!root.has_attribute("format")) {
    throw InputError("{}: has no attribute 'format'; a capture has format = \"{}\"", root.where(), kFormat);
  }
  if (const std::string format = root.string_attribute("format"); format != kFormat) {
    throw InputError("{}: format '{}' is not a capture's; it must be '{}'", root.where(),
                     hdf5::one_line(format), kFormat);
  }
  if (const std::int64_t version = root.int64_attribute("format_version"); version != kVersion) {
    throw InputError(
        "{}: format_version {} is unknown; this program reads version {}: convert the file or update",
        root.where(), version, kVersion);
  }
  info.model = read_text(root, "model");
  info.description = read_text(root, "description");
  info.source_dtype = read_text(root, "source_dtype");
  info.axis_order = read_text(root, "axis_order");
  if (info.axis_order.empty()) info.axis_order = "tokens,heads,head_dim";
  order = parse_axis_order(root, info.axis_order);
  info.key_basis = root.string_attribute("key_basis");
  if (info.key_basis != "post_rope" && info.key_basis != "pre_rope") {
    throw InputError("{}: key_basis '{}' is unknown; it must be 'post_rope' or 'pre_rope'", root.where(),
                     hdf5::one_line(info.key_basis));
  }
  info.num_layers = read_count(root, "num_layers", kMaxLayers);
  info.num_q_heads = read_count(root, "num_q_heads", kMaxHeads);
  info.num_kv_heads = read_count(root, "num_kv_heads", kMaxHeads);
  if (info.num_q_heads % info.num_kv_heads != 0) {
    throw InputError("{}: num_q_heads {} is not a multiple of num_kv_heads {}", root.where(),
                     info.num_q_heads, info.num_kv_heads);
  }
  info.rope_theta = read_positive(root, "rope_theta");
  info.softmax_scale = read_positive(root, "softmax_scale");
}

void CaptureReader::State::read_layers() {
  const hdf5::InputGroup parent = root.group("layers");
  const std::vector<std::string> names = parent.child_names();
  if (names.size() != static_cast<std::size_t>(info.num_layers)) {
    throw InputError("{}: holds {} layers where num_layers is {}", parent.where(), names.size(),
                     info.num_layers);
  }
  std::optional<int> head_dim;
  if (root.has_attribute("head_dim")) head_dim = read_count(root, "head_dim", kMaxHeadDim);
  for (int i = 0; i < info.num_layers; ++i) {
    if (names[static_cast<std::size_t>(i)] != layer_name(i)) {
      throw InputError("{}: has no layer '{}'; layers are numbered 000 to {}", parent.where(), layer_name(i),
                       layer_name(info.num_layers - 1));
    }
    const hdf5::InputGroup group = parent.group(layer_name(i));
    read_layer(group, i, layers.emplace_back(), info.layers.emplace_back());
    if (head_dim && info.layers.back().head_dim != *head_dim) {
      throw InputError("{}: has head_dim {} where the attribute says {}", group.where(),
                       info.layers.back().head_dim, *head_dim);
    }
  }
  info.tokens = token_rows.rows();
  info.query_tokens = query_rows.rows();
}

void CaptureReader::State::read_layer(const hdf5::InputGroup& group, int index, Layer& layer,
                                      LayerInfo& description) {
  const std::array<std::pair<bool*, ElementType*>, kTensors.size()> fields{{
      {&description.has_k, &description.k_type},
      {&description.has_v, &description.v_type},
      {&description.has_q, &description.q_type},
      {&description.has_k_residual, &description.k_residual_type},
  }};
  std::string first;
  for (const Tensor tensor : kTensors) {
    const std::string name(name_of(tensor));
    if (!group.has_child(name)) continue;
    const hdf5::InputDataset dataset = group.dataset(name, kMaxTensorBytes);
    const TensorMeta found = read_meta(dataset, tensor);
    if (first.empty()) {
      first = dataset.name();
      description.head_dim = static_cast<int>(found.shape.head_dim);
    } else if (found.shape.head_dim != static_cast<std::size_t>(description.head_dim)) {
      throw InputError("{}: has head_dim {} where {} has {}", dataset.where(), found.shape.head_dim, first,
                       description.head_dim);
    }
    (tensor == Tensor::q ? query_rows : token_rows).agree(dataset, found.shape);
    const auto [has, type] = fields[static_cast<std::size_t>(tensor)];
    *has = true;
    *type = found.type;
    description.stored_bytes += dataset.info().stored_bytes;
    layer.tensors[static_cast<std::size_t>(tensor)] = found;
  }
  if (first.empty()) {
    throw InputError("{}: layer {} holds none of k, v, q and k_residual", group.where(), index);
  }
}

TensorMeta CaptureReader::State::read_meta(const hdf5::InputDataset& dataset, Tensor tensor) const {
  const hdf5::Extents& extents = dataset.info().extents;
  const std::size_t rank = order == AxisOrder::batch_heads_tokens ? 4 : 3;
  if (extents.size() != rank) {
    throw InputError("{}: has {} axes; axis_order '{}' has {}", dataset.where(), extents.size(),
                     info.axis_order, rank);
  }
  TensorMeta meta{dataset, shape_from(order, extents), {0, 0, 0, 0}, element_type_of(dataset)};
  const std::size_t heads =
      static_cast<std::size_t>(tensor == Tensor::q ? info.num_q_heads : info.num_kv_heads);
  if (meta.shape.heads != heads) {
    throw InputError("{}: has {} heads in its shape {} with axis_order '{}'; {} is {}", dataset.where(),
                     meta.shape.heads, hdf5::to_string(extents), info.axis_order,
                     tensor == Tensor::q ? "num_q_heads" : "num_kv_heads", heads);
  }
  if (meta.shape.head_dim < 1 || meta.shape.head_dim > static_cast<std::size_t>(kMaxHeadDim)) {
    throw InputError("{}: has head_dim {}; it must be 1 to {}", dataset.where(), meta.shape.head_dim,
                     kMaxHeadDim);
  }
  // The storage check bounds neither factor where the other is 0.
  const std::size_t max_rows = tensor == Tensor::q ? kMaxQueryRows : kMaxRows;
  if (meta.shape.batch > max_rows || meta.shape.tokens > max_rows || meta.shape.rows() > max_rows) {
    throw InputError("{}: has {} x {} tokens; at most {} are read", dataset.where(), meta.shape.batch,
                     meta.shape.tokens, max_rows);
  }
  if (meta.shape.rows() == 0) throw InputError("{}: has no tokens", dataset.where());
  const hdf5::Extents& chunk = dataset.info().chunk;
  if (!chunk.empty()) meta.chunk = shape_from(order, chunk);
  return meta;
}

void CaptureReader::State::open_tokens() {
  std::optional<hdf5::BoxReader> query_positions_set, query_sequences_set;
  if (root.has_child("tokens")) {
    const hdf5::InputGroup group = root.group("tokens");
    positions = open_indices(group, "position", info.tokens);
    sequence_ids = open_indices(group, "sequence_id", info.tokens);
    query_positions_set = open_indices(group, "q_position", info.query_tokens);
    query_sequences_set = open_indices(group, "q_sequence_id", info.query_tokens);
  }
  if (info.query_tokens == 0) return;
  query_positions.resize(info.query_tokens);
  query_sequence_ids.resize(info.query_tokens);
  // With a query for every token, and in the absence of other word, row i of q is the query of token i.
  const bool one_each =
      info.tokens == 0 || (query_rows.batch == token_rows.batch && query_rows.tokens == token_rows.tokens);
  if (query_positions_set) {
    read_indices(*query_positions_set, 0, info.query_tokens, query_positions.data());
  } else if (one_each) {
    positions_of(0, info.query_tokens, query_positions.data());
  } else {
    throw InputError(
        "{}: /tokens/q_position: is missing; it says which of the {} tokens the {} queries belong to",
        hdf5::one_line(path), info.tokens, info.query_tokens);
  }
  if (query_sequences_set) {
    read_indices(*query_sequences_set, 0, info.query_tokens, query_sequence_ids.data());
  } else if (one_each && !query_positions_set) {
    sequence_ids_of(0, info.query_tokens, query_sequence_ids.data());
  } else {
    find_query_sequences();
  }
}

// Opens one of /tokens and looks at all of it: a bad entry is refused before the capture is used.
std::optional<hdf5::BoxReader> CaptureReader::State::open_indices(const hdf5::InputGroup& group,
                                                                  const std::string& name,
                                                                  std::size_t rows) const {
  if (!group.has_child(name)) return std::nullopt;
  const hdf5::InputDataset dataset = group.dataset(name, kMaxRows * sizeof(std::int32_t));
  if (dataset.info().kind != hdf5::ElementKind::int32) {
    throw InputError("{}: must hold int32 elements", dataset.where());
  }
  if (const hdf5::Extents& extents = dataset.info().extents; extents != hdf5::Extents{rows}) {
    throw InputError("{}: has shape {} where the capture's tensors have {} such tokens", dataset.where(),
                     hdf5::to_string(extents), rows);
  }
  hdf5::BoxReader indices(dataset, kChunkCacheBytes);
  std::vector<std::int32_t> block(std::min(rows, kIndexBlock));
  for (std::size_t begin = 0; begin < rows; begin += kIndexBlock) {
    read_indices(indices, begin, std::min(kIndexBlock, rows - begin), block.data());
  }
  return indices;
}

void CaptureReader::State::read_indices(hdf5::BoxReader& indices, std::size_t begin, std::size_t count,
                                        std::int32_t* out) const {
  if (count == 0) return;
  indices.read({begin}, {count}, reinterpret_cast<std::byte*>(out));
  const std::int32_t* negative = std::find_if(out, out + count, [](std::int32_t value) { return value < 0; });
  if (negative != out + count) {
    throw InputError("{}: entry {} is {}; it must not be negative", indices.dataset().where(),
                     begin + static_cast<std::size_t>(negative - out), *negative);
  }
}

void CaptureReader::State::positions_of(std::size_t begin, std::size_t count, std::int32_t* out) {
  if (positions) return read_indices(*positions, begin, count, out);
  const std::size_t tokens = token_rows.tokens.value_or(query_rows.tokens.value_or(1));
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::int32_t>((begin + i) % tokens);
}

void CaptureReader::State::sequence_ids_of(std::size_t begin, std::size_t count, std::int32_t* out) {
  if (sequence_ids) return read_indices(*sequence_ids, begin, count, out);
  const std::size_t tokens = token_rows.tokens.value_or(query_rows.tokens.value_or(1));
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::int32_t>((begin + i) / tokens);
}

void CaptureReader::State::find_query_sequences() {
  // Position -> sequence of the tokens there.
  constexpr std::int32_t kNone = -1, kSeveral = -2;
  std::unordered_map<std::int32_t, std::int32_t> sequences;
  for (const std::int32_t position : query_positions) sequences.emplace(position, kNone);
  std::vector<std::int32_t> position_block(kIndexBlock), sequence_block(kIndexBlock);
  for (std::size_t begin = 0; begin < info.tokens; begin += kIndexBlock) {
    const std::size_t count = std::min(kIndexBlock, info.tokens - begin);
    positions_of(begin, count, position_block.data());
    sequence_ids_of(begin, count, sequence_block.data());
    for (std::size_t i = 0; i < count; ++i) {
      const auto found = sequences.find(position_block[i]);
      if (found != sequences.end()) found->second = found->second == kNone ? sequence_block[i] : kSeveral;
    }
  }
  for (std::size_t i = 0; i < query_positions.size(); ++i) {
    const std::int32_t sequence = info.tokens == 0 ? 0 : sequences.at(query_positions[i]);
    if (sequence < 0) {
      throw InputError(
          "{}: /tokens/q_position: query {} is at position {}, where {}; add /tokens/q_sequence_id",
          hdf5::one_line(path), i, query_positions[i],
          sequence == kNone ? "there is no token" : "there are several tokens");
    }
    query_sequence_ids[i] = sequence;
  }
}

const TensorMeta& CaptureReader::State::meta(int layer, Tensor tensor) const {
  if (layer < 0 || layer >= info.num_layers) {
    throw UsageError("{}: layer {} is out of range; the capture has {} layers", hdf5::one_line(path), layer,
                     info.num_layers);
  }
  const auto& found = layers[static_cast<std::size_t>(layer)].tensors[static_cast<std::size_t>(tensor)];
  if (!found) {
    throw InputError("{}: /layers/{}/{}: is missing", hdf5::one_line(path), layer_name(layer),
                     name_of(tensor));
  }
  return *found;
}

hdf5::BoxReader& CaptureReader::State::boxes(int layer, Tensor tensor) {
  if (layer != open_layer) {
    open = {};
    open_layer = layer;
  }
  std::optional<hdf5::BoxReader>& found = open[static_cast<std::size_t>(tensor)];
  if (!found) found.emplace(meta(layer, tensor).dataset, kChunkCacheBytes);
  return *found;
}

// A box of one batch entry into `raw`, in the file's axis order.
void CaptureReader::State::read_batch(hdf5::BoxReader& boxes, const TensorMeta& meta, const Shape& start,
                                      const Shape& count) {
  raw.resize(count.tokens * count.heads * count.head_dim * bytes_of(meta.type));
  boxes.read(in_file_order(order, start), in_file_order(order, count), raw.data());
}

void CaptureReader::State::fail_not_finite(const TensorMeta& meta, int layer, Tensor tensor, std::size_t head,
                                           std::size_t begin, std::span<const float> rows,
                                           std::size_t head_dim) const {
  const auto bad = std::find_if(rows.begin(), rows.end(), [](float value) { return !std::isfinite(value); });
  const std::size_t at = static_cast<std::size_t>(bad - rows.begin());
  throw InputError("{}: layer {}, tensor {}, head {}, token {} holds {} (element {}); leave such tokens out",
                   meta.dataset.where(), layer, name_of(tensor), head, begin + at / head_dim, *bad,
                   at % head_dim);
}

CaptureReader::CaptureReader(const std::string& path, Trust trust)
    : state_(std::make_unique<State>(path, trust)) {}
CaptureReader::~CaptureReader() = default;
CaptureReader::CaptureReader(CaptureReader&&) noexcept = default;
CaptureReader& CaptureReader::operator=(CaptureReader&&) noexcept = default;

const std::string& CaptureReader::path() const { return state_->path; }
const CaptureInfo& CaptureReader::info() const { return state_->info; }

int CaptureReader::heads(Tensor tensor) const {
  return tensor == Tensor::q ? state_->info.num_q_heads : state_->info.num_kv_heads;
}

std::size_t CaptureReader::rows(Tensor tensor) const {
  return tensor == Tensor::q ? state_->info.query_tokens : state_->info.tokens;
}

std::size_t CaptureReader::preferred_rows(int layer, Tensor tensor) const {
  const TensorMeta& meta = state_->meta(layer, tensor);
  const std::size_t row_bytes = meta.shape.heads * meta.shape.head_dim * sizeof(float);
  // Reads never cross from one batch entry into the next inside a chunk: a chunk that holds several entries
  // is read whole, one that holds a part of an entry is read with its like.
  std::size_t step = std::max<std::size_t>(std::min(meta.chunk.tokens, meta.shape.tokens), 1);
  if (meta.shape.batch > 1 && meta.shape.tokens % step != 0) step = meta.shape.tokens;
  if (meta.chunk.batch > 1) step = meta.shape.tokens * std::min(meta.chunk.batch, meta.shape.batch);
  const std::size_t steps = std::max<std::size_t>(kMinPreferredBytes / (step * row_bytes), 1);
  const std::size_t most = std::max<std::size_t>(kMaxPreferredBytes / row_bytes, 1);
  return std::min({step * steps, most, meta.shape.rows()});
}

void CaptureReader::read(int layer, Tensor tensor, std::size_t begin, std::size_t count, float* out) {
  State& state = *state_;
  const TensorMeta& meta = state.meta(layer, tensor);
  if (begin > meta.shape.rows() || count > meta.shape.rows() - begin) {
    throw UsageError("{}: rows {} to {} are out of range; /layers/{}/{} has {}", hdf5::one_line(state.path),
                     begin, begin + count, layer_name(layer), name_of(tensor), meta.shape.rows());
  }
  hdf5::BoxReader& boxes = state.boxes(layer, tensor);
  const std::size_t heads = meta.shape.heads, head_dim = meta.shape.head_dim;
  const std::size_t bytes = bytes_of(meta.type);
  for (std::size_t done = 0; done < count;) {
    const std::size_t batch = (begin + done) / meta.shape.tokens, token = (begin + done) % meta.shape.tokens;
    const std::size_t tokens = std::min(count - done, meta.shape.tokens - token);
    state.read_batch(boxes, meta, {batch, token, 0, 0}, {1, tokens, heads, head_dim});
    for (std::size_t head = 0; head < heads; ++head) {
      float* rows = out + (head * count + done) * head_dim;
      if (state.order == AxisOrder::tokens_heads) {
        for (std::size_t i = 0; i < tokens; ++i) {
          widen(meta.type, state.raw.data() + (i * heads + head) * head_dim * bytes, head_dim,
                rows + i * head_dim);
        }
      } else {
        widen(meta.type, state.raw.data() + head * tokens * head_dim * bytes, tokens * head_dim, rows);
      }
      if (!all_finite(rows, tokens * head_dim)) {
        state.fail_not_finite(meta, layer, tensor, head, begin + done, {rows, tokens * head_dim}, head_dim);
      }
    }
    done += tokens;
  }
}

void CaptureReader::read_positions(std::size_t begin, std::size_t count, std::int32_t* out) {
  state_->positions_of(begin, count, out);
}

void CaptureReader::read_sequence_ids(std::size_t begin, std::size_t count, std::int32_t* out) {
  state_->sequence_ids_of(begin, count, out);
}

const std::vector<std::int32_t>& CaptureReader::query_positions() const { return state_->query_positions; }
const std::vector<std::int32_t>& CaptureReader::query_sequence_ids() const {
  return state_->query_sequence_ids;
}

}  // namespace tq
