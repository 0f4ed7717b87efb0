#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "datasets/trust.h"

namespace tq {

enum class Tensor { k, v, q, k_residual };
enum class ElementType { float16, bfloat16, float32, float64 };

struct LayerInfo {
  int head_dim = 0;
  bool has_k = false, has_v = false, has_q = false, has_k_residual = false;
  ElementType k_type{}, v_type{}, q_type{}, k_residual_type{};
  std::size_t stored_bytes = 0;  // of all datasets of the layer, as stored
  friend bool operator==(const LayerInfo&, const LayerInfo&) = default;
};

// What a capture says of itself, checked against what it stores.
struct CaptureInfo {
  std::string model, description, key_basis, axis_order, source_dtype;
  int num_layers = 0, num_q_heads = 0, num_kv_heads = 0;
  std::optional<double> rope_theta, softmax_scale;
  std::size_t tokens = 0;        // key/value rows (batch x tokens in a batched layout)
  std::size_t query_tokens = 0;  // 0 without queries
  std::vector<LayerInfo> layers;
};

// Rows of keys, values and queries that can be read as often as asked, from one file or several. Used from
// one thread.
class Capture {
 public:
  virtual ~Capture() = default;

  virtual const std::string& path() const = 0;  // for messages
  virtual const CaptureInfo& info() const = 0;

  // The largest row count that divides reads into whole chunks, for streaming with few cache misses (>= 1).
  virtual std::size_t preferred_rows(int layer, Tensor tensor) const = 0;

  // Rows [begin, begin + count) of every head as float32: out is [heads][count][head_dim]. Throws InputError
  // at the first value that is not finite (layer, head, token are named) and when the storage is damaged.
  virtual void read(int layer, Tensor tensor, std::size_t begin, std::size_t count, float* out) = 0;

  // Per-token metadata; defaults where the capture has none: position = row (within its batch), sequence 0 (=
  // batch). Never negative.
  virtual void read_positions(std::size_t begin, std::size_t count, std::int32_t* out) = 0;
  virtual void read_sequence_ids(std::size_t begin, std::size_t count, std::int32_t* out) = 0;
  // Position and sequence of every query row. Without /tokens/q_position there must be a query for every
  // token, in the tokens' order. Without /tokens/q_sequence_id a query belongs to the sequence of the one
  // token with its position, which must then be unique.
  virtual const std::vector<std::int32_t>& query_positions() const = 0;
  virtual const std::vector<std::int32_t>& query_sequence_ids() const = 0;
};

// One file (`*.kv.h5`). It is hostile until checked: opening refuses, with an InputError of one line,
// whatever the format does not allow, and no dimension is trusted before it is checked against the storage.
class CaptureReader final : public Capture {
 public:
  explicit CaptureReader(const std::string& path, Trust trust = Trust::none);
  ~CaptureReader() override;
  CaptureReader(CaptureReader&&) noexcept;
  CaptureReader& operator=(CaptureReader&&) noexcept;

  const std::string& path() const override;
  const CaptureInfo& info() const override;

  // Heads of a tensor: num_kv_heads, or num_q_heads for q.
  int heads(Tensor tensor) const;
  // Rows of a tensor: tokens, or query_tokens for q.
  std::size_t rows(Tensor tensor) const;

  std::size_t preferred_rows(int layer, Tensor tensor) const override;
  void read(int layer, Tensor tensor, std::size_t begin, std::size_t count, float* out) override;
  void read_positions(std::size_t begin, std::size_t count, std::int32_t* out) override;
  void read_sequence_ids(std::size_t begin, std::size_t count, std::int32_t* out) override;
  const std::vector<std::int32_t>& query_positions() const override;
  const std::vector<std::int32_t>& query_sequence_ids() const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What a new capture starts from; layers' head_dim in order.
struct CaptureSpec {
  std::string model, description, key_basis = "post_rope", source_dtype = "float32";
  int num_q_heads = 0, num_kv_heads = 0;
  std::vector<int> head_dims;
  ElementType storage = ElementType::float16;
  std::optional<double> rope_theta, softmax_scale;
  int deflate_level = 4;  // 0: stored uncompressed
};

// Appends to a new capture, axis order "tokens,heads,head_dim", chunks (256, 1, head_dim), shuffle + deflate
// + fletcher32. The file appears under its name at finish() (datasets/atomic_file.h).
class CaptureWriter {
 public:
  CaptureWriter(const std::string& path, CaptureSpec spec);
  ~CaptureWriter();

  // rows: [count][heads][head_dim], appended to the tensor of one layer. Every layer must have the same
  // number of rows by finish(); tensors that were never appended to are left out.
  void append(int layer, Tensor tensor, std::span<const float> rows);
  // Per-token metadata, appended alike.
  void append_tokens(std::span<const std::int32_t> positions, std::span<const std::int32_t> sequence_ids);
  void append_queries(std::span<const std::int32_t> positions, std::span<const std::int32_t> sequence_ids);
  // Throws UsageError when row counts disagree.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tq
