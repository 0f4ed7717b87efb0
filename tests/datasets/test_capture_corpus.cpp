#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "datasets/capture.h"
#include "datasets/capture_corpus.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_seed.h"

using tq::Tensor;
using tq::test::TemporaryFolder;

namespace {

constexpr std::size_t kHeads = 2, kQHeads = 4, kDim = 16;

// What a capture holds; rows are [row][head][kDim].
struct Content {
  std::vector<float> k, v, q;
  std::vector<std::int32_t> positions, sequences, q_positions, q_sequences;
};

tq::CaptureSpec plain_spec() {
  tq::CaptureSpec spec;
  spec.model = "a model";
  spec.num_q_heads = static_cast<int>(kQHeads);
  spec.num_kv_heads = static_cast<int>(kHeads);
  spec.head_dims = {static_cast<int>(kDim)};
  spec.storage = tq::ElementType::float32;
  spec.softmax_scale = 0.25;
  return spec;
}

// Tokens of the sequences 0 and 1, and `queries` of the last positions of sequence 1.
Content random_content(tq::Random& random, std::size_t tokens, std::size_t queries) {
  Content content{tq::test::normal_values(random, tokens * kHeads * kDim),
                  tq::test::normal_values(random, tokens * kHeads * kDim),
                  tq::test::normal_values(random, queries * kQHeads * kDim),
                  {},
                  {},
                  {},
                  {}};
  const std::size_t first = tokens / 3;
  for (std::size_t i = 0; i < tokens; ++i) {
    content.positions.push_back(static_cast<std::int32_t>(i < first ? i : i - first));
    content.sequences.push_back(i < first ? 0 : 1);
  }
  for (std::size_t i = 0; i < queries; ++i) {
    content.q_positions.push_back(content.positions[tokens - queries + i]);
    content.q_sequences.push_back(1);
  }
  return content;
}

void write(const std::string& path, const tq::CaptureSpec& spec, const Content& content) {
  tq::CaptureWriter writer(path, spec);
  for (int layer = 0; layer < static_cast<int>(spec.head_dims.size()); ++layer) {
    if (!content.k.empty()) writer.append(layer, Tensor::k, content.k);
    if (!content.v.empty()) writer.append(layer, Tensor::v, content.v);
    if (!content.q.empty()) writer.append(layer, Tensor::q, content.q);
  }
  writer.append_tokens(content.positions, content.sequences);
  if (!content.q.empty()) writer.append_queries(content.q_positions, content.q_sequences);
  writer.finish();
}

template <typename T>
void append(std::vector<T>& to, const std::vector<T>& more, T add = 0) {
  for (const T value : more) to.push_back(value + add);
}

// [head][row][kDim] of rows [begin, begin + count) of [row][head][kDim].
std::vector<float> by_head(const std::vector<float>& rows, std::size_t heads, std::size_t begin,
                           std::size_t count) {
  std::vector<float> out;
  for (std::size_t head = 0; head < heads; ++head) {
    for (std::size_t row = begin; row < begin + count; ++row) {
      const auto at = rows.begin() + static_cast<std::ptrdiff_t>((row * heads + head) * kDim);
      out.insert(out.end(), at, at + static_cast<std::ptrdiff_t>(kDim));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a corpus is its files one after the other, whatever rows are asked for") {
  tq::Random random = tq::test::test_random(31);
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  Content all;
  std::int32_t next_sequence = 0;
  std::size_t stored = 0;
  for (const std::size_t tokens : {300u, 7u, 513u}) {
    const Content content = random_content(random, tokens, 3 + tokens / 100);
    paths.push_back(folder / std::to_string(tokens));
    write(paths.back(), plain_spec(), content);
    stored += tq::CaptureReader(paths.back()).info().layers[0].stored_bytes;
    append(all.k, content.k);
    append(all.v, content.v);
    append(all.q, content.q);
    append(all.positions, content.positions);
    append(all.sequences, content.sequences, next_sequence);
    append(all.q_positions, content.q_positions);
    append(all.q_sequences, content.q_sequences, next_sequence);
    next_sequence += 2;
  }
  for (const tq::Trust trust : {tq::Trust::none, tq::Trust::full}) {
    tq::CaptureCorpus corpus(paths, trust);
    const std::size_t tokens = all.positions.size(), queries = all.q_positions.size();
    CHECK(corpus.path() == paths[0] + ", " + paths[1] + ", " + paths[2]);
    CHECK(corpus.info().tokens == tokens);
    CHECK(corpus.info().query_tokens == queries);
    CHECK(corpus.info().layers[0].stored_bytes == stored);
    CHECK(corpus.preferred_rows(0, Tensor::k) >= 1);
    CHECK(corpus.query_positions() == all.q_positions);
    CHECK(corpus.query_sequence_ids() == all.q_sequences);
    for (int i = 0; i < 200; ++i) {
      // The whole first, then any range.
      const auto range = [&](std::size_t rows) {
        const std::size_t begin = i == 0 ? 0 : random.below(static_cast<std::uint32_t>(rows));
        return std::pair(begin, i == 0 ? rows : random.below(static_cast<std::uint32_t>(rows - begin + 1)));
      };
      const auto [begin, count] = range(tokens);
      const auto [q_begin, q_count] = range(queries);
      CAPTURE(begin);
      CAPTURE(count);
      std::vector<float> keys(kHeads * count * kDim, -1), values(keys),
          query_rows(kQHeads * q_count * kDim, -1);
      corpus.read(0, Tensor::k, begin, count, keys.data());
      corpus.read(0, Tensor::v, begin, count, values.data());
      corpus.read(0, Tensor::q, q_begin, q_count, query_rows.data());
      CHECK(keys == by_head(all.k, kHeads, begin, count));
      CHECK(values == by_head(all.v, kHeads, begin, count));
      CHECK(query_rows == by_head(all.q, kQHeads, q_begin, q_count));
      std::vector<std::int32_t> positions(count), sequences(count);
      corpus.read_positions(begin, count, positions.data());
      corpus.read_sequence_ids(begin, count, sequences.data());
      const auto from = static_cast<std::ptrdiff_t>(begin);
      CHECK(std::equal(positions.begin(), positions.end(), all.positions.begin() + from));
      CHECK(std::equal(sequences.begin(), sequences.end(), all.sequences.begin() + from));
    }
  }
}

TEST_CASE("files that are not of one model are no corpus, and the line says why") {
  tq::Random random = tq::test::test_random(32);
  const TemporaryFolder folder;
  const std::string first = folder / "first", second = folder / "second";
  const Content content = random_content(random, 60, 4);
  write(first, plain_spec(), content);

  const auto refusal = [&](const std::function<void(tq::CaptureSpec&, Content&)>& change) -> std::string {
    tq::CaptureSpec spec = plain_spec();
    Content other = content;
    change(spec, other);
    write(second, spec, other);
    try {
      tq::CaptureCorpus corpus({first, second});
    } catch (const tq::InputError& error) {
      return error.what();
    }
    return "";
  };
  const auto of_one_model = [&](const std::string& what) {
    return second + ": has " + what + "; the files of a corpus are of one model";
  };
  CHECK(refusal([](tq::CaptureSpec&, Content&) {}).empty());
  CHECK(refusal([](tq::CaptureSpec& spec, Content&) {
          spec.head_dims = {16, 16};
        }) == of_one_model("num_layers 2 where the first has 1"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content& other) {
          spec.num_kv_heads = 1;
          other.k.resize(60 * kDim);
          other.v.resize(60 * kDim);
        }) == of_one_model("num_kv_heads 1 where the first has 2"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content& other) {
          spec.num_q_heads = 2;
          other.q.resize(4 * 2 * kDim);
        }) == of_one_model("num_q_heads 2 where the first has 4"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content&) { spec.key_basis = "pre_rope"; }) ==
        of_one_model("key_basis pre_rope where the first has post_rope"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content&) { spec.softmax_scale = 0.5; }) ==
        of_one_model("softmax_scale 0.5 where the first has 0.25"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content&) { spec.model = "b\nmodel"; }) ==
        of_one_model("model b?model where the first has a model"));
  CHECK(refusal([](tq::CaptureSpec& spec, Content& other) {
          spec.head_dims = {32};
          for (auto* rows : {&other.k, &other.v, &other.q}) append(*rows, std::vector<float>(*rows));
        }) == of_one_model("in layer 0 head_dim 32 where the first has 16"));
  CHECK(refusal([](tq::CaptureSpec&, Content& other) { other.v.clear(); }) ==
        of_one_model("in layer 0 other tensors than the first"));
  CHECK(refusal([](tq::CaptureSpec&, Content& other) {
          other.sequences.back() = std::numeric_limits<std::int32_t>::max();
        }) == second + ": the corpus has more sequence ids than 32 bits hold");
  CHECK_THROWS_AS(tq::CaptureCorpus({first, folder / "none"}), tq::InputError);
  CHECK_THROWS_WITH_AS(tq::CaptureCorpus({first, first}),
                       (first + ": stands twice among the captures").c_str(), tq::UsageError);
}
