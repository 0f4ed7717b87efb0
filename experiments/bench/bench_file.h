#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tq::bench {

// What `tq bench --json` wrote.
struct BenchRow {
  std::string name;
  std::string family, codec;  // empty where the row has none
  bool failed = false;        // its result was wrong, so that it has no time
  double median_us = 0, p5_us = 0, p95_us = 0;
  double bytes = 0;                  // 0: no number of the row's
  int batch = 0, tokens = 0, d = 0;  // 0: as above
};

struct BenchFile {
  std::string device, revision;
  std::optional<double> probe_bytes_per_us;
  std::vector<BenchRow> rows;
};

// Whether a path given for results names a file, as a bench writes, rather than a sweep's folder.
bool is_file(const std::string& path);

// Throws InputError, naming the place, for a file that holds something else, or two rows of one name.
BenchFile read_bench_file(const std::string& path);

}  // namespace tq::bench
