#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/digest.h"
#include "core/error.h"
#include "tests/calibration/artefact/artefact_samples.h"

using tq::Artefact;
using tq::test::plain_artefact;

TEST_CASE("random artefacts are valid") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    CHECK_NOTHROW(tq::validate(tq::test::random_artefact(seed), "x"));
  }
}

TEST_CASE("parts that do not fit together are refused, with the place") {
  struct Case {
    const char* expected;
    std::function<void(Artefact&)> change;
  };
  const double nan = std::nan("");
  const Case cases[] = {
      {"num_q_heads", [](Artefact& a) { a.num_q_heads = 0; }},
      {"divide", [](Artefact& a) { a.num_q_heads = 3; }},
      {"divide", [](Artefact& a) { a.layers[1].num_kv_heads = 0; }},
      {"key_basis", [](Artefact& a) { a.key_basis = "rope"; }},
      {"softmax_scale", [&](Artefact& a) { a.softmax_scale = nan; }},
      {"softmax_scale", [](Artefact& a) { a.softmax_scale = -1; }},
      {"layers", [](Artefact& a) { a.layers.clear(); }},
      {"rotation of head_dim 64 is missing", [](Artefact& a) { a.rotations.clear(); }},
      {"no layer uses",
       [](Artefact& a) { a.rotations.emplace(128, tq::Rotation::make(tq::RotationKind::rht, 128, 1)); }},
      {"is of 128",
       [](Artefact& a) {
         a.rotations.clear();
         a.rotations.emplace(64, tq::Rotation::make(tq::RotationKind::rht, 128, 1));
       }},
      {"sketch of head_dim 64 is missing", [](Artefact& a) { a.sketches.clear(); }},
      {"gaussian sketch", [](Artefact& a) { a.layers[1].key.sketch = tq::SketchKind::gaussian; }},
      {"/layers/001/key: 0 tables", [](Artefact& a) { a.layers[1].key_tables.clear(); }},
      {"/layers/001/key: 3 tables",
       [](Artefact& a) { a.layers[1].key_tables.resize(3, a.layers[1].key_tables[0]); }},
      {"/layers/001/key: a table of 2 bits; 3", [](Artefact& a) { a.layers[1].key.bits = 4; }},
      {"/layers/001/key", [](Artefact& a) { a.layers[1].key.bits = 9; }},
      {"/layers/001/value: 0 tables", [](Artefact& a) { a.layers[1].value_tables.clear(); }},
      {"/layers/001/value: a table of 3 bits; 4", [](Artefact& a) { a.layers[1].value.bits = 4; }},
      {"/layers/001/value: group values have no table",
       [](Artefact& a) { a.layers[1].value = {.mode = tq::ValueMode::group, .bits = 2}; }},
      {"/layers/000/key", [&](Artefact& a) { a.layers[0].key_tables[0].codebook.centroids[1] = nan; }},
      {"/layers/000/key", [](Artefact& a) { a.layers[0].key_tables[0].codebook.centroids.pop_back(); }},
      {"/layers/000/key",
       [](Artefact& a) {
         std::swap(a.layers[0].key_tables[0].codebook.centroids[0],
                   a.layers[0].key_tables[0].codebook.centroids[1]);
       }},
      {"boundaries end at", [](Artefact& a) { a.layers[0].key_tables[0].codebook.boundaries[0] = -2; }},
      {"boundaries end at", [](Artefact& a) { a.layers[0].value_tables[0].boundaries.back() = 1.5; }},
      {"qjl_scale", [](Artefact& a) { a.layers[0].key_tables[0].qjl_scale = 2.5; }},
      {"qjl_scale", [&](Artefact& a) { a.layers[0].key_tables[0].qjl_scale = nan; }},
      {"mse keys have no sign bit",
       [](Artefact& a) { a.layers[0].key = {.mode = tq::KeyMode::mse, .bits = 2}; }},
      {"candidate 1 was kept, of 0", [](Artefact& a) { a.layers[0].key_gate.kept = 1; }},
      {"not finite",
       [&](Artefact& a) {
         a.layers[0].key_gate.candidates.push_back({"x", {.relative_mse = nan}, {}});
       }},
      {"negative count", [](Artefact& a) { a.provenance.fit_tokens = -1; }},
      {"zero byte", [](Artefact& a) { a.provenance.model = std::string("a\0b", 3); }},
      {"the most", [](Artefact& a) { a.provenance.command_line = std::string(100'000, 'x'); }},
  };
  for (const Case& one : cases) {
    Artefact artefact = plain_artefact();
    one.change(artefact);
    std::string message;
    try {
      tq::validate(artefact, "x.tq.h5");
    } catch (const tq::InputError& error) {
      message = error.what();
    }
    CAPTURE(one.expected);
    CAPTURE(message);
    CHECK(message.starts_with("x.tq.h5: "));
    CHECK(message.find(one.expected) != message.npos);
    CHECK(message.find('\n') == message.npos);
  }
}

TEST_CASE("the digest follows what a decoder uses, and nothing else") {
  const std::string original = tq::artefact_digest(plain_artefact());
  const auto digest_after = [](const std::function<void(Artefact&)>& change) {
    Artefact artefact = plain_artefact();
    change(artefact);
    return tq::artefact_digest(artefact);
  };
  CHECK(digest_after([](Artefact&) {}) == original);
  CHECK(digest_after([](Artefact& a) { a.provenance.command_line = "other"; }) == original);
  CHECK(digest_after([](Artefact& a) { a.layers[0].key_gate.reason = "other"; }) == original);
  CHECK(digest_after([](Artefact& a) { a.layers[0].key.scale = tq::ScaleRule::ls; }) ==
        original);  // prod: unused

  CHECK(digest_after([](Artefact& a) { a.layers[1].key_tables[0].qjl_scale += 1e-6; }) != original);
  CHECK(digest_after([](Artefact& a) { a.layers[1].key_tables[0].codebook.centroids[2] += 1e-7; }) !=
        original);
  CHECK(digest_after([](Artefact& a) { a.layers[1].value_tables[0].boundaries[2] += 1e-7; }) != original);
  CHECK(digest_after([](Artefact& a) { a.layers[1].value.scale = tq::ScaleRule::ls; }) != original);
  CHECK(digest_after([](Artefact& a) { a.layers[1].num_kv_heads = 1; }) != original);
  CHECK(digest_after([](Artefact& a) { a.key_basis = "pre_rope"; }) != original);
  CHECK(digest_after([](Artefact& a) { a.softmax_scale = 0.125; }) != original);
  CHECK(digest_after([](Artefact& a) { a.layers.pop_back(); }) != original);
  CHECK(digest_after([](Artefact& a) {
          a.rotations.clear();
          a.rotations.emplace(64, tq::Rotation::make(tq::RotationKind::rht, 64, 8));
        }) != original);
  CHECK(digest_after([](Artefact& a) {
          a.sketches.clear();
          a.sketches.emplace(64, tq::Sketch::make(tq::SketchKind::orthogonal, 64, 9));
        }) != original);
}
