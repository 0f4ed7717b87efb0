#pragma once

#include "calibration/codec_candidates.h"
#include "calibration/evaluate_capture.h"
#include "core/codec_config.h"
#include "experiments/command_line.h"

namespace tq {

// The options that choose a codec: --key-mode, --key-bits, --scale, --sketch, --alpha, --value-mode,
// --value-bits,
// --group-size, --rotation, --seed. `default_alpha` is the command's.
void add_codec_options(CommandLine& line, AlphaTarget default_alpha);
CodecOptions read_codec_options(const CommandLine& line);
// Whether the user chose any of them.
bool codec_options_given(const CommandLine& line);

// The same options, of which modes and bits are lists with these defaults: every mode takes those of the bits
// that it has.
struct CandidateDefaults {
  const char* key_bits;
  const char* value_modes;
  const char* value_bits;
};
void add_candidate_options(CommandLine& line, const CandidateDefaults& defaults);
// Group values that do not divide a layer's head_dim are left out unless they were asked for.
CodecCandidates read_candidates(const CommandLine& line, const CaptureInfo& info);

// --first-tokens and --recent-window: tokens that stay exact, by default `recent` of the newest.
void add_policy_options(CommandLine& line, int recent = 0);
CachePolicy read_policy(const CommandLine& line);

}  // namespace tq
