#include <doctest/doctest.h>

#include <string>

#include "kernel_templates/tuning_file.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

TEST_CASE("frozen: the file of tuned blocks") {
  const tq::TuningScope scope{"GPU X", "9.0", 13000, "13.0, build abc", "0123"},
      other{"GPU Y", "8.0", 12040, "12.4", "4567"};
  tq::Tuning tuning, of_other;
  tuning.set({"attend d128 mse4-norm / d128 rotated4 heads8", 6, 9}, {8, 2, 264});
  tuning.set({"scores d64 prod3-gaussian heads4", 3, 12}, {16, 1, 0});
  of_other.set({"scores d64 prod3-gaussian heads4", 3, 12}, {4, 4, 1});
  const char* const name = "tuning_version_1.json";
  tq::test::check_golden_file(name, tq::merge_tuning(tq::merge_tuning("", scope, tuning), other, of_other));
  const std::string frozen = tq::test::read_text(tq::test::golden_path(name));
  CHECK(tq::parse_tuning(frozen, scope).choices() == tuning.choices());
  CHECK(tq::parse_tuning(frozen, other).choices() == of_other.choices());
}
