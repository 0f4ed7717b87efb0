#pragma once

#include <string_view>

#include "calibration/coordinate_histogram.h"
#include "core/codebook.h"

namespace tq {

// Lloyd-Max on a histogram whose bins are taken as uniform: minimises E (y - c[i(y)])^2 from the sphere's
// table as start, until no centroid moves by more than 1e-10. Cells that no sample falls into keep their
// place between their neighbours. Throws InputError when the histogram is empty; `where` begins the message
// ("model.kv.h5: layer 3").
Codebook fit_codebook(const CoordinateHistogram& histogram, int bits, std::string_view where);

}  // namespace tq
