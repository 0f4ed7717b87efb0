#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/codebook.h"
#include "core/codec_config.h"
#include "core/rotation.h"
#include "core/sketch.h"

// The codec once more, slow and obvious, in float64 and from the definitions: what core/ is compared with. It
// shares no code with core/; it only reads the random objects (signs, permutations, matrices) that core/
// drew.
namespace tq::reference {

using Vector = std::vector<double>;

struct Matrix {
  std::size_t order = 0;
  std::vector<double> entries;  // row-major

  explicit Matrix(std::size_t n) : order(n), entries(n * n) {}
  double& at(std::size_t i, std::size_t j) { return entries[i * order + j]; }
  double at(std::size_t i, std::size_t j) const { return entries[i * order + j]; }
};

Vector multiply(const Matrix& m, std::span<const double> x);
Vector multiply_transposed(const Matrix& m, std::span<const double> x);
Vector widen(std::span<const float> x);
double dot(std::span<const double> a, std::span<const double> b);
double norm(std::span<const double> a);
double cosine(std::span<const double> a, std::span<const double> b);
// ||a - b|| / ||b||, and ||a - b|| where b is zero.
double relative_error(std::span<const double> a, std::span<const double> b);

// --- random numbers ---
// Philox4x32-10 as Salmon et al. print it: ten rounds, the key raised by the Weyl constants between them.
std::vector<std::uint32_t> philox4x32_10(const std::uint32_t (&counter)[4], const std::uint32_t (&key)[2]);

// --- Hadamard matrices and rotations ---
Matrix sylvester(std::size_t order);
// Paley I for q = 3 mod 4 (order q + 1), Paley II for q = 1 mod 4 (order 2 q + 2).
Matrix paley(std::size_t q);
Matrix kronecker(const Matrix& a, const Matrix& b);
// The Kronecker product that the plan names.
Matrix hadamard(const HadamardPlan& plan);
// Whether H is +-1 and H H^T = n I, in integers.
bool is_hadamard(const Matrix& h);

Matrix dense(const Rotation& rotation);
Matrix dense(const Sketch& sketch);

// --- binary16 ---
// The nearest half of a finite value, ties to the even mantissa; +-infinity from 65520 on. By search in a
// table.
std::uint16_t to_half(double value);
double from_half(std::uint16_t bits);
// Half as far from `value` as its rounding may lie: half a unit in the last place of binary16 at that size.
double half_rounding(double value);

// --- codebooks ---
// Integrals of f and t f over [a, b] by Gauss-Legendre quadrature, f the density of one coordinate of a
// uniformly random unit vector in R^d.
struct CellMoments {
  double mass, first;
};
CellMoments sphere_moments(int head_dim, double a, double b);
double sphere_mse(int head_dim, const std::vector<double>& centroids, const std::vector<double>& boundaries);
// Lloyd's iteration until no centroid moves by more than 1e-13; positive centroids in increasing order.
Vector lloyd_max(int head_dim, int bits);

// --- codes ---
// i with boundaries[i] < y <= boundaries[i + 1], by linear scan.
int cell(const Codebook& codebook, double y);
// How far y is from the nearest inner boundary.
double distance_to_boundary(const Codebook& codebook, double y);
std::vector<std::uint8_t> pack(std::span<const int> codes, int bits);
std::vector<int> unpack(std::span<const std::uint8_t> bytes, std::size_t count, int bits);

// --- keys ---
// u = x / ||x|| rotated; zeros for x = 0.
Vector rotated_direction(const Matrix& rotation, std::span<const double> x);
Vector centroids_of(const Codebook& codebook, std::span<const int> codes);
// g before it is rounded to binary16.
double scale_of(ScaleRule rule, double n, std::span<const double> y, std::span<const double> c);
Vector decode_mse(const Matrix& rotation, const Codebook& codebook, std::span<const int> codes, double g);
// `signs`: +1 or -1.
Vector decode_prod(const Matrix& rotation, const Matrix& sketch, const Codebook& codebook,
                   std::span<const int> codes, double n, std::span<const int> signs, double residual_norm,
                   double alpha);

// --- group values ---
struct Group {
  std::uint16_t zero, scale;
  std::vector<int> codes;
};
Group quantise_group(std::span<const float> x, int bits);
Vector reconstruct(const Group& group);

// --- attention ---
Vector softmax(std::span<const double> scores);
// KL(softmax(exact) || softmax(approximate)), nats.
double kl_divergence(std::span<const double> exact, std::span<const double> approximate);

}  // namespace tq::reference
