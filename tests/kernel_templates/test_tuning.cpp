#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/tuning_file.h"
#include "shared/launch.h"
#include "tests/support/temporary_folder.h"

using namespace tq;
using gpu::kServerSharedLimit;
using Json = nlohmann::json;

namespace {

gpu::KeySpec mse_key(int bits) {
  return {128, bits, false, gpu::ScaleRule::nc, gpu::Mixing::hadamard, gpu::Mixing::hadamard};
}

gpu::AttendSpec attend_spec(int bits, int query_tiles = 1) {
  return {true, mse_key(bits), {true, mse_key(bits), {}}, 128, query_tiles, 0, 0};
}

gpu::ScoreSpec score_spec(int bits) { return {mse_key(bits), 1, gpu::ScorePart::all, 0, 0}; }

BlockChoice untuned(const gpu::AttendSpec& spec) {
  const gpu::AttendSpec block = with_block(spec, kServerSharedLimit);
  return {block.warps, block.stages, 0};
}

// Of 4 bits, for 64 rows of 512 tiles.
const LaunchSize kSize{64, 512};
const BlockChoice kChoice{4, 2, 264};

Tuning tuned(const BlockChoice& choice = kChoice) {
  Tuning tuning;
  tuning.set(tuning_key(attend_spec(4), kSize), choice);
  return tuning;
}

BlockChoice chosen(const Tuning& tuning, const LaunchSize& size, int bits = 4) {
  return tuning.choose(attend_spec(bits), size, kServerSharedLimit);
}

const TuningScope kScope{"GPU X", "9.0", 13000, "13.0, build abc", "digest"};

// The text of a file with one choice, a field of which is replaced.
std::string file_with(const char* field, const Json& value) {
  Json file = Json::parse(merge_tuning("", kScope, tuned()));
  file["tunings"][0]["choices"][0][field] = value;
  return file.dump();
}

}  // namespace

TEST_CASE("an untuned device takes the block of with_block") {
  CHECK(chosen({}, kSize) == untuned(attend_spec(4)));
  const gpu::ScoreSpec scores = with_block(score_spec(4), kServerSharedLimit);
  CHECK(Tuning().choose(score_spec(4), kSize, kServerSharedLimit) ==
        BlockChoice{scores.warps, scores.stages, 0});
}

TEST_CASE("a choice is for launches of its size, kernel and codec") {
  REQUIRE(kChoice != untuned(attend_spec(4)));
  const Tuning tuning = tuned();
  CHECK(chosen(tuning, kSize) == kChoice);
  CHECK(chosen(tuning, {61, 500}) == kChoice);  // about the same
  CHECK(tuning_key(attend_spec(4), {61, 500}) == tuning_key(attend_spec(4), kSize));
  CHECK(chosen(tuning, kSize, 3) == untuned(attend_spec(3)));
  CHECK(tuning.choose(attend_spec(4, 2), kSize, kServerSharedLimit) == untuned(attend_spec(4, 2)));
  CHECK(tuning.choose(score_spec(4), kSize, kServerSharedLimit).blocks == 0);
  // The kernel does not depend on how scales were found.
  gpu::AttendSpec other_rule = attend_spec(4);
  other_rule.key.scale = gpu::ScaleRule::ls;
  CHECK(tuning.choose(other_rule, kSize, kServerSharedLimit) == kChoice);
  // Nor on the block that a spec came with.
  other_rule.warps = 8;
  CHECK(tuning.choose(other_rule, kSize, kServerSharedLimit) == kChoice);
}

