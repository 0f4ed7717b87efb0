#pragma once

#include <string>
#include <string_view>

// The choices that name a codec, as plain values. Each enum has one pair of text conversions, used by the
// command line, configuration files, artefacts and messages alike.
namespace tq {

enum class RotationKind { qr, rht };    // dense Haar matrix; randomised Hadamard transform
enum class KeyMode { mse, prod };       // Lloyd-Max alone; Lloyd-Max of b-1 bits and a 1-bit QJL sketch
enum class ScaleRule { norm, nc, ls };  // g = n; n/||c||; n <y,c>/||c||^2
enum class SketchKind { gaussian, orthogonal };  // iid N(0,1); sqrt(d) times an RHT
enum class ValueMode { group, rotated };         // min and scale a group; the key codec applied to values
enum class AlphaTarget { unbiased, mse, cos, score };

std::string_view to_string(RotationKind);
std::string_view to_string(KeyMode);
std::string_view to_string(ScaleRule);
std::string_view to_string(SketchKind);
std::string_view to_string(ValueMode);
std::string_view to_string(AlphaTarget);

// Parses one of the enums above; throws UsageError that lists the choices. `option` names what was being set.
template <typename Enum>
Enum parse_choice(std::string_view option, std::string_view text);

struct KeyConfig {
  KeyMode mode = KeyMode::mse;
  int bits = 3;                                // mse: 1..8; prod: 2..8, the sign bit included
  ScaleRule scale = ScaleRule::nc;             // mse only; prod stores the norm
  SketchKind sketch = SketchKind::orthogonal;  // prod only

  // Bits of the Lloyd-Max index: `bits`, less the sign bit in prod mode.
  int table_bits() const { return mode == KeyMode::prod ? bits - 1 : bits; }
  friend bool operator==(const KeyConfig&, const KeyConfig&) = default;
};

struct ValueConfig {
  ValueMode mode = ValueMode::rotated;
  int bits = 3;                     // group: 2, 3, 4, 8; rotated: 1..8
  int group_size = 32;              // group only
  ScaleRule scale = ScaleRule::nc;  // rotated only
  friend bool operator==(const ValueConfig&, const ValueConfig&) = default;
};

// Throws UsageError for what is no multiple of 8 from 16 to 1024.
void validate_head_dim(int head_dim);

// Throw UsageError when a field is out of range, or when group_size does not divide head_dim.
void validate(const KeyConfig&, int head_dim);
void validate(const ValueConfig&, int head_dim);

// Stored bytes of one token and KV head: codes, scales and norms.
// mse d b/8 + 2; prod d b/8 + 4; group d b/8 + 4 d/gs; rotated d b/8 + 2.
int bytes_per_token(const KeyConfig&, int head_dim);
int bytes_per_token(const ValueConfig&, int head_dim);

// "mse3-nc", "prod3-orthogonal", "group2-gs32", "rotated3-nc": for tables, logs and file names.
std::string describe(const KeyConfig&);
std::string describe(const ValueConfig&);

}  // namespace tq
