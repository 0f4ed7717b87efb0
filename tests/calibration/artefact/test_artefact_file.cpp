#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/table_checks.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"
#include "tests/support/test_seed.h"

using tq::test::plain_artefact;
using tq::test::TemporaryFolder;

TEST_CASE("an artefact reads back as it was written") {
  const TemporaryFolder folder;
  tq::Random random = tq::test::test_random(1);
  for (int i = 0; i < 30; ++i) {
    const std::uint64_t seed = random.bits64();
    CAPTURE(seed);
    const tq::Artefact artefact = tq::test::random_artefact(seed);
    tq::write_artefact(artefact, folder / "a.tq.h5");
    CHECK(tq::test::same_content(tq::read_artefact(folder / "a.tq.h5"), artefact));
  }
}

TEST_CASE("the same artefact is the same file at another time") {
  const TemporaryFolder folder;
  const tq::Artefact artefact = tq::test::random_artefact(11);
  tq::write_artefact(artefact, folder / "a");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5 counts seconds
  tq::write_artefact(artefact, folder / "b");
  CHECK(tq::test::read_text(folder / "a") == tq::test::read_text(folder / "b"));
}

TEST_CASE("an artefact that cannot be written leaves nothing, and the old file as it was") {
  const TemporaryFolder folder;
  tq::Artefact artefact = plain_artefact();
  tq::write_artefact(artefact, folder / "a");
  const std::string before = tq::test::read_text(folder / "a");
  artefact.layers[0].key_tables[0].qjl_scale = 3;
  CHECK_THROWS_AS(tq::write_artefact(artefact, folder / "a"), tq::InputError);
  CHECK(tq::test::read_text(folder / "a") == before);
  CHECK(std::distance(std::filesystem::directory_iterator(folder / ""), {}) == 1);
  CHECK_THROWS_AS(tq::write_artefact(plain_artefact(), folder / "none/a"), tq::SystemError);
}

TEST_CASE("a policy is kept, and refused where no cache could have it") {
  const TemporaryFolder folder;
  tq::Artefact artefact = plain_artefact();
  const std::string without = tq::artefact_digest(artefact);
  artefact.policy = tq::CachePolicy{.recent = 64, .sinks = 4, .flush_block = 1};
  CHECK(tq::artefact_digest(artefact) != without);
  tq::write_artefact(artefact, folder / "a");
  CHECK(tq::read_artefact(folder / "a").policy == artefact.policy);
  for (const tq::CachePolicy bad :
       {tq::CachePolicy{-1, 0, 1}, tq::CachePolicy{0, (1 << 24) + 1, 1}, tq::CachePolicy{128, 0, 2}}) {
    artefact.policy = bad;
    CHECK_THROWS_AS(tq::write_artefact(artefact, folder / "b"), tq::InputError);
  }
}

TEST_CASE("a file that is not a whole artefact is an input error of one line") {
  const TemporaryFolder folder;
  const auto error_of = [&](const std::string& bytes) -> std::string {
    tq::test::write_text(folder / "x", bytes);
    try {
      tq::read_artefact(folder / "x");
    } catch (const tq::InputError& error) {
      CHECK(std::string(error.what()).starts_with(folder / "x"));
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return error.what();
    }
    return "";
  };
  CHECK_THROWS_AS(tq::read_artefact(folder / "none"), tq::InputError);
  CHECK(error_of("") != "");
  CHECK(error_of("text") != "");

  tq::write_artefact(plain_artefact(), folder / "a");
  const std::string whole = tq::test::read_text(folder / "a");
  CHECK(error_of(whole) == "");
  for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 50) {
    CAPTURE(size);
    CHECK(error_of(whole.substr(0, size)) != "");
  }
}

TEST_CASE("a damaged byte anywhere is found, or changes nothing") {
  const TemporaryFolder folder;
  tq::Random random = tq::test::test_random(3);
  for (int file = 0; file < 4; ++file) {
    const tq::Artefact artefact = tq::test::random_artefact(random.bits64());
    tq::write_artefact(artefact, folder / "a");
    const std::string whole = tq::test::read_text(folder / "a");
    for (int i = 0; i < 150; ++i) {
      const std::size_t at = random.below(static_cast<std::uint32_t>(whole.size()));
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1 + random.below(255)));
      CAPTURE(at);
      tq::test::write_text(folder / "x", damaged);
      bool harmless = false;
      try {
        harmless = tq::test::same_content(tq::read_artefact(folder / "x"), artefact);
      } catch (const tq::InputError& error) {
        harmless = std::string(error.what()).starts_with(folder / "x");
      }
      CHECK(harmless);
    }
  }
}

TEST_CASE("a damaged byte of the content is found") {
  const TemporaryFolder folder;
  const tq::Artefact artefact = plain_artefact();
  tq::write_artefact(artefact, folder / "a");
  const std::string whole = tq::test::read_text(folder / "a");
  const auto flip_every_byte_of = [&](const void* data, std::size_t bytes) {
    const std::size_t begin = whole.find(std::string(static_cast<const char*>(data), bytes));
    REQUIRE(begin != whole.npos);
    for (std::size_t at = begin; at < begin + bytes; ++at) {
      CAPTURE(at);
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      tq::test::write_text(folder / "x", damaged);
      CHECK_THROWS_AS(tq::read_artefact(folder / "x"), tq::InputError);
    }
  };
  const tq::Codebook& codebook = artefact.layers[0].key_tables[0].codebook;
  const std::vector<float> centroids = tq::to_float32(codebook.centroids);
  const std::vector<float> boundaries = tq::to_float32(codebook.boundaries);
  const auto permutation = artefact.rotations.at(64).permutation();
  flip_every_byte_of(centroids.data(), centroids.size() * sizeof(float));
  flip_every_byte_of(boundaries.data(), boundaries.size() * sizeof(float));
  flip_every_byte_of(permutation.data(), permutation.size_bytes());
  // What decodes alike all the same.
  flip_every_byte_of(codebook.centroids.data(), codebook.centroids.size() * sizeof(double));
  flip_every_byte_of(artefact.provenance.model.data(), artefact.provenance.model.size());
}