TEST_CASE("sizes that were not tuned take the nearest one's choice, within a factor of 4") {
  Tuning tuning = tuned();
  for (const LaunchSize& size :
       {LaunchSize{256, 512}, {16, 512}, {64, 2048}, {64, 128}, {128, 1024}, {32, 1024}})
    CHECK(chosen(tuning, size) == kChoice);
  for (const LaunchSize& size :
       {LaunchSize{512, 512}, {8, 512}, {64, 4096}, {64, 64}, {128, 2048}, {256, 256}})
    CHECK(chosen(tuning, size) == untuned(attend_spec(4)));
  // Once smaller and once larger than kSize: the order in the map does not decide.
  for (const LaunchSize& size : {LaunchSize{32, 512}, LaunchSize{128, 512}}) {
    const BlockChoice nearer{4, 3, 7};
    tuning = tuned();
    tuning.set(tuning_key(attend_spec(4), size), nearer);
    CHECK(chosen(tuning, size) == nearer);
    CHECK(chosen(tuning, kSize) == kChoice);
    CHECK(chosen(tuning, {size.rows < 64 ? 16 : 256, 512}) == nearer);
  }
  CHECK(chosen(tuning, {0, 0}) == untuned(attend_spec(4)));  // an empty launch is of some size, too
}

TEST_CASE("a choice that does not fit is passed over for one that does, then for the untuned block") {
  const BlockChoice too_large{16, 4, 0};
  REQUIRE(is_sensible(too_large));
  REQUIRE_FALSE(fits(attend_spec(4), too_large, kServerSharedLimit));
  Tuning tuning = tuned(too_large);
  CHECK(chosen(tuning, kSize) == untuned(attend_spec(4)));
  tuning.set(tuning_key(attend_spec(4), {128, 512}), kChoice);
  CHECK(chosen(tuning, kSize) == kChoice);
  // A device of less shared memory than the one that was tuned.
  CHECK(tuned().choose(attend_spec(4), kSize, gpu::kLeastSharedLimit).blocks == 0);

  gpu::AttendSpec exact{};
  exact.head_dim = 128;
  exact.query_tiles = 1;
  CHECK(fits(exact, {8, 0, 0}, kServerSharedLimit));
  CHECK_FALSE(fits(exact, {8, 1, 0}, kServerSharedLimit));
  CHECK(fits(score_spec(4), {8, 2, 0}, kServerSharedLimit));
  CHECK_FALSE(fits(score_spec(4), {8, 2, 0}, gpu::kLeastSharedLimit));
}

TEST_CASE("a tuning file comes back as it was") {
  Tuning tuning = tuned();
  tuning.set(tuning_key(score_spec(3), {8, 64}), {16, 0, 0});
  const std::string text = merge_tuning("", kScope, tuning);
  CHECK(parse_tuning(text, kScope).choices() == tuning.choices());
  const test::TemporaryFolder folder;
  test::write_text(folder / "tuning.json", text);
  const LoadedTuning loaded = load_tuning(folder / "tuning.json", kScope);
  CHECK(loaded.problem == "");
  CHECK(loaded.tuning.choices() == tuning.choices());
}

TEST_CASE("merging keeps what is there, but for older choices of the same launches") {
  TuningScope other = kScope;
  other.device = "GPU Y";
  Tuning first = tuned(), second = tuned({8, 2, 100});
  const TuningKey only_first = tuning_key(score_spec(4), kSize),
                  only_second = tuning_key(score_spec(2), kSize);
  first.set(only_first, {8, 1, 1});
  second.set(only_second, {8, 1, 2});
  std::string text = merge_tuning("", kScope, first);
  text = merge_tuning(text, other, tuned({12, 1, 5}));
  text = merge_tuning(text, kScope, second);
  const Tuning merged = parse_tuning(text, kScope);
  CHECK(merged.choices().size() == 3);
  CHECK(merged.choices().at(tuning_key(attend_spec(4), kSize)) == BlockChoice{8, 2, 100});
  CHECK(merged.choices().at(only_first) == BlockChoice{8, 1, 1});
  CHECK(merged.choices().at(only_second) == BlockChoice{8, 1, 2});
  CHECK(parse_tuning(text, other).choices() == tuned({12, 1, 5}).choices());
  CHECK(Json::parse(text)["tunings"].size() == 2);
  // Nothing can be kept of a damaged file.
  CHECK(parse_tuning(merge_tuning(text.substr(0, text.size() / 2), kScope, first), kScope).choices() ==
        first.choices());
}

