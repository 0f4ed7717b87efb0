#include "jit/shared_library.h"

#include <dlfcn.h>
#include <link.h>

#include "core/error.h"

namespace tq {

SharedLibrary SharedLibrary::open_first(std::span<const std::string> candidates, std::string_view failure,
                                        std::string_view advice) {
  std::string reason = "no place to look";
  for (const std::string& candidate : candidates) {
    if (void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return SharedLibrary(candidate, handle);
    }
    // The first one's reason is of the name that everybody knows.
    if (&candidate == candidates.data()) reason = dlerror();
  }
  throw SystemError("{} ({}); {}", failure, reason, advice);
}

void* SharedLibrary::find(const char* symbol) const { return dlsym(handle_, symbol); }

void* SharedLibrary::require(const char* symbol) const {
  if (void* found = find(symbol)) return found;
  throw SystemError("{} is too old: it has no function {}; update it", file(), symbol);
}

std::string SharedLibrary::file() const {
  link_map* map = nullptr;
  if (dlinfo(handle_, RTLD_DI_LINKMAP, &map) != 0 || map->l_name[0] == '\0') return name_;
  return map->l_name;
}

}  // namespace tq
