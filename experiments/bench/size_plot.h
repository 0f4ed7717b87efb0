#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/bench/bench_file.h"
#include "experiments/sweep/plot_script.h"

namespace tq::bench {

// A decode step's attention against one size of its input: tokens, batch or d.
struct SizePlot {
  struct Series {
    std::string label;              // the codec
    std::vector<PlotPoint> points;  // by rising x; y: microseconds
  };
  std::string title, x;
  std::vector<Series> series;
};

// Of a file's family size, those rows whose other two sizes are what most rows have that share them. Throws
// UsageError for another name of x, and InputError where the file has no such rows.
SizePlot sizes_of(const BenchFile& file, const std::string& path, const std::string& x);

// The plot as gnuplot's commands, data included.
std::string size_script(const SizePlot& plot, PlotFormat format);
std::string size_text(const SizePlot& plot);
nlohmann::ordered_json to_json(const SizePlot& plot);

}  // namespace tq::bench