TEST_CASE("what was tuned on another device, driver, NVRTC or build does not count, and is no error") {
  const std::string text = merge_tuning("", kScope, tuned());
  for (int field = 0; field < 5; ++field) {
    TuningScope other = kScope;
    if (field == 0) other.device = "GPU Y";
    if (field == 1) other.compute_capability = "9.1";
    if (field == 2) other.driver_version = 13010;
    if (field == 3) other.nvrtc = "13.0, build abd";
    if (field == 4) other.sources = "another";
    CAPTURE(field);
    CHECK(parse_tuning(text, other).choices().empty());
  }
}

TEST_CASE("a damaged file is an empty tuning and one line") {
  const test::TemporaryFolder folder;
  const std::string path = folder / "tuning.json", text = merge_tuning("", kScope, tuned());
  CHECK(load_tuning(path, kScope).problem == "");  // not there: not damaged
  for (std::size_t size = 0; size + 2 < text.size(); size += 7) {
    test::write_text(path, text.substr(0, size));
    const LoadedTuning loaded = load_tuning(path, kScope);
    CAPTURE(size);
    CHECK(loaded.tuning.choices().empty());
    CHECK(loaded.problem.find(path) == 0);
    CHECK(loaded.problem.find('\n') == std::string::npos);
  }
  Json version = Json::parse(text), format = version, list = version;
  version["format_version"] = 2;
  format["format"] = "turboquant-bench";
  list["tunings"] = 3;
  for (const std::string& bad : {version.dump(), format.dump(), list.dump(), std::string("[]"),
                                 std::string("3"), std::string(100000, '['), std::string("\0\xff", 2)}) {
    CHECK_THROWS_AS(static_cast<void>(parse_tuning(bad, kScope)), InputError);
    CHECK(parse_tuning(merge_tuning(bad, kScope, tuned()), kScope).choices() == tuned().choices());
  }
}

TEST_CASE("entries that make no sense are left out") {
  REQUIRE(parse_tuning(file_with("warps", 8), kScope).choices().size() == 1);
  const auto left_out = [](const char* field, const Json& value) {
    CAPTURE(field);
    CAPTURE(value.dump());
    CHECK(parse_tuning(file_with(field, value), kScope).choices().empty());
  };
  for (const Json& warps : {Json(0), Json(2), Json(6), Json(20), Json(-4), Json(8.0), Json("8"), Json(),
                            Json((1ULL << 32) + 8), Json(~0ULL - 7)})
    left_out("warps", warps);
  for (const Json& stages : {Json(-1), Json(5), Json(true), Json(1ULL << 32)}) left_out("stages", stages);
  for (const Json& blocks : {Json(-1), Json(kMostTunedBlocks + 1), Json(1e300), Json(Json::array())})
    left_out("blocks", blocks);
  for (const char* size : {"log2_rows", "log2_tiles"}) {
    for (const Json& value : {Json(-1), Json("6"), Json(6.5), Json(~0ULL)}) left_out(size, value);
  }
  for (const Json& kernel : {Json(), Json(3), Json(Json::object())}) left_out("kernel", kernel);

  // One bad entry is not the others' end, nor is one bad scope.
  Json file = Json::parse(merge_tuning("", kScope, tuned()));
  for (const Json& junk : {Json(), Json("x"), Json(Json::object()), Json(Json::array())}) {
    file["tunings"][0]["choices"].insert(file["tunings"][0]["choices"].begin(), junk);
    file["tunings"].insert(file["tunings"].end(), junk);
  }
  file["tunings"].push_back({{"scope", file["tunings"][0]["scope"]}, {"choices", 3}});
  file["tunings"].push_back({{"scope", file["tunings"][0]["scope"]}});
  CHECK(parse_tuning(file.dump(), kScope).choices() == tuned().choices());
}

TEST_CASE("the tuning lies beside the compiled kernels, or nowhere") {
  CHECK(tuning_file("/cache") == "/cache/tuning.json");
  CHECK(tuning_file("") == "");
}
