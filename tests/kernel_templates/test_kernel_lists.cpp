#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernel_templates/catalogue.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "shared/launch.h"
#include "tests/kernel_templates/specs.h"

using namespace tq::gpu;
using tq::catalogue;
using tq::CatalogueEntry;
using tq::test::head_dims;

namespace {

// "encode" of "tq::gpu::encode<...>".
std::string template_of(const CatalogueEntry& entry) {
  const std::string& name = entry.source.name_expression;
  const std::string scope = "tq::gpu::";
  REQUIRE(name.starts_with(scope));
  return name.substr(scope.size(), name.find('<') - scope.size());
}

std::map<std::string, std::size_t> counts(const std::vector<CatalogueEntry>& entries) {
  std::map<std::string, std::size_t> result;
  for (const CatalogueEntry& entry : entries) ++result[template_of(entry)];
  return result;
}

std::set<std::string> name_expressions(const std::vector<CatalogueEntry>& entries) {
  std::set<std::string> names;
  for (const CatalogueEntry& entry : entries) names.insert(entry.source.name_expression);
  return names;
}

// Multiples of 8 from 16 to 1024 that are 2^k times a product of 12, 20, 28 and 36, by how many Paley factors
// the plan takes: built up from the factors.
void orders_below(int order, int factors, std::map<int, int>& fewest) {
  if (order > 1024) return;
  const auto [at, is_new] = fewest.emplace(order, factors);
  if (!is_new) {
    if (at->second <= factors) return;
    at->second = factors;
  }
  orders_below(2 * order, factors, fewest);
  for (const int paley : {12, 20, 28, 36}) orders_below(order * paley, factors + 1, fewest);
}

void check_unique(const std::vector<CatalogueEntry>& entries) {
  std::map<std::string, std::string> labels, names;
  for (const CatalogueEntry& entry : entries) {
    CHECK(entry.name == entry.source.label);
    CHECK(!entry.source.text.empty());
    const auto [label, new_label] = labels.emplace(entry.name, entry.source.name_expression);
    CHECK_MESSAGE(new_label, "'", entry.name, "' is ", label->second, " and ", entry.source.name_expression);
    const auto [name, new_name] = names.emplace(entry.source.name_expression, entry.name);
    CHECK_MESSAGE(new_name, entry.source.name_expression, " is '", name->second, "' and '", entry.name, "'");
  }
}

}  // namespace

TEST_CASE("labels and name expressions say one thing each") {
  check_unique(catalogue());
  check_unique(tq::covering_catalogue());
}

TEST_CASE("the catalogue holds every specialisation, counted another way") {
  constexpr std::size_t kElementTypes = 3, kLayoutCount = 2, kRotations = 2, kQueryTileCounts = 2;
  const std::size_t dims = head_dims().size();
  std::map<std::string, std::size_t> wanted;

  std::map<int, int> orders;
  orders_below(1, 0, orders);
  for (const auto& [order, paley_factors] : orders) {
    if (order < 16 || order % 8 != 0) continue;
    const std::size_t directions = paley_factors == 0 ? 1 : 2;
    // Two 16-bit elements go to the tensor cores.
    const std::size_t halves = paley_factors == 1 && order % 16 == 0 && order <= 256 ? 2 : 0;
    wanted["wht_halves"] += halves * directions;
    wanted[paley_factors > 1 ? "wht_mixed" : "wht"] += (kElementTypes - halves) * directions;
  }

  wanted["append"] = 1;

  // Groups: 16 divides all six head dims, 32 all but 80, 64 all but 80 and 96, 128 two of them.
  constexpr std::size_t kGroupings = (6 + 5 + 4 + 2) * 4;
  wanted["encode_groups"] = wanted["decode_groups"] = kGroupings * kLayoutCount * kElementTypes;

  // Keys of 2, 3 and 4 bits: three scale rules, or two sketches. Rotated values are mse on the other side.
  constexpr std::size_t kMse = 3 * 3, kProd = 3 * 2;
  // In tiles the two sides differ, in core's layout they do not.
  wanted["encode"] = dims * kRotations * kElementTypes * ((2 * kMse + kProd) + (kMse + kProd));
  // To tiles, from vectors that are binary16 or become it: three head dims, the Hadamard rotation. Where the
  // vectors are binary16 nothing is left to the other kernel.
  constexpr std::size_t kHalvesDims = 3;
  wanted["encode_halves"] = kHalvesDims * kElementTypes * 2 * kMse;
  wanted["encode"] -= kHalvesDims * 2 * kMse;
  // From here on the scale rule does not matter.
  constexpr std::size_t kMseKinds = 3, kKeyKinds = kMseKinds + kProd, kRotatedKinds = 3;
  wanted["decode"] = dims * kRotations * kElementTypes * ((2 * kMseKinds + kProd) + (kMseKinds + kProd));
  wanted["rotate"] = dims * kRotations * kElementTypes * kKeyKinds;
  wanted["scores"] = dims * kRotations * kQueryTileCounts * (kMseKinds + 3 * kProd);
  // 64, 80, 96 and 128 with one query tile and with two, 192 and 256 with one: groupings as above, by head
  // dim.
  const auto attends = [](std::size_t groupings) {
    return 1 + kRotations * kKeyKinds * (kRotatedKinds + 4 * groupings);
  };
  wanted["attend"] = 2 * (attends(3) + attends(1) + attends(2) + attends(4)) + attends(3) + attends(4);

  CHECK(counts(catalogue()) == wanted);
  const auto total = [](const std::map<std::string, std::size_t>& by_template) {
    std::size_t sum = 0;
    for (const auto& [name, count] : by_template) sum += count;
    return sum;
  };
  CHECK(catalogue().size() == total(wanted));
  MESSAGE("the catalogue: ", catalogue().size(),
          " kernels; its covering part: ", tq::covering_catalogue().size());
}

