#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/hadamard.h"
#include "tests/support/reference.h"

namespace {

std::string refusal(int order) {
  try {
    tq::hadamard_plan(order);
  } catch (const tq::UsageError& error) {
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the orders that exist") {
  std::vector<int> supported;
  for (int order = -8; order <= 1100; ++order) {
    if (tq::hadamard_supported(order)) supported.push_back(order);
  }
  CHECK(supported == std::vector<int>{16,  24,  32,  40,  48,  56,  64,  72,  80,  96,  112,  128, 144, 160,
                                      192, 224, 240, 256, 288, 320, 336, 384, 400, 432, 448,  480, 512, 560,
                                      576, 640, 672, 720, 768, 784, 800, 864, 896, 960, 1008, 1024});
}

TEST_CASE("the Paley matrices are the reference's") {
  for (const int order : {12, 20, 28, 36}) {
    CAPTURE(order);
    const tq::reference::Matrix expected = tq::reference::hadamard({{order}, 1});
    REQUIRE(expected.order == static_cast<std::size_t>(order));
    CHECK(tq::reference::is_hadamard(expected));
    const std::vector<float>& matrix = tq::paley_matrix(order);
    CHECK(std::vector<double>(matrix.begin(), matrix.end()) == expected.entries);
  }
}

TEST_CASE("every plan multiplies to its order and is a Hadamard matrix") {
  for (int order = 16; order <= 1024; order += 8) {
    if (!tq::hadamard_supported(order)) continue;
    CAPTURE(order);
    const tq::HadamardPlan plan = tq::hadamard_plan(order);
    int product = plan.sylvester_order;
    for (const int paley : plan.paley_orders) product *= paley;
    CHECK(product == order);
    CHECK(tq::reference::is_hadamard(tq::reference::hadamard(plan)));
  }
}

TEST_CASE("is_hadamard sees one wrong sign") {
  tq::reference::Matrix h = tq::reference::hadamard({{12}, 4});
  CHECK(tq::reference::is_hadamard(h));
  h.at(5, 7) = -h.at(5, 7);
  CHECK_FALSE(tq::reference::is_hadamard(h));
}

TEST_CASE("an order without a matrix is refused, and its neighbours are named") {
  CHECK(contains(refusal(88), "order 88"));
  CHECK(contains(refusal(88), "the nearest are 80 and 96"));
  CHECK(contains(refusal(1000), "the nearest are 960 and 1008"));
  CHECK(contains(refusal(120), "the nearest are 112 and 128"));
  CHECK(contains(refusal(20), "16 and 24"));  // a Paley order, but not a multiple of 8
  CHECK(contains(refusal(8), "16"));
  CHECK(contains(refusal(0), "16"));
  CHECK(contains(refusal(1032), "1024"));
}
