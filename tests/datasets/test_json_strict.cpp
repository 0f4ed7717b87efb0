#include <doctest/doctest.h>

#include "core/error.h"
#include "datasets/json_strict.h"

namespace {

std::string error_of(const std::string& text) {
  try {
    tq::JsonDocument(text, "f.json");
  } catch (const tq::InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("JSON that other readers let pass is refused in one line") {
  CHECK(error_of(R"({"a": 1, "b": {"a": 2}})") == "");
  CHECK(error_of(R"({"a": 1, "a": 2})") == "f.json: key 'a' stands twice in one object");
  CHECK(error_of(R"({"a": [{"b\n": 1, "b\n": 2}]})") == "f.json: key 'b?' stands twice in one object");
  CHECK(error_of(R"({"a": 1e999})") == "f.json: a number is too large for a double");
  for (const char* text : {"", "{", "NaN", "[Infinity]", "[1] 2", "[1,]", "{'a': 1}", "// c\n1", "\"\xff\"",
                           "\"a\nb\"", "nul", "[1", "01", "{\"a\"}"}) {
    CAPTURE(text);
    CHECK(error_of(text).find("not valid JSON at byte") != std::string::npos);
    CHECK(error_of(text).find('\n') == std::string::npos);
  }
}

TEST_CASE("JSON is limited in depth, values and bytes") {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK(error_of(nested(tq::kJsonMaxDepth)) == "");
  CHECK(error_of(nested(tq::kJsonMaxDepth + 1)) == "f.json: more than 32 levels of nesting");
  CHECK(error_of(std::string(1'000'000, '[')) == "f.json: more than 32 levels of nesting");
  std::string many = "[0";
  for (std::size_t i = 0; i < tq::kJsonMaxValues; ++i) many += ",0";
  CHECK(error_of(many + "]").find("values") != std::string::npos);
  CHECK(error_of(std::string(tq::kJsonMaxBytes + 1, ' ')).find("limit") != std::string::npos);
}

TEST_CASE("a node's errors say where it stands") {
  const tq::JsonDocument document(
      R"({"a": {"b": [1, "x", 18446744073709551615, -1, 2.5, true, null]}, "n": [0.5, 2]})", "f.json");
  const tq::JsonNode root = document.root();
  const auto items = root.at("a").at("b").items(7);
  CHECK(items[0].integer(0, 1) == 1);
  CHECK(items[2].unsigned_integer() == UINT64_MAX);
  CHECK(items[5].boolean());
  CHECK(items[6].is_null());
  CHECK(root.at("n").numbers(2) == std::vector<double>{0.5, 2});

  CHECK_THROWS_WITH_AS(root.at("c"), "f.json: 'c' is missing", tq::InputError);
  CHECK_THROWS_WITH_AS(root.at("a").at("c"), "f.json: a: 'c' is missing", tq::InputError);
  CHECK_THROWS_WITH_AS(items[1].number(), "f.json: a.b[1]: a number is wanted, this is string",
                       tq::InputError);
  CHECK_THROWS_AS(items[0].text(), tq::InputError);
  CHECK_THROWS_AS(items[0].boolean(), tq::InputError);
  CHECK_THROWS_AS(items[0].at("x"), tq::InputError);
  for (const std::size_t i : {1, 2, 4, 5, 6})
    CHECK_THROWS_AS(items[i].integer(INT64_MIN, INT64_MAX), tq::InputError);
  CHECK_THROWS_WITH_AS(items[3].integer(0, 9), "f.json: a.b[3]: an integer from 0 to 9 is wanted",
                       tq::InputError);
  CHECK_THROWS_AS(items[3].unsigned_integer(), tq::InputError);
  CHECK_THROWS_AS(root.items(1), tq::InputError);
  CHECK_THROWS_AS(root.at("n").numbers(1), tq::InputError);
  CHECK_THROWS_AS(root.members(1), tq::InputError);

  std::vector<std::string> unknown;
  root.collect_unknown({"a"}, unknown);
  CHECK(unknown == std::vector<std::string>{"n"});
}
