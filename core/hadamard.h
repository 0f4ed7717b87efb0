#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tq {

// A Hadamard matrix H of order d as a Kronecker product of Paley matrices of orders 12 (Paley I, q = 11), 20
// (Paley I, q = 19), 28 (Paley II, q = 13) and 36 (Paley II, q = 17) with Sylvester's of order 2^k: H = P_1
// (x) P_2 (x) ... (x) S_{2^k}. H H^T = d I exactly; no padding.
struct HadamardPlan {
  std::vector<int> paley_orders;  // leftmost factor first; empty for powers of two
  int sylvester_order = 1;        // 2^k
};

// Every d = 2^k * product of {12, 20, 28, 36} that is a multiple of 8 from 16 to 1024. Throws UsageError for
// another d, naming the nearest orders that exist.
HadamardPlan hadamard_plan(int order);
bool hadamard_supported(int order);

// +1/-1 entries of the Paley matrix of order 12, 20, 28 or 36, row-major, order x order. Built once, then
// shared.
const std::vector<float>& paley_matrix(int order);

}  // namespace tq
