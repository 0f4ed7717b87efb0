#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/codebook.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

ExitCode run_codebook(const Arguments& arguments) {
  CommandLine line("codebook", "print the data-free Lloyd-Max table of a (d, b)",
                   "tq codebook --dim 128 --bits 3");
  line.add()("dim", po::value<int>()->default_value(128)->value_name("D"), "head dimension")(
      "bits", po::value<int>()->default_value(3)->value_name("B"), "1..8")(
      "json", po::bool_switch(), "JSON instead of a table: the file that the upstream Python packages read");
  if (!line.parse(arguments)) return ExitCode::done;
  const int d = line.get<int>("dim"), bits = line.get<int>("bits");
  const Codebook book = sphere_codebook(d, bits);
  const double mse = sphere_mse(book, d);
  if (line.get<bool>("json")) {
    const nlohmann::ordered_json json{{"centroids", book.centroids},
                                      {"boundaries", book.boundaries},
                                      {"mse_per_coord", mse / d},
                                      {"mse_total", mse},
                                      {"d", d},
                                      {"bits", bits}};
    fmt::print("{}\n", json.dump(2));
    return ExitCode::done;
  }
  Table table({"index", "from", "centroid", "to"});
  for (std::size_t i = 0; i < book.centroids.size(); ++i) {
    table.row({fmt::format("{}", i), fmt::format("{:+.12f}", book.boundaries[i]),
               fmt::format("{:+.12f}", book.centroids[i]), fmt::format("{:+.12f}", book.boundaries[i + 1])});
  }
  fmt::print("{}\nd = {}, b = {}: relative MSE {:.9f}, cosine {:.6f}\n", table.text(), d, bits, mse,
             std::sqrt(1 - mse));
  return ExitCode::done;
}

}  // namespace tq
