#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "datasets/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace {

std::string file_of(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string error_of(const std::string& bytes) {
  try {
    tq::parse_safetensors(bytes, "m.safetensors");
  } catch (const tq::InputError& error) {
    const std::string text = error.what();
    CHECK(text.find('\n') == std::string::npos);
    CHECK(text.starts_with("m.safetensors: "));
    return text;
  }
  return "";
}

void check_refused(const std::string& bytes, const std::string& words) {
  const std::string error = error_of(bytes);
  INFO(error);
  CHECK(error.find(words) != std::string::npos);
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\": \"" + dtype + "\", \"shape\": " + shape + ", \"data_offsets\": " + offsets + "}";
}

}  // namespace

TEST_CASE("safetensors: a header that lies is refused in one line") {
  const std::string good = tensor("F32", "[2]", "[0, 8]");
  const auto two = [](const std::string& a, const std::string& b, std::size_t bytes) {
    return file_of("{\"a\": " + a + ", \"b\": " + b + "}", std::string(bytes, '\0'));
  };
  CHECK(error_of(two(good, tensor("F32", "[2]", "[8, 16]"), 16)) == "");

  check_refused("1234567", "too few");
  check_refused(std::string("\xff\xff\xff\xff\xff\xff\xff\xff") + "{}",
                "the header claims 18446744073709551615");
  check_refused(file_of("{}").substr(0, 9), "the header claims 2 bytes in a file of 9");
  check_refused(file_of(""), "not valid JSON");
  check_refused(file_of("[]"), "an object is wanted");
  check_refused(file_of("{} x"), "not valid JSON");
  check_refused(file_of(R"({"a": 1, "a": 2})"), "stands twice");
  check_refused(file_of(std::string(40, '[')), "levels of nesting");
  check_refused(file_of(R"({"__metadata__": {"a": 1}})"), "a string is wanted");
  check_refused(file_of(R"({"a": [1]})"), "a: an object is wanted");
  check_refused(file_of(R"({"a": {}})"), "'dtype' is missing");
  check_refused(file_of("{}", "x"), "1 bytes of data, the tensors cover 0");

  check_refused(two(good, good, 16), "overlaps");
  check_refused(two(good, tensor("F32", "[2]", "[4, 12]"), 12), "overlaps");
  check_refused(two(tensor("F32", "[4]", "[0, 16]"), tensor("F32", "[1]", "[4, 8]"), 16), "overlaps");
  check_refused(two(good, tensor("F32", "[2]", "[12, 20]"), 20), "gap");
  check_refused(two(good, tensor("F32", "[2]", "[8, 16]"), 20), "20 bytes of data, the tensors cover 16");
  check_refused(two(good, tensor("F32", "[2]", "[8, 16]"), 12), "integer from 0 to 12");
  check_refused(two(good, tensor("F32", "[3]", "[8, 16]"), 16), "the shape takes 12 bytes");
  check_refused(two(good, tensor("F16", "[2]", "[8, 16]"), 16), "the shape takes 4 bytes");
  check_refused(two(tensor("F32", "[2]", "[8, 0]"), good, 16), "data_offsets 8 to 0");
  check_refused(two(tensor("F32", "[2]", "[-8, 0]"), good, 16), "integer from 0");
  check_refused(two(tensor("F32", "[2]", "[0, 18446744073709551615]"), good, 16), "integer from 0");
  check_refused(two(tensor("F32", "[2]", "[0, 8.0]"), good, 16), "integer from 0");
  check_refused(two(tensor("F32", "[2]", "[0]"), good, 16), "entries, not 2");
  check_refused(two(tensor("F32", "[2]", "[0, 4, 8]"), good, 16), "items");
  check_refused(two(tensor("F99", "[2]", "[0, 8]"), good, 16), "not a safetensors dtype");
  check_refused(two(tensor("F32", "[-2]", "[0, 8]"), good, 16), "integer from 0");
  check_refused(two(tensor("F32", "[1,1,1,1,1,1,1,1,2]", "[0, 8]"), good, 16), "items");
  check_refused(two(tensor("F32", "[1099511627776, 1099511627776]", "[0, 8]"), good, 16),
                "larger than memory");
  check_refused(two(tensor("F32", "[2], \"x\": 1", "[0, 8]"), good, 16), "not a field");
}

TEST_CASE("safetensors: elements of every dtype, wherever they lie") {
  const std::vector<float> values{1, -2.5f, 0.15625f, 65504, 0, -0.0f, 3};
  std::string data = "x";  // so that nothing is aligned
  for (const float value : values) {
    const std::uint16_t half = tq::float_to_half(value);
    data.append(reinterpret_cast<const char*>(&half), 2);
  }
  for (const float value : values) {
    const std::uint16_t bits = tq::float_to_bfloat16(value);
    data.append(reinterpret_cast<const char*>(&bits), 2);
  }
  data.append(reinterpret_cast<const char*>(values.data()), 28);
  const tq::test::TemporaryFolder folder;
  const std::string path = folder / "m.safetensors";
  std::ofstream(path, std::ios::binary) << file_of(
      "{\"u\": " + tensor("U8", "[1]", "[0, 1]") + ", \"h\": " + tensor("F16", "[7, 1]", "[1, 15]") +
          ", \"b\": " + tensor("BF16", "[7]", "[15, 29]") + ", \"f\": " + tensor("F32", "[7]", "[29, 57]") +
          ", \"n\": " + tensor("F32", "[0]", "[57, 57]") + ", \"__metadata__\": {\"format\": \"pt\"}}",
      data);
  const tq::SafetensorsFile file(path);
  CHECK(file.tensors().size() == 5);
  CHECK(file.tensors().at("n").elements() == 0);
  CHECK(file.tensors().at("h").shape == std::vector<std::size_t>{7, 1});
  for (const char* name : {"h", "b", "f"}) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      float wanted = values[i];
      if (*name == 'b') wanted = tq::bfloat16_to_float(tq::float_to_bfloat16(wanted));
      float out[2] = {-7, -7};
      file.tensors().at(name).read(i, 1, out);
      CHECK(out[0] == wanted);
      CHECK(out[1] == -7);
    }
  }
  for (const char* name : {"h", "b", "f"}) CHECK_NOTHROW(file.tensors().at(name).check_float_dtype());
  CHECK_THROWS_AS(file.tensors().at("u").check_float_dtype(), tq::InputError);
  CHECK_THROWS_AS(tq::SafetensorsFile(folder / "absent"), tq::InputError);
  std::ofstream(folder / "empty");
  CHECK_THROWS_AS(tq::SafetensorsFile(folder / "empty"), tq::InputError);
}
