#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "datasets/capture.h"
#include "datasets/capture_format.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

using tq::CaptureReader;
using tq::CaptureWriter;
using tq::ElementType;
using tq::Tensor;
using tq::test::golden_path;

namespace {

constexpr int kHeadDims[] = {16, 24};
constexpr std::size_t kTokens = 9, kQueries = 3, kKvHeads = 1, kQHeads = 2;
constexpr struct {
  ElementType type;
  const char* name;
} kStorages[] = {{ElementType::float16, "float16"},
                 {ElementType::bfloat16, "bfloat16"},
                 {ElementType::float32, "float32"},
                 {ElementType::float64, "float64"}};

// [rows][heads][head_dim] of numbers that all four element types hold.
std::vector<float> rows_of(int layer, Tensor tensor) {
  const bool query = tensor == Tensor::q;
  tq::test::ExactNumbers numbers(static_cast<std::uint64_t>(10 * layer + static_cast<int>(tensor)));
  std::vector<float> rows((query ? kQueries * kQHeads : kTokens * kKvHeads) *
                          static_cast<std::size_t>(kHeadDims[layer]));
  for (float& value : rows) value = static_cast<float>(static_cast<int>(numbers.bits64() % 255) - 127) / 64;
  return rows;
}

const std::vector<std::int32_t> kPositions{0, 1, 2, 3, 4, 5, 0, 1, 2}, kSequences{0, 0, 0, 0, 0, 0, 1, 1, 1},
    kQueryPositions{1, 5, 2}, kQuerySequences{0, 0, 1};

void write_capture(const std::string& path, ElementType storage) {
  tq::CaptureSpec spec;
  spec.model = "golden";
  spec.description = "of whole numbers";
  spec.num_q_heads = kQHeads;
  spec.num_kv_heads = kKvHeads;
  spec.head_dims = {kHeadDims[0], kHeadDims[1]};
  spec.storage = storage;
  spec.rope_theta = 1e6;
  spec.softmax_scale = 0.25;
  CaptureWriter writer(path, spec);
  for (int layer = 0; layer < 2; ++layer) {
    for (const Tensor tensor : {Tensor::k, Tensor::v, Tensor::q})
      writer.append(layer, tensor, rows_of(layer, tensor));
  }
  writer.append_tokens(kPositions, kSequences);
  writer.append_queries(kQueryPositions, kQuerySequences);
  writer.finish();
}

void check_read(const std::string& path) {
  CaptureReader reader(path);
  const tq::CaptureInfo& info = reader.info();
  CHECK(info.model == "golden");
  CHECK(info.description == "of whole numbers");
  CHECK(info.key_basis == "post_rope");
  CHECK(info.rope_theta == 1e6);
  CHECK(info.softmax_scale == 0.25);
  CHECK(info.tokens == kTokens);
  CHECK(reader.query_positions() == kQueryPositions);
  CHECK(reader.query_sequence_ids() == kQuerySequences);
  std::vector<std::int32_t> positions(kTokens), sequences(kTokens);
  reader.read_positions(0, kTokens, positions.data());
  reader.read_sequence_ids(0, kTokens, sequences.data());
  CHECK(positions == kPositions);
  CHECK(sequences == kSequences);
  for (int layer = 0; layer < 2; ++layer) {
    const auto d = static_cast<std::size_t>(kHeadDims[layer]);
    for (const Tensor tensor : {Tensor::k, Tensor::v, Tensor::q}) {
      const std::vector<float> expected = rows_of(layer, tensor);
      const std::size_t rows = reader.rows(tensor), heads = static_cast<std::size_t>(reader.heads(tensor));
      std::vector<float> read(expected.size());
      reader.read(layer, tensor, 0, rows, read.data());
      bool same = true;
      for (std::size_t i = 0; i < read.size(); ++i) {
        const std::size_t head = i / (rows * d), row = i / d % rows;
        same &= read[i] == expected[(row * heads + head) * d + i % d];
      }
      CHECK(same);
    }
  }
}

}  // namespace

// check_written.py compares what is written here with the frozen file of today's version, item by item:
// HDF5's own bytes are the library's.
TEST_CASE("frozen: captures of every version are read") {
  std::filesystem::create_directories(TQ_WRITTEN);
  for (const auto& [type, name] : kStorages) {
    CAPTURE(name);
    const std::string written = fmt::format("{}/golden_{}.kv.h5", TQ_WRITTEN, name);
    write_capture(written, type);
    tq::test::add_golden_file(fmt::format("capture_version_{}_{}.kv.h5", tq::capture_format::kVersion, name),
                              tq::test::read_text(written));
    for (int version = 1; version <= tq::capture_format::kVersion; ++version) {
      CAPTURE(version);
      check_read(golden_path(fmt::format("capture_version_{}_{}.kv.h5", version, name)));
    }
  }
}
