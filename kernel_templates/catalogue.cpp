#include "kernel_templates/catalogue.h"

#include <array>
#include <span>

#include "core/hadamard.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "shared/launch.h"

namespace tq {

std::span<const EmbeddedFile> embedded_kernel_sources();

const SourceTree& kernel_sources() {
  static const SourceTree tree{embedded_kernel_sources()};
  return tree;
}

namespace {
using namespace gpu;

constexpr std::array kElements{Element::f16, Element::f32, Element::bf16};
constexpr std::array kMixings{Mixing::hadamard, Mixing::dense};
constexpr std::array kLayouts{Layout::tiles, Layout::canonical};

class List {
 public:
  void add(KernelSource source) { entries_.push_back({source.label, std::move(source)}); }
  std::vector<CatalogueEntry> take() { return std::move(entries_); }

 private:
  std::vector<CatalogueEntry> entries_;
};

std::vector<KeySpec> key_specs(int d, Mixing rotation) {
  std::vector<KeySpec> specs;
  for (int bits = 2; bits <= 4; ++bits) {
    for (const gpu::ScaleRule scale : {gpu::ScaleRule::nc, gpu::ScaleRule::norm, gpu::ScaleRule::ls})
      specs.push_back({d, bits, false, scale, rotation, Mixing::hadamard});
    for (const Mixing sketch : kMixings)
      specs.push_back({d, bits - 1, true, gpu::ScaleRule::norm, rotation, sketch});
  }
  return specs;
}

std::vector<GroupSpec> group_specs(int d) {
  std::vector<GroupSpec> specs;
  for (const int bits : {2, 3, 4, 8}) {
    for (const int size : kGpuGroupSizes) {
      if (d % size == 0) specs.push_back({d, bits, size});
    }
  }
  return specs;
}

// What a decode step can be asked for: the scale rule does not matter to it.
std::vector<ValueSpec> value_specs(int d, Mixing rotation) {
  std::vector<ValueSpec> specs;
  for (int bits = 2; bits <= 4; ++bits)
    specs.push_back({true, {d, bits, false, gpu::ScaleRule::norm, rotation, Mixing::hadamard}, {}});
  for (const GroupSpec& group : group_specs(d)) specs.push_back({false, {}, group});
  return specs;
}

bool for_decoding(const KeySpec& key) { return key.prod || key.scale == gpu::ScaleRule::norm; }

// Fields that a kernel does not read are those of one representative (kernels.h).
void add_codec(List& list, const KeySpec& key, Layout layout, Element element) {
  for (const Side side : {Side::keys, Side::values}) {
    if (side == Side::values && (key.prod || layout == Layout::canonical)) continue;
    const EncodeSpec spec{key, side, layout, element};
    if (encodes_halves(spec)) list.add(encode_halves_kernel(spec));
    if (!encodes_halves(spec) || element != Element::f16) list.add(encode_kernel(spec));
    if (for_decoding(key)) list.add(decode_kernel({key, side, layout, element}));
  }
}
void add_codec(List& list, const GroupSpec& group, Layout layout, Element element) {
  list.add(encode_groups_kernel({group, layout, element}));
  list.add(decode_groups_kernel({group, layout, element}));
}

void add_scores(List& list, const KeySpec& key, int query_tiles, int shared_limit) {
  for (const ScorePart part : {ScorePart::all, ScorePart::table, ScorePart::signs}) {
    if (part == ScorePart::all || key.prod)
      list.add(scores_kernel(with_block({key, query_tiles, part, 0, 0}, shared_limit)));
  }
}

void add_attend(List& list, const KeySpec& key, const ValueSpec& value, int query_tiles, int shared_limit) {
  list.add(attend_kernel(with_block({true, key, value, key.head_dim, query_tiles, 0, 0}, shared_limit)));
}
void add_exact_attend(List& list, int d, int query_tiles) {
  list.add(attend_kernel(with_block({false, {}, {}, d, query_tiles, 0, 0}, kServerSharedLimit)));
}

}  // namespace

std::vector<CatalogueEntry> catalogue(int shared_limit) {
  List list;
  for (int order = 16; order <= 1024; order += 8) {
    if (!hadamard_supported(order)) continue;
    for (const Element element : kElements) {
      list.add(wht_kernel({order, element, false}));
      if (!hadamard_plan(order).paley_orders.empty()) list.add(wht_kernel({order, element, true}));
    }
  }
  list.add(append_kernel());
  for (const int d : kGpuHeadDims) {
    for (const Layout layout : kLayouts) {
      for (const Element element : kElements) {
        for (const GroupSpec& group : group_specs(d)) add_codec(list, group, layout, element);
      }
    }
    for (const Mixing rotation : kMixings) {
      for (const KeySpec& key : key_specs(d, rotation)) {
        for (const Element element : kElements) {
          for (const Layout layout : kLayouts) add_codec(list, key, layout, element);
          if (for_decoding(key)) list.add(rotate_kernel({key, element}));
        }
      }
    }
    for (int query_tiles = 1; query_tiles <= 2; ++query_tiles) {
      const bool attends = query_tiles <= attend_query_tiles(d, kMaxGroup);
      if (attends) add_exact_attend(list, d, query_tiles);
      for (const Mixing rotation : kMixings) {
        for (const KeySpec& key : key_specs(d, rotation)) {
          if (!for_decoding(key)) continue;
          add_scores(list, key, query_tiles, shared_limit);
          if (!attends) continue;
          for (const ValueSpec& value : value_specs(d, rotation))
            add_attend(list, key, value, query_tiles, shared_limit);
        }
      }
    }
  }
  return list.take();
}

std::vector<CatalogueEntry> covering_catalogue() {
  const auto mse = [](int d, int bits, Mixing rotation = Mixing::hadamard) {
    return KeySpec{d, bits, false, gpu::ScaleRule::norm, rotation, Mixing::hadamard};
  };
  const auto prod = [](int d, int bits, Mixing sketch, Mixing rotation = Mixing::hadamard) {
    return KeySpec{d, bits - 1, true, gpu::ScaleRule::norm, rotation, sketch};
  };
  List list;
  list.add(wht_kernel({128, Element::f32, false}));
  list.add(wht_kernel({512, Element::bf16, false}));
  list.add(wht_kernel({576, Element::f16, true}));
  list.add(wht_kernel({192, Element::bf16, true}));  // on the tensor cores
  list.add(wht_kernel({560, Element::f32, true}));   // two Paley factors, one of each kind
  list.add(append_kernel());
  add_codec(list, {128, 3, false, gpu::ScaleRule::nc, Mixing::hadamard, Mixing::hadamard}, Layout::tiles,
            Element::f16);
  add_codec(list, {64, 2, false, gpu::ScaleRule::ls, Mixing::hadamard, Mixing::hadamard}, Layout::tiles,
            Element::bf16);
  add_codec(list, mse(256, 4), Layout::tiles, Element::f32);
  add_codec(list, {80, 4, false, gpu::ScaleRule::ls, Mixing::dense, Mixing::hadamard}, Layout::canonical,
            Element::f32);
  add_codec(list, prod(96, 2, Mixing::dense), Layout::canonical, Element::bf16);
  add_codec(list, prod(256, 3, Mixing::hadamard), Layout::tiles, Element::f16);
  add_codec(list, prod(64, 4, Mixing::hadamard, Mixing::dense), Layout::tiles, Element::f32);
  add_codec(list, GroupSpec{80, 3, 16}, Layout::tiles, Element::f16);
  add_codec(list, GroupSpec{192, 8, 64}, Layout::canonical, Element::f32);
  list.add(rotate_kernel({prod(128, 3, Mixing::dense), Element::f32}));
  list.add(rotate_kernel({prod(96, 3, Mixing::hadamard, Mixing::dense), Element::f16}));
  add_scores(list, prod(128, 3, Mixing::hadamard), 1, kServerSharedLimit);
  add_scores(list, mse(256, 4), 2, kLeastSharedLimit);
  add_attend(list, mse(128, 4), {true, mse(128, 4), {}}, 1, kServerSharedLimit);
  add_attend(list, mse(80, 2), {true, mse(80, 3), {}}, 2, kServerSharedLimit);
  add_attend(list, mse(256, 3), {false, {}, {256, 2, 16}}, 1, kServerSharedLimit);
  add_attend(list, mse(192, 3, Mixing::dense), {true, mse(192, 2, Mixing::dense), {}}, 1, kLeastSharedLimit);
  add_attend(list, prod(128, 3, Mixing::hadamard), {false, {}, {128, 3, 32}}, 1, kServerSharedLimit);
  add_attend(list, prod(96, 2, Mixing::dense), {false, {}, {96, 8, 32}}, 1, kLeastSharedLimit);
  add_attend(list, prod(64, 4, Mixing::hadamard), {false, {}, {64, 4, 64}}, 1, kServerSharedLimit);
  add_exact_attend(list, 80, 1);
  add_exact_attend(list, 256, 1);
  return list.take();
}

}  // namespace tq
