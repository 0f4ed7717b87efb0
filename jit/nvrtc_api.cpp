#include "jit/nvrtc_api.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string_view>

#include "core/error.h"

namespace tq::nvrtc {
namespace {

namespace fs = std::filesystem;

constexpr int kOldestMajor = 12;
constexpr const char* kLibraryNames[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
constexpr const char* kNone = "no NVRTC: libnvrtc.so.13 or libnvrtc.so.12 could not be opened";
constexpr const char* kAdvice =
    "compiling kernels needs it: ./setup.sh nvrtc installs it, or set TQ_NVRTC_LIBRARY to the library or its "
    "folder";

std::string executable_folder() {
  std::error_code unknown;
  const fs::path executable = fs::read_symlink("/proc/self/exe", unknown);
  return unknown ? std::string() : executable.parent_path().string();
}

// The linker's digest of a loaded library; empty where it carries none.
std::string build_id(const void* function) {
  struct Search {
    ElfW(Addr) address;
    std::string id;
  } search{reinterpret_cast<ElfW(Addr)>(function), {}};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& wanted = *static_cast<Search*>(data);
        bool here = false;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = info->dlpi_phdr[i];
          const ElfW(Addr) start = info->dlpi_addr + segment.p_vaddr;
          here |= segment.p_type == PT_LOAD && wanted.address >= start &&
                  wanted.address < start + segment.p_memsz;
        }
        if (!here) return 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_NOTE) continue;
          const char* note = reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr);
          const char* end = note + segment.p_memsz;
          while (note + sizeof(ElfW(Nhdr)) <= end) {
            ElfW(Nhdr) header;
            std::memcpy(&header, note, sizeof header);
            const auto padded = [](std::size_t bytes) { return (bytes + 3) & ~std::size_t{3}; };
            const char* name = note + sizeof header;
            const char* content = name + padded(header.n_namesz);
            if (header.n_type == NT_GNU_BUILD_ID && std::string_view(name, header.n_namesz) ==
                                                        std::string_view(ELF_NOTE_GNU, sizeof ELF_NOTE_GNU)) {
              for (std::size_t byte = 0; byte < header.n_descsz; ++byte) {
                wanted.id += fmt::format("{:02x}", static_cast<unsigned char>(content[byte]));
              }
              return 1;
            }
            note = content + padded(header.n_descsz);
          }
        }
        return 1;
      },
      &search);
  return search.id;
}

struct Opened {
  NvrtcApi api;
  Version version;
  std::string identity;
};

Opened open_library(const SearchPlaces& places) {
  NvrtcApi api(SharedLibrary::open_first(places.candidates(), kNone, kAdvice));
  Version version;
  if (api.version(&version.major, &version.minor) != Result::success) {
    throw SystemError("{}: nvrtcVersion failed", api.library.file());
  }
  if (version.major < kOldestMajor) {
    throw SystemError("{} is NVRTC {}.{}; {}.0 or newer is needed", api.library.file(), version.major,
                      version.minor, kOldestMajor);
  }
  std::string identity = fmt::format("{}.{}", version.major, version.minor);
  const std::string id = build_id(api.library.find("nvrtcVersion"));
  std::error_code unknown;
  identity +=
      id.empty() ? fmt::format(", {} bytes", fs::file_size(api.library.file(), unknown)) : ", build " + id;
  return {std::move(api), version, std::move(identity)};
}

std::mutex opening;
std::optional<Opened> in_use;  // once set, never changed

const Opened& opened() {
  const std::scoped_lock lock(opening);
  if (!in_use) in_use = open_library(SearchPlaces::from_environment());
  return *in_use;
}

}  // namespace

SearchPlaces SearchPlaces::from_environment() {
  SearchPlaces places;
  if (const char* place = std::getenv("TQ_NVRTC_LIBRARY")) places.explicit_place = place;
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* home = std::getenv(variable); home != nullptr && *home != '\0') {
      places.folders.push_back(std::string(home) + "/lib64");
    }
  }
  places.folders.push_back("/usr/local/cuda/lib64");
  if (const std::string folder = executable_folder(); !folder.empty()) {
    places.folders.push_back(folder + "/../lib");
  }
  return places;
}

std::vector<std::string> SearchPlaces::candidates() const {
  // Who names a place wants that one, not whatever else there is.
  if (!explicit_place.empty()) {
    std::error_code unknown;
    if (!fs::is_directory(explicit_place, unknown)) return {explicit_place};
    std::vector<std::string> found;
    for (const char* name : kLibraryNames) found.push_back(explicit_place + "/" + name);
    return found;
  }
  std::vector<std::string> found(std::begin(kLibraryNames), std::end(kLibraryNames));
  for (const std::string& folder : folders) {
    for (const char* name : kLibraryNames) found.push_back(folder + "/" + name);
  }
  return found;
}

const NvrtcApi& api() { return opened().api; }

void open(const SearchPlaces& places) {
  const std::scoped_lock lock(opening);
  if (in_use) throw UsageError("NVRTC is in use already ({})", in_use->api.library.file());
  in_use = open_library(places);
}

Version version() { return opened().version; }

const std::string& identity() { return opened().identity; }

}  // namespace tq::nvrtc
