#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/message.h"
#include "tests/support/test_seed.h"

namespace {

enum class Kind : std::uint8_t { one, two };

struct Plain {
  Kind kind{};
  double number = 0;
  friend bool operator==(const Plain&, const Plain&) = default;
};

// Everything that a message may hold.
struct Everything {
  bool flag = false;
  Plain plain;
  std::string text;
  std::vector<std::vector<std::size_t>> lists;
  std::vector<std::string> texts;
  friend bool operator==(const Everything&, const Everything&) = default;
};

template <typename Archive>
void fields(Archive& archive, Everything& value) {
  archive(value.flag, value.plain, value.text, value.lists, value.texts);
}

Everything example() {
  return {true, {Kind::two, 0.1}, std::string("caf\0\xc3", 5), {{1, 2}, {}}, {"", "b"}};
}

std::string whole_message() {
  tq::MessageWriter writer;
  writer(example(), std::vector<Everything>{example(), {}});
  return writer.bytes();
}

// Whether the bytes are a whole message.
bool is_whole(std::string_view bytes) {
  tq::MessageReader reader(bytes);
  Everything value;
  std::vector<Everything> list;
  try {
    reader(value, list);
  } catch (const tq::MessageError&) {
    return false;
  }
  return reader.empty();
}

}  // namespace

TEST_CASE("values come out of a message as they went in") {
  const std::string bytes = whole_message();
  tq::MessageReader reader(bytes);
  Everything value;
  std::vector<Everything> list{{}, {}, {}};  // what was there is gone
  reader(value, list);
  CHECK(reader.empty());
  CHECK(value == example());
  CHECK(list == std::vector<Everything>{example(), {}});
}

TEST_CASE("a message that is cut, or goes on, is told from a whole one") {
  const std::string whole = whole_message();
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    CHECK(is_whole(std::string_view(whole).substr(0, size)) == (size == whole.size()));
  }
  CHECK(!is_whole(whole + '\0'));
}

TEST_CASE("a message of any bytes is read within its bounds") {
  std::mt19937_64 random(tq::test::test_seed());
  const std::string whole = whole_message();
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = whole;
    for (int i = 0; i < 1 + round % 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    is_whole(damaged);  // sanitizers look on
  }
}
