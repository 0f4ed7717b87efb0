#include "experiments/bench/report.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

namespace tq::bench {
namespace {

Json to_json(const Check& check) {
  return {{check.measure, std::isnan(check.value) ? Json(nullptr) : Json(check.value)},
          {"limit", check.limit},
          {"compared", check.compared}};
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

}  // namespace

void Report::measure(const Row& row, const std::optional<Check>& check, const std::function<Timing()>& time) {
  if (rows_.empty()) {
    fmt::print("{:<78} {:>10} {:>21} {:>10} {:>6} {:>8} {:>8} {:>8}\n", "", "median us", "5th .. 95th %",
               "MB", "TB/s", "of probe", "of copy", "error");
  }
  Json json{{"name", row.name}, {"family", row.family}};
  json.update(row.parameters);
  if (check) json["checked"] = to_json(*check);
  if (check && !check->holds()) {
    all_held_ = false;
    fmt::print("{:<78} FAILED: {} {:.2e}, at most {:.0e}\n", row.name, check->measure, check->value,
               check->limit);
    json["failed"] = true;
  } else {
    const Timing timing = time();
    std::string moved = fmt::format("{:>10} {:>6} {:>8} {:>8}", "", "", "", "");
    json.update({{"median_us", timing.median_us},
                 {"p5_us", timing.p5_us},
                 {"p95_us", timing.p95_us},
                 {"launches", timing.launches},
                 {"copies", timing.copies}});
    if (row.bytes > 0) {
      const double rate = row.bytes / timing.median_us, of_probe = rate / probes_.bytes_per_us();
      json.update({{"bytes", row.bytes}, {"terabytes_per_second", rate / 1e6}, {"share_of_probe", of_probe}});
      std::string of_copy;
      if (row.against_copy) {
        const double share = probes_.copy_us(row.bytes) / timing.median_us;
        json["share_of_copy"] = share;
        of_copy = percent(share);
      }
      moved = fmt::format("{:>10.2f} {:>6.2f} {:>8} {:>8}", row.bytes / 1e6, rate / 1e6, percent(of_probe),
                          of_copy);
    }
    if (row.empty_us) {
      const double over = timing.median_us - *row.empty_us;
      json["over_empty_launch_us"] = over;
      moved = fmt::format("{:>35}", fmt::format("{:.2f} us over an empty launch", over));
    }
    fmt::print("{:<78} {:>10.2f} {:>21} {} {:>8}\n", row.name, timing.median_us,
               fmt::format("{:.2f} .. {:.2f}", timing.p5_us, timing.p95_us), moved,
               check ? fmt::format("{:.1e}", check->value) : "");
  }
  std::fflush(stdout);
  rows_.push_back(std::move(json));
}

}  // namespace tq::bench