TEST_CASE("what callers ask for is in the catalogue") {
  const std::set<std::string> known = name_expressions(catalogue());
  const auto has = [&](const tq::KernelSource& source) {
    CHECK_MESSAGE(known.contains(source.name_expression), source.label, ": ", source.name_expression);
  };
  for (const int d : head_dims()) {
    for (KeySpec key : tq::test::key_specs(d, 1)) {
      if (key.table_bits + (key.prod ? 1 : 0) < 2 || key.table_bits + (key.prod ? 1 : 0) > 4) continue;
      for (const Element element : {Element::f32, Element::f16, Element::bf16}) {
        for (const Layout layout : {Layout::tiles, Layout::canonical}) {
          for (const Side side : {Side::keys, Side::values}) {
            if (side == Side::values && key.prod) continue;
            const EncodeSpec spec{key, side, layout, element};
            if (encodes_halves(spec)) has(encode_halves_kernel(spec));
            if (!encodes_halves(spec) || element != Element::f16) has(encode_kernel(spec));
            has(decode_kernel({key, side, layout, element}));
          }
        }
      }
      key.scale = ScaleRule::norm;
      for (int query_tiles = 1; query_tiles <= 2; ++query_tiles) {
        has(scores_kernel(with_block({key, query_tiles, ScorePart::all, 0, 0}, kServerSharedLimit)));
        if (query_tiles > attend_query_tiles(d, kMaxGroup)) continue;
        for (int bits = 2; bits <= 4; ++bits) {
          const ValueSpec value{true, {d, bits, false, ScaleRule::norm, key.rotation, Mixing::hadamard}, {}};
          has(attend_kernel(with_block({true, key, value, d, query_tiles, 0, 0}, kServerSharedLimit)));
        }
        for (const GroupSpec& group : tq::test::group_specs(d))
          has(attend_kernel(
              with_block({true, key, {false, {}, group}, d, query_tiles, 0, 0}, kServerSharedLimit)));
      }
    }
  }
}

TEST_CASE("the covering part is a part, and has every template") {
  std::set<std::string> known = name_expressions(catalogue());
  known.merge(name_expressions(catalogue(kLeastSharedLimit)));
  for (const CatalogueEntry& entry : tq::covering_catalogue()) {
    CHECK_MESSAGE(known.contains(entry.source.name_expression), entry.name,
                  " is not in the catalogue: ", entry.source.name_expression);
  }
  std::set<std::string> all, covered;
  for (const auto& [name, count] : counts(catalogue())) all.insert(name);
  for (const auto& [name, count] : counts(tq::covering_catalogue())) covered.insert(name);
  CHECK(covered == all);
}
