#include "jit/out_of_memory.h"

#include "core/error.h"
#include "jit/driver_api.h"

namespace tq {

void throw_out_of_memory(std::size_t asked_bytes) {
  std::size_t free = 0, total = 0;
  if (cuda::driver().mem_get_info(&free, &total) != cuda::Result::success) {
    throw SystemError("out of GPU memory: asked for {} bytes", asked_bytes);
  }
  throw SystemError("out of GPU memory: asked for {} bytes, {} of {} are free", asked_bytes, free, total);
}

}  // namespace tq
