#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "datasets/capture.h"
#include "tests/datasets/manifest.h"

namespace {

const std::string kFixtures = TQ_FIXTURES;
const std::map<std::string, tq::Tensor> kTensors{
    {"k", tq::Tensor::k}, {"v", tq::Tensor::v}, {"q", tq::Tensor::q}, {"k_residual", tq::Tensor::k_residual}};

std::vector<float> read_floats(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// The whole tensor, [head][row][head_dim], read `step` rows at a time.
std::vector<float> read_in_steps(tq::CaptureReader& reader, int layer, tq::Tensor tensor, std::size_t step) {
  const std::size_t heads = static_cast<std::size_t>(reader.heads(tensor)), rows = reader.rows(tensor);
  const std::size_t head_dim =
      static_cast<std::size_t>(reader.info().layers[static_cast<std::size_t>(layer)].head_dim);
  std::vector<float> all(heads * rows * head_dim), block;
  for (std::size_t begin = 0; begin < rows; begin += step) {
    const std::size_t count = std::min(step, rows - begin);
    block.assign(heads * count * head_dim, -1e9f);
    reader.read(layer, tensor, begin, count, block.data());
    for (std::size_t head = 0; head < heads; ++head) {
      std::copy_n(block.begin() + static_cast<std::ptrdiff_t>(head * count * head_dim), count * head_dim,
                  all.begin() + static_cast<std::ptrdiff_t>((head * rows + begin) * head_dim));
    }
  }
  return all;
}

void read_everything(tq::CaptureReader& reader) {
  for (int layer = 0; layer < reader.info().num_layers; ++layer) {
    const tq::LayerInfo& info = reader.info().layers[static_cast<std::size_t>(layer)];
    for (const auto& [name, tensor] : kTensors) {
      const bool has = tensor == tq::Tensor::k   ? info.has_k
                       : tensor == tq::Tensor::v ? info.has_v
                       : tensor == tq::Tensor::q ? info.has_q
                                                 : info.has_k_residual;
      if (has) read_in_steps(reader, layer, tensor, reader.preferred_rows(layer, tensor));
    }
  }
  std::vector<std::int32_t> indices(reader.rows(tq::Tensor::k));
  reader.read_positions(0, indices.size(), indices.data());
  reader.read_sequence_ids(0, indices.size(), indices.data());
}

tq::CaptureReader open_good(const std::string& name) {
  return tq::CaptureReader(kFixtures + "/good/" + name + ".kv.h5");
}

std::vector<std::int32_t> positions_of(tq::CaptureReader& reader) {
  std::vector<std::int32_t> positions(reader.rows(tq::Tensor::k));
  reader.read_positions(0, positions.size(), positions.data());
  return positions;
}

std::vector<std::int32_t> sequences_of(tq::CaptureReader& reader) {
  std::vector<std::int32_t> sequences(reader.rows(tq::Tensor::k));
  reader.read_sequence_ids(0, sequences.size(), sequences.data());
  return sequences;
}

}  // namespace

TEST_CASE("captures written by h5py read as NumPy has them: types, axis orders, layouts, any block of rows") {
  const auto entries = read_manifest(kFixtures + "/good/manifest.tsv");
  REQUIRE(entries.size() > 200);
  for (const auto& entry : entries) {
    CAPTURE(entry[0]);
    CAPTURE(entry[1]);
    CAPTURE(entry[2]);
    tq::CaptureReader reader(entry[0]), trusted(entry[0], tq::Trust::full);
    const int layer = std::stoi(entry[1]);
    const tq::Tensor tensor = kTensors.at(entry[2]);
    REQUIRE(reader.heads(tensor) == std::stoi(entry[3]));
    REQUIRE(reader.rows(tensor) == std::stoul(entry[4]));
    REQUIRE(reader.info().layers[static_cast<std::size_t>(layer)].head_dim == std::stoi(entry[5]));
    const std::vector<float> expected = read_floats(entry[6]);
    REQUIRE(expected.size() > 0);
    const std::size_t preferred = reader.preferred_rows(layer, tensor);
    CHECK(preferred >= 1);
    for (const std::size_t step :
         {reader.rows(tensor), preferred, std::size_t{1}, std::size_t{7}, std::size_t{32}}) {
      CAPTURE(step);
      CHECK(read_in_steps(reader, layer, tensor, step) == expected);
      CHECK(read_in_steps(trusted, layer, tensor, step) == expected);
    }
  }
}

TEST_CASE("a capture's description is what the file says") {
  tq::CaptureReader reader = open_good("head_dims");
  const tq::CaptureInfo& info = reader.info();
  CHECK(info.num_layers == 4);
  CHECK(info.num_kv_heads == 3);
  CHECK(info.num_q_heads == 6);
  CHECK(info.tokens == 75);
  CHECK(info.query_tokens == 9);
  CHECK(info.key_basis == "pre_rope");
  CHECK(!info.rope_theta);
  CHECK(!info.softmax_scale);
  CHECK(info.layers[2].head_dim == 576);
  CHECK(info.layers[2].has_k);
  CHECK(info.layers[2].has_v);
  CHECK(info.layers[2].has_q);
  CHECK(!info.layers[2].has_k_residual);
  CHECK(info.layers[2].k_type == tq::ElementType::float16);
  CHECK(info.layers[2].stored_bytes > 0);
  CHECK(open_good("type_le_bf16").info().layers[0].v_type == tq::ElementType::bfloat16);
  CHECK(open_good("type_u2").info().layers[0].k_type == tq::ElementType::bfloat16);
  CHECK(open_good("type_be_f8").info().layers[0].q_type == tq::ElementType::float64);
  CHECK(open_good("without_queries").query_positions().empty());
  CHECK_THROWS_AS(open_good("only_v").preferred_rows(0, tq::Tensor::k), tq::InputError);
}

TEST_CASE("positions and sequences: the file's own, and the defaults of each layout") {
  tq::CaptureReader given = open_good("order_bhtd_chunked");
  CHECK(positions_of(given)[80] == 5);
  CHECK(sequences_of(given)[80] == 1);
  CHECK(given.query_positions()[10] == 67);
  CHECK(given.query_sequence_ids()[10] == 1);

  tq::CaptureReader plain = open_good("no_positions");
  CHECK(positions_of(plain)[74] == 74);
  CHECK(sequences_of(plain)[74] == 0);
  CHECK(plain.query_positions()[74] == 74);
  CHECK(plain.query_sequence_ids()[74] == 0);

  tq::CaptureReader batched = open_good("no_positions_batched");
  CHECK(positions_of(batched)[25] == 5);
  CHECK(sequences_of(batched)[25] == 1);
  CHECK(batched.query_positions()[45] == 5);
  CHECK(batched.query_sequence_ids()[45] == 2);
}

TEST_CASE("rows and layers out of range are the caller's mistake") {
  tq::CaptureReader reader = open_good("type_le_f2");
  std::vector<float> out(75 * 3 * 16);
  CHECK_THROWS_AS(reader.read(0, tq::Tensor::k, 75, 1, out.data()), tq::UsageError);
  CHECK_THROWS_AS(reader.read(0, tq::Tensor::k, 1, static_cast<std::size_t>(-1), out.data()), tq::UsageError);
  CHECK_THROWS_AS(reader.read(2, tq::Tensor::k, 0, 1, out.data()), tq::UsageError);
  CHECK_THROWS_AS(reader.read(-1, tq::Tensor::k, 0, 1, out.data()), tq::UsageError);
  CHECK_NOTHROW(reader.read(0, tq::Tensor::k, 75, 0, out.data()));
}

TEST_CASE("a bad capture is refused in one line that names the file and the object") {
  const auto entries = read_manifest(kFixtures + "/bad/manifest.tsv");
  REQUIRE(entries.size() > 60);
  for (const auto& entry : entries) {
    const std::string& path = entry[0];
    CAPTURE(path);
    bool opened = false;
    const auto refusal = [&](tq::Trust trust) -> std::string {
      opened = false;
      try {
        tq::CaptureReader reader(path, trust);
        opened = true;
        read_everything(reader);
      } catch (const tq::InputError& error) {
        return error.what();
      }
      return "";
    };
    const std::string message = refusal(tq::Trust::full);
    CHECK(refusal(tq::Trust::none) == message);
    CAPTURE(message);
    CHECK(opened == (entry[1] == "read"));
    CHECK(message.starts_with(path + ": "));
    CHECK(message.find('\n') == std::string::npos);
    for (std::size_t i = 2; i < entry.size(); ++i) CHECK(message.find(entry[i]) != std::string::npos);
  }
}

TEST_CASE("the embedded sample reads whole") {
  tq::CaptureReader reader(TQ_SAMPLE);
  CHECK(reader.info().num_layers == 4);
  CHECK(reader.info().tokens == 768);
  CHECK(reader.query_positions().front() == 960);
  CHECK_NOTHROW(read_everything(reader));
}
