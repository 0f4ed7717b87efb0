#pragma once

#include <map>
#include <string>

#include "calibration/timed_backend.h"

namespace tq {

// How long a configuration took. Beside the results, never in them: results are the same on every machine.
struct Timing {
  double seconds = 0;       // wall time of the measurement, its data ready
  CodecTimes keys, values;  // of all layers
};

// A line of timings.jsonl, without its newline. "keys" and "values", where that side was quantised, hold
// "vectors" with "encode_seconds" and "decode_seconds", or with "one_pass_seconds" of what cannot be told
// apart.
std::string timing_line(const std::string& key, std::size_t run, const Timing& timing);

// FOLDER/timings.jsonl by key, of several lines the last. What a kill cut off is left out.
std::map<std::string, Timing> read_timings(const std::string& folder);

}  // namespace tq
