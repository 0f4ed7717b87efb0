#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datasets/trust.h"

namespace tq {

enum class LintSeverity { note, problem };
std::string_view to_string(LintSeverity severity);

struct LintFinding {
  LintSeverity severity = LintSeverity::note;
  std::string place;  // "/layers/003: key, head 1"
  std::string text;   // one line
};

// Judges the tables of a file of any format that import_tables() reads against the Lloyd-Max optimum of their
// (d, b) (core/codebook.h), and alpha against its known optima. Notes: equal to the optimum, or fitted away
// from it; boundaries that are not midpoints. Problems: an iteration that stopped early, an MSE more than 25
// % over the optimum's, a stated MSE that is not the table's, an alpha that looks divided by d, items that
// the format does not have. Throws InputError where the file cannot be read as a whole.
std::vector<LintFinding> lint_file(const std::string& path, Trust trust = Trust::none);

}  // namespace tq
