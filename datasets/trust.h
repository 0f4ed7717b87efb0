#pragma once

namespace tq {

// Of a captured or calibrated file. none: the HDF5 library reads it in a process of its own that can do no
// harm (datasets/confined_process.h). full: in this process, for files of one's own and where no process can
// be confined.
enum class Trust { none, full };

}  // namespace tq
