#include <doctest/doctest.h>

#include "core/error.h"
#include "core/sha256.h"
#include "tests/calibration/artefact/artefact_samples.h"

TEST_CASE("SHA-256 agrees with the examples of FIPS 180-4") {
  CHECK(tq::sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(tq::sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(tq::sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(tq::sha256_hex(std::string(1'000'000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("SHA-256 does not depend on how the bytes are cut") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (std::size_t piece : {1, 3, 55, 56, 63, 64, 65, 128, 299}) {
    tq::Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      hash.update(text.data() + at, std::min(piece, text.size() - at));
    }
    CHECK(tq::to_hex(hash.finish()) == tq::sha256_hex(text));
  }
}

TEST_CASE("SHA-256 of a file") {
  const tq::test::TemporaryFolder folder;
  tq::test::write_text(folder / "a", std::string(1'000'000, 'a'));
  CHECK(tq::sha256_file_hex(folder / "a") ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK_THROWS_AS(tq::sha256_file_hex(folder / "none"), tq::InputError);
}
