#pragma once

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

}  // namespace tq
