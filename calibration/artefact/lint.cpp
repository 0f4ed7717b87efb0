#include "calibration/artefact/lint.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "calibration/artefact/import.h"
#include "calibration/artefact/table_checks.h"
#include "core/error.h"

namespace tq {
namespace {

// A centroid of about 0.2 is off by up to 7e-9 as float32, by 5e-8 when printed with seven digits.
constexpr double kCentroidTolerance = 1e-7;
// The MSE is flat at its minimum: within 1e-4 of it nothing but a finished or an unfinished iteration
// explains a table.
constexpr double kUnfinishedExcess = 1e-4;
// Tables fitted to activations stay far below this; a 4-bit table with 2.1 times the optimal MSE was shipped
// once.
constexpr double kBrokenExcess = 0.25;
// Quadrature of other programs agrees with the closed form to about 1e-6.
constexpr double kStatedMseTolerance = 1e-5;

struct Optimum {
  Codebook codebook;
  double mse = 0;
};

// A table from theory is symmetric about 0 whether or not its iteration finished; one fitted to data never
// is, not even with 1e10 samples.
bool is_symmetric(const Codebook& codebook) {
  constexpr double kTolerance = 1e-6;
  const std::size_t n = codebook.centroids.size();
  for (std::size_t i = 0; i < n / 2; ++i) {
    if (std::fabs(codebook.centroids[i] + codebook.centroids[n - 1 - i]) > kTolerance) return false;
  }
  return true;
}

class Linter {
 public:
  std::vector<LintFinding> findings;

  void table(const std::string& place, const ImportedTable& table, int head_dim) {
    const Optimum& best = optimum(head_dim, table.codebook.bits);
    const Codebook& codebook = table.codebook;
    const double mse = sphere_mse(codebook, head_dim);
    const double excess = mse / best.mse - 1;
    std::size_t worst = 0;
    for (std::size_t i = 0; i < codebook.centroids.size(); ++i) {
      if (distance(codebook, best, i) > distance(codebook, best, worst)) worst = i;
    }
    const bool midpoints = boundaries_are_midpoints(codebook);
    const std::string optimum_name = fmt::format("the optimum of d = {}, b = {}", head_dim, codebook.bits);

    if (excess > kBrokenExcess) {
      problem(place, "MSE {:.9f} is {:.2f} times that of {}", mse, mse / best.mse, optimum_name);
    } else if (distance(codebook, best, worst) <= kCentroidTolerance) {
      if (midpoints) note(place, "optimal: {}, MSE {:.9f}", optimum_name, mse);
    } else if (excess < kUnfinishedExcess && is_symmetric(codebook)) {
      problem(place, "the iteration stopped early: centroid {} is {:.12f}, {} has {:.12f} (MSE {:+.2g} %)",
              worst, codebook.centroids[worst], optimum_name, best.codebook.centroids[worst], 100 * excess);
    } else {
      note(place, "MSE on the sphere differs from {} by {:.2g} % (a table fitted to data does)", optimum_name,
           100 * excess);
    }
    if (!midpoints) {
      note(place,
           "boundaries are not the midpoints of the centroids: a reader that re-derives them decides "
           "otherwise");
    }
    stated_mse(place, "mse_total", table.stated_mse_total, mse);
    stated_mse(place, "mse_per_coord", table.stated_mse_per_coord, mse / head_dim);
  }

  // `key`: absent where the file does not say; an alpha of 0 means no sign bit.
  void alpha(const std::string& place, double alpha, int head_dim, const std::optional<KeyConfig>& key) {
    if (alpha == 0) {
      if (key && key->mode == KeyMode::prod)
        problem(place, "qjl_scale is 0: the sign bit is stored and not used");
      return;
    }
    constexpr double kSmallestAlpha =
        0.1;  // alpha / d of every d in use is below it, every useful alpha above
    if (alpha < kSmallestAlpha) {
      problem(place, "qjl_scale {:.6g} is far below every useful alpha; {:.6g} divided by d?", alpha,
              alpha * head_dim);
      return;
    }
    const auto against = [&](double reference) { return 100 * (alpha / reference - 1); };
    std::string text = fmt::format("alpha {:.6g} is {:+.2f} % from unbiased", alpha, against(kUnbiasedAlpha));
    if (!key || key->sketch == SketchKind::gaussian) {
      text += fmt::format(", {:+.2f} % from the isotropic optimum of a Gaussian sketch",
                          against(isotropic_alpha_gaussian(head_dim)));
    }
    if (!key || key->sketch == SketchKind::orthogonal) {
      text += fmt::format(", {:+.2f} % from that of an orthogonal sketch",
                          against(isotropic_alpha_orthogonal(head_dim)));
    }
    note(place, "{}", text);
  }

  template <typename... Args>
  void problem(const std::string& place, fmt::format_string<Args...> text, Args&&... args) {
    findings.push_back({LintSeverity::problem, place, fmt::format(text, std::forward<Args>(args)...)});
  }

 private:
  template <typename... Args>
  void note(const std::string& place, fmt::format_string<Args...> text, Args&&... args) {
    findings.push_back({LintSeverity::note, place, fmt::format(text, std::forward<Args>(args)...)});
  }

  static double distance(const Codebook& codebook, const Optimum& best, std::size_t i) {
    return std::abs(codebook.centroids[i] - best.codebook.centroids[i]);
  }

  void stated_mse(const std::string& place, const char* name, const std::optional<double>& stated,
                  double mse) {
    if (stated && std::abs(*stated / mse - 1) > kStatedMseTolerance) {
      problem(place, "{} is stated as {:.9g}, the table's is {:.9g}", name, *stated, mse);
    }
  }

  const Optimum& optimum(int head_dim, int bits) {
    const auto [entry, added] = optima_.try_emplace({head_dim, bits});
    if (added) {
      entry->second.codebook = sphere_codebook(head_dim, bits);
      entry->second.mse = sphere_mse(entry->second.codebook, head_dim);
    }
    return entry->second;
  }

  std::map<std::pair<int, int>, Optimum> optima_;
};

std::string place_of(const ImportedLayer& layer, const char* side, std::size_t table, std::size_t tables) {
  return tables == 1 ? fmt::format("{}: {}", layer.name, side)
                     : fmt::format("{}: {}, head {}", layer.name, side, table);
}

}  // namespace

std::string_view to_string(LintSeverity severity) {
  return severity == LintSeverity::note ? "note" : "problem";
}

std::vector<LintFinding> lint_file(const std::string& path, Trust trust) {
  const ImportedTables tables = import_tables(path, trust);
  Linter linter;
  for (const std::string& place : tables.unknown)
    linter.problem(place, "not an item of the format; readers ignore it");
  for (const ImportedLayer& layer : tables.layers) {
    for (std::size_t i = 0; i < layer.key_tables.size(); ++i) {
      const std::string place = place_of(layer, "key", i, layer.key_tables.size());
      const ImportedTable& table = layer.key_tables[i];
      linter.table(place, table, layer.head_dim);
      if (table.qjl_scale) linter.alpha(place, *table.qjl_scale, layer.head_dim, layer.key);
    }
    for (std::size_t i = 0; i < layer.value_tables.size(); ++i) {
      linter.table(place_of(layer, "value", i, layer.value_tables.size()), layer.value_tables[i],
                   layer.head_dim);
    }
  }
  return std::move(linter.findings);
}

}  // namespace tq
