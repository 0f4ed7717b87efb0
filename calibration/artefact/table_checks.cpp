#include "calibration/artefact/table_checks.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace tq {

void validate_unit_table(const Codebook& codebook, int bits, const std::string& where) {
  if (codebook.bits != bits)
    throw InputError("{}: a table of {} bits; {} are wanted", where, codebook.bits, bits);
  validate(codebook, where);
  if (codebook.boundaries.front() != -1 || codebook.boundaries.back() != 1) {
    throw InputError(
        "{}: boundaries end at {} and {}; -1 and 1, the support of a unit vector's coordinates, are wanted",
        where, codebook.boundaries.front(), codebook.boundaries.back());
  }
}

bool boundaries_are_midpoints(const Codebook& codebook) {
  for (std::size_t i = 0; i + 1 < codebook.centroids.size(); ++i) {
    const double below = codebook.centroids[i], above = codebook.centroids[i + 1];
    const double slack = std::ldexp(std::max(std::abs(below), std::abs(above)), -23);
    if (std::abs(codebook.boundaries[i + 1] - (below + above) / 2) > slack) return false;
  }
  return true;
}

std::vector<float> to_float32(const std::vector<double>& values) {
  std::vector<float> out;
  for (const double value : values) out.push_back(static_cast<float>(value));
  return out;
}

std::vector<double> to_float64(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace tq
