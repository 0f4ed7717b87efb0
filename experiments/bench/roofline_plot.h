#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/bench/bench_file.h"
#include "experiments/sweep/plot_script.h"

namespace tq::bench {

// Attention and scores against what memory allows: the bytes that must move, and the time that it took.
struct RooflinePlot {
  struct Series {
    std::string label;
    std::vector<PlotPoint> points;  // x: megabytes, y: microseconds
  };
  std::string title;
  double bytes_per_us;  // of the read probe
  std::vector<Series> series;
};

// Of a file's families attend, score, size and capacity, one series a family and codec. Throws InputError
// where the file has no read probe, or none of those rows.
RooflinePlot roofline_of(const BenchFile& file, const std::string& path);

// The plot as gnuplot's commands, data included.
std::string roofline_script(const RooflinePlot& plot, PlotFormat format);
std::string roofline_text(const RooflinePlot& plot);
nlohmann::ordered_json to_json(const RooflinePlot& plot);

}  // namespace tq::bench
