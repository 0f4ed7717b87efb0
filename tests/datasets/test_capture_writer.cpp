#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "datasets/capture.h"
#include "datasets/synthetic.h"

namespace {

const std::string kFolder = TQ_WRITTEN;

// The same formula is in check_written.py: whole numbers / 64 that every storage type holds exactly.
float value_at(int layer, tq::Tensor tensor, std::size_t row, std::size_t head, std::size_t i) {
  const std::size_t mixed =
      7 * static_cast<std::size_t>(layer) + 5 * static_cast<std::size_t>(tensor) + 3 * row + 11 * head + i;
  return (static_cast<float>(mixed % 255) - 127.0f) / 64.0f;
}

std::vector<float> rows_of(int layer, tq::Tensor tensor, std::size_t begin, std::size_t end,
                           std::size_t heads, std::size_t head_dim) {
  std::vector<float> rows;
  for (std::size_t row = begin; row < end; ++row) {
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < head_dim; ++i) rows.push_back(value_at(layer, tensor, row, head, i));
    }
  }
  return rows;
}

void write(const std::string& name, tq::ElementType storage, int deflate_level) {
  tq::CaptureSpec spec;
  spec.model = "formula";
  spec.description = "written by the test";
  spec.num_q_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dims = {16, 80};
  spec.storage = storage;
  spec.rope_theta = 1e4;
  spec.deflate_level = deflate_level;
  tq::CaptureWriter writer(kFolder + "/" + name, spec);
  for (int layer = 0; layer < 2; ++layer) {
    const std::size_t head_dim = layer == 0 ? 16 : 80;
    // Blocks that end inside a chunk, at its end and beyond it.
    std::size_t begin = 0;
    for (const std::size_t end : {1ul, 200ul, 256ul, 600ul}) {
      writer.append(layer, tq::Tensor::k, rows_of(layer, tq::Tensor::k, begin, end, 2, head_dim));
      writer.append(layer, tq::Tensor::v, rows_of(layer, tq::Tensor::v, begin, end, 2, head_dim));
      begin = end;
    }
    writer.append(layer, tq::Tensor::q, rows_of(layer, tq::Tensor::q, 0, 5, 4, head_dim));
  }
  std::vector<std::int32_t> positions(600), sequences(600);
  for (int i = 0; i < 600; ++i) {
    positions[static_cast<std::size_t>(i)] = i % 300;
    sequences[static_cast<std::size_t>(i)] = i / 300;
  }
  writer.append_tokens(positions, sequences);
  writer.append_queries(std::vector<std::int32_t>{1, 50, 299, 0, 299},
                        std::vector<std::int32_t>{0, 0, 0, 1, 1});
  CHECK(!std::filesystem::exists(kFolder + "/" + name));
  writer.finish();
  CHECK(std::filesystem::exists(kFolder + "/" + name));
}

}  // namespace

// check_written.py looks at the same files with h5py and NumPy.
TEST_CASE("written captures read back as they were given") {
  std::filesystem::remove_all(kFolder);
  std::filesystem::create_directories(kFolder);
  write("float16.kv.h5", tq::ElementType::float16, 4);
  write("bfloat16.kv.h5", tq::ElementType::bfloat16, 4);
  write("float32.kv.h5", tq::ElementType::float32, 9);
  write("float64.kv.h5", tq::ElementType::float64, 1);
  write("plain.kv.h5", tq::ElementType::float16, 0);
  for (const char* name : {"float16", "bfloat16", "float32", "float64", "plain"}) {
    CAPTURE(name);
    tq::CaptureReader reader(kFolder + "/" + name + ".kv.h5");
    CHECK(reader.rows(tq::Tensor::v) == 600);
    CHECK(reader.query_sequence_ids() == std::vector<std::int32_t>{0, 0, 0, 1, 1});
    std::vector<float> rows(2 * 600 * 80);
    reader.read(1, tq::Tensor::v, 0, 600, rows.data());
    bool same = true;
    for (std::size_t head = 0; head < 2; ++head) {
      for (std::size_t row = 0; row < 600; ++row) {
        for (std::size_t i = 0; i < 80; ++i) {
          same = same && rows[(head * 600 + row) * 80 + i] == value_at(1, tq::Tensor::v, row, head, i);
        }
      }
    }
    CHECK(same);
  }
}

TEST_CASE("a capture that is not finished leaves nothing behind") {
  const std::string folder = kFolder + "/unfinished";
  std::filesystem::create_directories(folder);
  tq::CaptureSpec spec;
  spec.num_q_heads = spec.num_kv_heads = 1;
  spec.head_dims = {4, 4};
  {
    tq::CaptureWriter writer(folder + "/x.kv.h5", spec);
    writer.append(0, tq::Tensor::k, std::vector<float>(8));
  }
  CHECK(std::filesystem::is_empty(folder));
  {
    tq::CaptureWriter writer(folder + "/x.kv.h5", spec);
    writer.append(0, tq::Tensor::k, std::vector<float>(8));
    CHECK_THROWS_WITH_AS(writer.finish(), "layer 1 of the capture was never written", tq::UsageError);
    writer.append(1, tq::Tensor::k, std::vector<float>(12));
    CHECK_THROWS_AS(writer.finish(), tq::UsageError);
    CHECK_THROWS_AS(writer.append(0, tq::Tensor::k, std::vector<float>(3)), tq::UsageError);
    CHECK_THROWS_AS(writer.append(2, tq::Tensor::k, std::vector<float>(4)), tq::UsageError);
  }
  CHECK(std::filesystem::is_empty(folder));
}

TEST_CASE("a synthetic capture holds the generator's rows, whatever the storage and the blocks") {
  tq::SyntheticCapture spec;
  spec.rows.head_dim = 24;
  spec.num_layers = 2;
  spec.num_kv_heads = 2;
  spec.num_q_heads = 4;
  spec.tokens = 1500;
  spec.query_tokens = 10;
  spec.sequence_length = 1000;
  spec.seed = 5;
  spec.storage = tq::ElementType::float32;
  const std::string path = kFolder + "/synthetic.kv.h5";
  std::filesystem::create_directories(kFolder);
  tq::write_synthetic_capture(path, spec);
  tq::CaptureReader reader(path);
  CHECK(reader.info().num_layers == 2);
  CHECK(reader.query_positions().back() == 499);
  CHECK(reader.query_sequence_ids().back() == 1);
  CHECK(reader.query_positions().front() == 149);
  std::vector<float> expected(1500 * 2 * 24), read(expected.size());
  tq::SyntheticRows(spec.rows, 5, 4 * 1 + static_cast<int>(tq::Tensor::v)).next(1500 * 2, expected.data());
  reader.read(1, tq::Tensor::v, 0, 1500, read.data());
  bool same = true;
  for (std::size_t row = 0; row < 1500; ++row) {
    for (std::size_t head = 0; head < 2; ++head) {
      for (std::size_t i = 0; i < 24; ++i) {
        same = same && read[(head * 1500 + row) * 24 + i] == expected[(row * 2 + head) * 24 + i];
      }
    }
  }
  CHECK(same);
  spec.query_tokens = 1501;
  CHECK_THROWS_AS(tq::write_synthetic_capture(path, spec), tq::UsageError);
}
