#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "datasets/hdf5_storage.h"
#include "datasets/trust.h"

namespace tq::hdf5 {

// Opens a file, in a ConfinedProcess that does all of HDF5's work unless it is trusted. What comes out of
// that process is checked like a file's content. Throws InputError as open_for_reading() does.
std::unique_ptr<Storage> open_storage(const std::string& path, Trust trust);

// Whether readers may compute with it: what a process that a file has taken over answers may be anything.
bool is_consistent(const DatasetInfo& info, std::size_t max_logical_bytes);

}  // namespace tq::hdf5
