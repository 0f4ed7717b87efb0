#pragma once

#include <string_view>
#include <vector>

namespace tq {

// A scalar quantiser of b bits. `centroids`: 2^b, strictly increasing. `boundaries`: 2^b + 1, the outer two
// are the ends of the support (-1 and 1 for coordinates of a unit vector); y is given index i when
// boundaries[i] < y <= boundaries[i+1], the ends open, so a tie goes to the lower index.
struct Codebook {
  int bits = 0;
  std::vector<double> centroids;
  std::vector<double> boundaries;
  friend bool operator==(const Codebook&, const Codebook&) = default;
};

// Midpoints of neighbouring centroids between -1 and 1: the nearest-centroid rule.
std::vector<double> midpoint_boundaries(const std::vector<double>& centroids);

// Throws InputError unless sizes are 2^bits and 2^bits + 1 with bits in 1..8, everything is finite, both
// lists are strictly increasing (also after rounding to float32, which is what decoders hold), and every
// centroid lies in its own cell. `where` begins the message ("keys.tq.h5: /layers/003/key").
void validate(const Codebook&, std::string_view where);

// What decides a key's reconstruction, as one unit: a table without its alpha, or the other way round, cannot
// be built or loaded. `qjl_scale` is the bare alpha of the sketch (the decoder divides by d); 0 in mse mode.
struct KeyTables {
  Codebook codebook;
  double qjl_scale = 0;
  friend bool operator==(const KeyTables&, const KeyTables&) = default;
};

// Throws InputError as validate(Codebook) does, and when qjl_scale is not finite or outside [0, 2].
void validate(const KeyTables&, std::string_view where);

// The Lloyd-Max quantiser of one coordinate of a uniformly random unit vector in R^d, d >= 4, bits 1..8
// (arXiv:2504.19874, eq. 4 and section 3.1). From closed forms of the marginal's partial moments; the
// centroid condition holds to 1e-13. Symmetric about 0.
Codebook sphere_codebook(int head_dim, int bits);

// d E (y - c[i(y)])^2 for the same marginal, boundaries as given: the relative mean squared error of a vector
// whose coordinates are quantised by `codebook` with scale rule `norm`.
double sphere_mse(const Codebook& codebook, int head_dim);

// Largest |c_i - E(y | cell i)| over the cells: 0 for a converged Lloyd-Max table with midpoint boundaries.
double sphere_centroid_residual(const Codebook& codebook, int head_dim);

// alpha = sqrt(pi/2): <q, r^> is unbiased for a Gaussian sketch (arXiv:2406.03482, Definition 3.1). The
// double that sqrt(pi / 2) evaluates to, one unit in the last place below the nearest one: bit-exact with
// upstream's default.
inline constexpr double kUnbiasedAlpha = 1.2533141373155001;

// Least-squares alpha for an isotropic residual, the expectation of the closed form over the sketch.
double isotropic_alpha_gaussian(int head_dim);
double isotropic_alpha_orthogonal(int head_dim);

}  // namespace tq
