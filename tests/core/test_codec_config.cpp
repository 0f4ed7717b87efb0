#include <doctest/doctest.h>

#include <string>

#include "core/codec_config.h"
#include "core/error.h"

using tq::KeyConfig;
using tq::KeyMode;
using tq::ScaleRule;
using tq::SketchKind;
using tq::ValueConfig;
using tq::ValueMode;

namespace {

KeyConfig prod(int bits) { return {KeyMode::prod, bits, ScaleRule::norm, SketchKind::gaussian}; }
KeyConfig mse(int bits) { return {KeyMode::mse, bits, ScaleRule::nc, SketchKind::orthogonal}; }
ValueConfig group(int bits, int size) { return {ValueMode::group, bits, size, ScaleRule::nc}; }
ValueConfig rotated(int bits) { return {ValueMode::rotated, bits, 32, ScaleRule::nc}; }

int token_bytes(const KeyConfig& key, const ValueConfig& value, int d) {
  return tq::bytes_per_token(key, d) + tq::bytes_per_token(value, d);
}

template <typename Enum>
void check_names(std::initializer_list<const char*> names) {
  int value = 0;
  for (const char* name : names) {
    CHECK(tq::to_string(static_cast<Enum>(value)) == name);
    CHECK(tq::parse_choice<Enum>("--option", name) == static_cast<Enum>(value));
    ++value;
  }
  for (const char* wrong : {"", "MSE", "qr ", "nonsense"}) {
    CHECK_THROWS_AS(tq::parse_choice<Enum>("--option", wrong), tq::UsageError);
  }
}

}  // namespace

TEST_CASE("bytes a token and head") {
  CHECK(tq::bytes_per_token(prod(3), 128) == 52);
  CHECK(tq::bytes_per_token(group(2, 32), 128) == 48);
  CHECK(token_bytes(prod(3), group(2, 32), 128) == 100);
  CHECK(token_bytes(prod(3), group(3, 32), 128) == 116);
  CHECK(token_bytes(prod(3), group(4, 32), 128) == 132);
  CHECK(token_bytes(mse(3), rotated(3), 128) == 100);
  CHECK(token_bytes(mse(4), rotated(4), 128) == 132);
  CHECK(512.0 / 100 == doctest::Approx(5.12));
  CHECK(tq::bytes_per_token(mse(3), 40) == 17);
  CHECK(tq::bytes_per_token(mse(1), 24) == 5);
  CHECK(tq::bytes_per_token(group(8, 64), 64) == 68);
}

TEST_CASE("the Lloyd-Max index leaves a bit to the sign in prod mode") {
  CHECK(mse(3).table_bits() == 3);
  CHECK(prod(3).table_bits() == 2);
}

TEST_CASE("names of the choices") {
  check_names<tq::RotationKind>({"qr", "rht"});
  check_names<tq::KeyMode>({"mse", "prod"});
  check_names<tq::ScaleRule>({"norm", "nc", "ls"});
  check_names<tq::SketchKind>({"gaussian", "orthogonal"});
  check_names<tq::ValueMode>({"group", "rotated"});
  check_names<tq::AlphaTarget>({"unbiased", "mse", "cos", "score"});
  try {
    tq::parse_choice<tq::KeyMode>("--key-mode", "mean");
    FAIL("no such mode");
  } catch (const tq::UsageError& error) {
    CHECK(std::string(error.what()) == "--key-mode 'mean' is unknown; choose one of: mse, prod");
  }
}

TEST_CASE("descriptions") {
  CHECK(tq::describe(mse(3)) == "mse3-nc");
  CHECK(tq::describe(prod(3)) == "prod3-gaussian");
  CHECK(tq::describe(group(2, 32)) == "group2-gs32");
  CHECK(tq::describe(rotated(4)) == "rotated4-nc");
}

TEST_CASE("configurations out of range are refused") {
  for (int bits = -1; bits <= 10; ++bits) {
    CAPTURE(bits);
    const auto check = [](bool good, const auto& config) {
      if (good) {
        CHECK_NOTHROW(tq::validate(config, 128));
      } else {
        CHECK_THROWS_AS(tq::validate(config, 128), tq::UsageError);
      }
    };
    check(bits >= 1 && bits <= 8, mse(bits));
    check(bits >= 2 && bits <= 8, prod(bits));
    check(bits >= 1 && bits <= 8, rotated(bits));
    check(bits == 2 || bits == 3 || bits == 4 || bits == 8, group(bits, 32));
  }
  for (const int size : {8, 16, 32, 64, 128}) CHECK_NOTHROW(tq::validate(group(3, size), 128));
  for (const int size : {-8, 0, 1, 4, 12, 24, 48, 256}) {
    CAPTURE(size);
    CHECK_THROWS_AS(tq::validate(group(3, size), 128), tq::UsageError);
  }
  for (const int d : {-16, 0, 8, 12, 100, 1032}) {
    CAPTURE(d);
    CHECK_THROWS_AS(tq::validate(mse(3), d), tq::UsageError);
    CHECK_THROWS_AS(tq::validate(rotated(3), d), tq::UsageError);
    CHECK_THROWS_AS(tq::validate(group(3, 8), d), tq::UsageError);
  }
}
