#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include "calibration/artefact/export.h"
#include "calibration/artefact/import.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"

using tq::ExportFormat;
using tq::test::plain_artefact;
using tq::test::replaced;
using tq::test::TemporaryFolder;

namespace {

std::string exported(ExportFormat format) {
  const TemporaryFolder folder;
  tq::export_artefact(plain_artefact(), format, folder / "a");
  return tq::test::read_text(folder / "a");
}

// The message with which `text` is refused; "" where it is read.
std::string error_of(const std::string& text) {
  const TemporaryFolder folder;
  tq::test::write_text(folder / "x", text);
  try {
    tq::import_tables(folder / "x");
  } catch (const tq::InputError& error) {
    const std::string message = error.what();
    CHECK(message.starts_with(folder / "x"));
    CHECK(message.find('\n') == message.npos);
    return message;
  }
  return "";
}

void check_refused(const std::string& text, const std::string& expected) {
  const std::string message = error_of(text);
  CAPTURE(message);
  CAPTURE(expected);
  CHECK(message.find(expected) != message.npos);
  CHECK(message != "");
}

std::string with_header(const std::string& header, const std::string& data = "") {
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return length + header + data;
}

// A safetensors file with its header changed and its length field right.
std::string header_replaced(const std::string& file, const std::string& from, const std::string& to) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return with_header(replaced(file.substr(8, length), from, to), file.substr(8 + length));
}

}  // namespace

TEST_CASE("what is no known format is named as such") {
  check_refused("", "none of the known formats");
  check_refused("PK\x03\x04", "none of the known formats");
  check_refused("[1, 2]", "none of the known formats");
  check_refused("{\"a\": 1}", "neither a codebook");
  CHECK_THROWS_WITH_AS(tq::import_tables("/nonexistent/x"), "/nonexistent/x: there is no such file",
                       tq::InputError);
  CHECK_THROWS_WITH_AS(tq::import_tables("/dev/null"), "/dev/null: not a regular file", tq::InputError);
  const TemporaryFolder folder;
  CHECK_THROWS_AS(tq::import_tables(folder / ""), tq::InputError);
}

TEST_CASE("every text export that is cut short is refused") {
  for (const ExportFormat format :
       {ExportFormat::kv_json, ExportFormat::safetensors, ExportFormat::c_header}) {
    const std::string whole = exported(format);
    CAPTURE(tq::to_string(format));
    CHECK(error_of(whole) == "");
    for (std::size_t size = 0; size + 2 < whole.size(); size += 1 + whole.size() / 60) {
      CAPTURE(size);
      CHECK(error_of(whole.substr(0, size)) != "");
    }
  }
}

TEST_CASE("a hostile codebook file") {
  const std::string good = R"({"centroids": [-0.1, 0.1], "boundaries": [-1, 0, 1], "mse_per_coord": 0.005,
                               "mse_total": 0.36, "d": 64, "bits": 1})";
  CHECK(error_of(good) == "");
  check_refused(replaced(good, "\"d\": 64", "\"d\": 64, \"d\": 64"), "stands twice");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1]"), "centroids");
  check_refused(replaced(good, "[-0.1, 0.1]", "[0.1, -0.1]"), "increasing");
  check_refused(replaced(good, "[-0.1, 0.1]", "[0.1, 0.1000000001]"), "increasing in float32");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1, \"0.1\"]"), "centroids[1]: a number is wanted");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1, null]"), "centroids[1]: a number is wanted");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1, NaN]"), "not valid JSON");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1, 1e400]"), "too large");
  check_refused(replaced(good, "[-0.1, 0.1]", "[-0.1, 1e300]"), "outside its cell");
  check_refused(replaced(good, "[-1, 0, 1]", "[-1, 0, 2]"), "boundaries end at");
  check_refused(replaced(good, "[-1, 0, 1]", "[-1, 0.5, 1]"), "outside its cell");
  check_refused(replaced(good, "\"d\": 64", "\"d\": 64.5"), "d: an integer from 4");
  check_refused(replaced(good, "\"d\": 64", "\"d\": 1e99"), "d: an integer from 4");
  check_refused(replaced(good, "\"d\": 64", "\"d\": -64"), "d: an integer from 4");
  check_refused(replaced(good, "\"bits\": 1", "\"bits\": 9"), "bits: an integer from 1 to 8");
  check_refused(replaced(good, "\"bits\": 1", "\"bits\": 2"), "centroids");
  check_refused(replaced(good, ", \"bits\": 1", ""), "'bits' is missing");
  check_refused(replaced(good, "\"boundaries\": [-1, 0, 1],", ""), "'boundaries' is missing");
  std::string many = "[0";
  for (int i = 0; i < 1000; ++i) many += ",0";
  check_refused(replaced(good, "[-0.1, 0.1]", many + "]"), "1001 items");
}

