#pragma once

#include <doctest/doctest.h>

#include "core/error.h"
#include "jit/nvrtc_api.h"

namespace tq::test {

// False, with a message, where there is no NVRTC: the caller's test has nothing to run on.
inline bool nvrtc_present() {
  try {
    nvrtc::api();
    return true;
  } catch (const SystemError& error) {
    MESSAGE("skipped: ", error.what());
    return false;
  }
}

}  // namespace tq::test
