#pragma once

#include "shared/types.h"

// What kernels are specialised for. Every struct is a template argument: one value, one compiled kernel.
namespace tq::gpu {

// How a rotation or a sketch is applied: O(d log d) butterflies with random signs, or a d x d matrix.
enum class Mixing { hadamard, dense };

enum class ScaleRule { norm, nc, ls };  // as tq::ScaleRule

// Keys, and rotated values (`prod` false).
struct KeySpec {
  int head_dim;
  int table_bits;  // of the Lloyd-Max index: 1..4
  bool prod;       // a sign bit a coordinate and ||r|| besides
  ScaleRule scale;
  Mixing rotation;
  Mixing sketch;  // prod only
};

// Values in group mode.
struct GroupSpec {
  int head_dim;
  int bits;  // 2, 3, 4, 8
  int group_size;
};

enum class Layout { tiles, canonical };  // shared/tile_layout.h; core/packing.h
enum class Side { keys, values };        // which way round a tile's codes lie

struct WhtSpec {
  int order;
  Element element;
  bool transposed;  // H^T; Sylvester's matrix is symmetric, Paley's are not
};

struct RotateSpec {
  KeySpec key;
  Element element;
};

struct EncodeSpec {
  KeySpec key;
  Side side;
  Layout layout;
  Element element;
};

struct DecodeSpec {
  KeySpec key;
  Side side;
  Layout layout;
  Element element;
};

struct GroupCodecSpec {
  GroupSpec group;
  Layout layout;
  Element element;
};

enum class ScorePart { all, table, signs };

struct ScoreSpec {
  KeySpec key;
  int query_tiles;  // of 8 query heads that share a KV head: 1 or 2
  ScorePart part;
  int warps;
  int stages;  // tiles of a warp on their way to shared memory; 0: read where they lie
};

// How values are stored: exactly one of the two is in use, by `rotated`.
struct ValueSpec {
  bool rotated;
  KeySpec table;
  GroupSpec group;
};

struct AttendSpec {
  bool quantised;  // false: binary16 tokens only, the baseline
  KeySpec key;
  ValueSpec value;
  int head_dim;
  int query_tiles;
  int warps;
  int stages;  // as in ScoreSpec, of keys and of values each
};

}  // namespace tq::gpu
