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

// The most that a block can ask for on sm_86, sm_89 and sm_120; other architectures give more.
constexpr int kLeastOptIn = 99 << 10;

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
        CHECK(encode_shared_bytes({key, Side::keys, layout, Element::f32}) <= kLeastOptIn);
      }
      CHECK(decode_shared_bytes(key) <= kLeastOptIn);
      CHECK(rotate_shared_bytes(key) <= kLeastOptIn);
    }
    for (const GroupSpec& group : tq::test::group_specs(d)) CHECK(group_shared_bytes(group) <= kLeastOptIn);
  }
}

TEST_CASE("score and attention kernels fit into the smallest shared memory") {
  for (const int d : head_dims()) {
    for (int query_tiles = 1; query_tiles <= 2; ++query_tiles) {
      constexpr int warps = kAttendWarps;
      CHECK(warps * kLanes <= 1024);
      const bool attends = query_tiles <= attend_query_tiles(d, kMaxGroup);
      if (attends) CHECK(attend_shared_bytes({false, {}, {}, d, query_tiles, warps}) <= kLeastOptIn);
      for (const KeySpec& key : tq::test::key_specs(d, 1)) {
        CAPTURE(tq::test::text_of(key));
        CAPTURE(query_tiles);
        for (const ScorePart part : {ScorePart::all, ScorePart::table, ScorePart::signs})
          CHECK(score_shared_bytes({key, query_tiles, part}) <= kLeastOptIn);
        if (!attends) continue;
        std::vector<ValueSpec> values;
        for (int bits = 1; bits <= 4; ++bits)
          values.push_back({true, {d, bits, false, ScaleRule::norm, key.rotation, Mixing::hadamard}, {}});
        for (const GroupSpec& group : tq::test::group_specs(d)) values.push_back({false, {}, group});
        for (const ValueSpec& value : values) {
          CAPTURE(text(value));
          const AttendSpec spec{true, key, value, d, query_tiles, warps};
          CHECK(attend_shared_bytes(spec) <= kLeastOptIn);
          // Query fragments follow, 8 bytes aligned.
          CHECK(attend_work_bytes(spec) % 8 == 0);
        }
        CHECK(score_work_bytes({key, query_tiles, ScorePart::all}) % 8 == 0);
      }
    }
  }
}