TEST_CASE("a hostile turboquant_kv.json") {
  const std::string good = exported(ExportFormat::kv_json);
  check_refused(replaced(good, "\"version\": 1", "\"version\": 2"), "version: an integer from 1 to 1");
  check_refused(replaced(good, "\"version\": 1", "\"version\": \"1\""), "version");
  check_refused(replaced(good, "1/sqrt(d)", "1"), "sigma_convention");
  check_refused(replaced(good, "_convention\": \"alpha\"", "_convention\": \"alpha/d\""),
                "the one known convention");
  check_refused(replaced(good, "\"sign_of_zero\": -1", "\"sign_of_zero\": 1"), "sign_of_zero");
  check_refused(replaced(good, "\"head_size\": 64,", ""), "without a head_size");
  check_refused(replaced(good, "\"head_size\": 64", "\"head_size\": \"64\""), "head_size: an integer");
  check_refused(replaced(good, "model.layers.1.", "model.layers.2."), "layer 1 is missing");
  check_refused(replaced(good, "model.layers.1.", "model.layers.00."), "stands twice");
  check_refused(replaced(good, "model.layers.1.", "model.layers.x."), "no layer's number");
  check_refused(replaced(good, "\"key_codebook\"", "\"key_codebooky\""), "'key_codebook' is missing");
  check_refused(replaced(good, "\"qjl_scale\":", "\"qjl_scalx\":"), "'qjl_scale' is missing");
  check_refused(replaced(good, "\"qjl_seed\": 8", "\"qjl_seed\": 9"), "another sketch");
  check_refused(replaced(good, "\"qjl_seed\": 8", "\"qjl_seed\": -9"), "qjl_seed: an integer");
  check_refused(replaced(good, "\"key_mode\": \"prod\"", "\"key_mode\": \"pr\\nod\""), "'pr?od' is unknown");
  check_refused(replaced(good, "\"num_kv_heads\": 2", "\"num_kv_heads\": 0"), "num_kv_heads: an integer");
}

TEST_CASE("a hostile safetensors file") {
  const std::string good = exported(ExportFormat::safetensors);
  check_refused(good + "x", "bytes of data, the tensors cover");
  check_refused(good.substr(0, good.size() - 1), "data_offsets");
  check_refused(with_header("{}"), "format is not");
  check_refused(header_replaced(good, "\"layers.0.k.mode\":\"prod\"", "\"layers.0.k.mode\":\"pro\""),
                "unknown");
  check_refused(header_replaced(good, "\"layers.0.k.mode\":\"prod\"", "\"layers.0.k.mode\":1"),
                "a string is wanted");
  check_refused(header_replaced(good, "\"layers.0.k.bits\":\"3\"", "\"layers.0.k.bits\":\"3x\""),
                "an integer");
  check_refused(header_replaced(good, "\"layers.0.k.bits\":\"3\"", "\"layers.0.k.bits\":\"4\""),
                "3-bit tables");
  check_refused(header_replaced(good, "\"num_layers\":\"2\"", "\"num_layers\":\"3\""), "layers.2.head_dim");
  check_refused(header_replaced(good, "layers.0.k.qjl_scale\":", "layers.0.k.qjl_scalx\":"),
                "qjl_scale' is missing");
  check_refused(header_replaced(good, "rotation.64.permutation\":{\"dtype\":\"I32\"",
                                "rotation.64.permutation\":{\"dtype\":\"F32\""),
                "dtype I32 is wanted");
  check_refused(header_replaced(good, "\"rotation.64.kind\":\"rht\"", "\"rotation.64.kind\":\"qr\""),
                "kind 'qr'");
  std::string nan = good;  // the first tensor is layer 0's centroids
  std::uint64_t length = 0;
  std::memcpy(&length, good.data(), 8);
  nan.replace(8 + length, 4, "\xff\xff\xff\x7f");
  check_refused(nan, "element 0 is not finite");
}

