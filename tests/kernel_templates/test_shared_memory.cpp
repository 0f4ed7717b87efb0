#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "shared/launch.h"
#include "tests/kernel_templates/specs.h"

using namespace tq::gpu;
using tq::test::head_dims;

namespace {

std::string text(const ValueSpec& value) {
  return value.rotated
             ? "rotated" + std::to_string(value.table.table_bits)
             : "group" + std::to_string(value.group.bits) + "-gs" + std::to_string(value.group.group_size);
}

}  // namespace

TEST_CASE("codec kernels fit into the smallest shared memory") {
  for (const int d : head_dims()) {
    for (const KeySpec& key : tq::test::key_specs(d, 1)) {
      if (key.prod && key.table_bits > 3) continue;  // five bits with the sign: no kernels
      CAPTURE(tq::test::text_of(key));
      for (const Layout layout : {Layout::tiles, Layout::canonical}) {
        const EncodeSpec spec{key, Side::keys, layout, Element::f32};
        CHECK(encode_shared_bytes(spec) <= kLeastSharedLimit);
        if (encodes_halves(spec)) CHECK(encode_halves_shared_bytes(spec) <= kLeastSharedLimit);
      }
      CHECK(decode_shared_bytes(key) <= kLeastSharedLimit);
      CHECK(rotate_shared_bytes(key) <= kLeastSharedLimit);
    }
    for (const GroupSpec& group : tq::test::group_specs(d))
      CHECK(group_shared_bytes(group) <= kLeastSharedLimit);
  }
}

TEST_CASE("score and attention kernels fit into any GPU's shared memory, staged where it is large") {
  const auto check = [](const auto& asked, const auto& bytes_of, bool stages) {
    for (const int limit : {kLeastSharedLimit, kServerSharedLimit}) {
      const auto spec = with_block(asked, limit);
      CAPTURE(spec.warps);
      CHECK(bytes_of(spec) <= limit);
      CHECK(spec.warps * kLanes <= 1024);
      if (limit == kServerSharedLimit) CHECK((spec.stages > 0) == stages);
    }
  };
  for (const int d : head_dims()) {
    for (int query_tiles = 1; query_tiles <= 2; ++query_tiles) {
      const bool attends = query_tiles <= attend_query_tiles(d, kMaxGroup);
      const auto check_attend = [&](const AttendSpec& spec) {
        check(spec, attend_shared_bytes, spec.quantised);
      };
      if (attends) check_attend({false, {}, {}, d, query_tiles, 0, 0});
      for (const KeySpec& key : tq::test::key_specs(d, 1)) {
        CAPTURE(tq::test::text_of(key));
        CAPTURE(query_tiles);
        for (const ScorePart part : {ScorePart::all, ScorePart::table, ScorePart::signs})
          check(ScoreSpec{key, query_tiles, part, 0, 0}, score_shared_bytes, true);
        if (!attends) continue;
        std::vector<ValueSpec> values;
        for (int bits = 1; bits <= 4; ++bits)
          values.push_back({true, {d, bits, false, ScaleRule::norm, key.rotation, Mixing::hadamard}, {}});
        for (const GroupSpec& group : tq::test::group_specs(d)) values.push_back({false, {}, group});
        for (const ValueSpec& value : values) {
          CAPTURE(text(value));
          const AttendSpec spec{true, key, value, d, query_tiles, 0, 0};
          check_attend(spec);
          // Tiles follow the query fragments, and the work, 16 bytes aligned.
          CHECK(attend_queries_bytes(spec) % 16 == 0);
          CHECK(attend_work_bytes(with_block(spec, kServerSharedLimit)) % 16 == 0);
          CHECK(attend_image_bytes(spec) % 16 == 0);
        }
      }
    }
  }
}