TEST_CASE("a hostile C header") {
  const std::string good = exported(ExportFormat::c_header);
  check_refused(replaced(good, "#define TQ_NUM_LAYERS 2", "#define TQ_NUM_LAYERS 3"),
                "TQ_LAYER_002_HEAD_DIM");
  check_refused(replaced(good, "#define TQ_NUM_LAYERS 2\n", ""), "TQ_NUM_LAYERS is not defined");
  check_refused(replaced(good, "#define TQ_NUM_LAYERS 2", "#define TQ_NUM_LAYERS 2x"), "an integer");
  check_refused(replaced(good, "#define TQ_NUM_LAYERS 2", "#define TQ_NUM_LAYERS 2\n#define TQ_NUM_LAYERS 2"),
                "twice");
  check_refused(replaced(good, "_centroids[4] = {", "_centroids[5] = {"), "fewer values");
  check_refused(replaced(good, "_centroids[4] = {", "_centroids[3] = {"), "more values");
  check_refused(replaced(good, "_centroids[4] = {", "_centroids[4000000000] = {"), "1 to 257");
  check_refused(replaced(good, "-0x1p+0f", "-1.0f"), "'0x' is wanted");
  check_refused(replaced(good, "-0x1p+0f", "-0x1p+9999f"), "hexadecimal float");
  check_refused(replaced(good, "-0x1p+0f", "-0xinff"), "hexadecimal float");
  check_refused(replaced(good, "-0x1p+0f", "-0x1p+1f"), "boundaries end at");
  check_refused(replaced(good, "#ifndef", "#include \"/etc/passwd\"\n#ifndef"),
                "not a line that the export writes");
  check_refused(good + "int x;\n", "text after the last line");
}

TEST_CASE("an artefact is made only of a file that says enough") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& text) -> std::string {
    tq::test::write_text(folder / "x", text);
    try {
      tq::import_artefact(folder / "x");
    } catch (const tq::InputError& caught) {
      return caught.what();
    }
    return "";
  };
  const std::string codebook = R"({"centroids": [-0.1, 0.1], "boundaries": [-1, 0, 1], "mse_per_coord": 0.005,
                                   "mse_total": 0.36, "d": 64, "bits": 1})";
  CHECK(error(codebook).find(
            "it lacks the number of query heads, the key basis, the number of KV heads, the key "
            "configuration, the value configuration, qjl_scale, the rotation of head_dim 64") !=
        std::string::npos);

  const std::string kv = exported(ExportFormat::kv_json);
  CHECK(error(kv) == "");
  CHECK(error(replaced(kv, "\"key_basis\": \"post_rope\",", "")).find("lacks the key basis;") !=
        std::string::npos);
  CHECK(error(replaced(kv, "\"version\": 1", "\"version\": 1, \"note\": 2")).find("note is not an item") !=
        std::string::npos);
  CHECK(error(replaced(kv, "\"seed\": 7", "\"seed\": 6")).find("another digest") != std::string::npos);
  CHECK(error(replaced(kv, "\"kind\": \"rht\"", "\"kind\": \"fft\"")).find("'fft' is unknown") !=
        std::string::npos);
  CHECK(error(replaced(kv, "\"key_bits\": 3", "\"key_bits\": 4")).find("a table of 2 bits; 3") !=
        std::string::npos);
  CHECK(error(replaced(kv, "\"value_scale\": \"nc\"", "\"value_scale\": \"ls\"")).find("edited or damaged") !=
        std::string::npos);
}

TEST_CASE("a folder of codebook files and a whole export") {
  const TemporaryFolder folder;
  const std::string codebook = R"({"centroids": [-0.1, 0.1], "boundaries": [-1, 0, 1], "mse_per_coord": 0.005,
                                   "mse_total": 0.36, "d": 64, "bits": 1, "extra": 1})";
  tq::test::write_text(folder / "codebook_d64_b1.json", codebook);
  tq::test::write_text(folder / "codebook_d64_b2.json", codebook);
  const tq::ImportedTables tables = tq::import_tables(folder / "");
  REQUIRE(tables.layers.size() == 2);
  CHECK(tables.layers[1].name == "codebook_d64_b2.json");
  CHECK(tables.unknown.size() == 2);

  tq::export_artefact(plain_artefact(), ExportFormat::upstream_json, folder / "a");
  CHECK_NOTHROW(tq::import_tables(folder / "a"));
  const std::string scale = tq::test::read_text(folder / "a/layer_001/qjl_scale.json");
  tq::test::write_text(folder / "a/layer_001/qjl_scale.json", replaced(scale, "\"alpha\"", "\"alpha/d\""));
  CHECK_THROWS_WITH_AS(tq::import_tables(folder / "a"), doctest::Contains("the one known convention"),
                       tq::InputError);
  std::filesystem::remove(folder / "a/layer_001/qjl_scale.json");
  CHECK_THROWS_WITH_AS(tq::import_tables(folder / "a"),
                       doctest::Contains("qjl_scale.json: there is no such file"), tq::InputError);
}
