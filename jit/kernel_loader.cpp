#include "jit/kernel_loader.h"

#include <chrono>
#include <utility>

#include "jit/nvrtc_api.h"

namespace tq {

KernelLoader::KernelLoader(const Device& device, SourceTree tree, std::optional<CubinCache> cache)
    : device_(device),
      architecture_(best_architecture_for(device.info().architecture)),
      images_(std::move(tree), std::move(cache)) {}

const Kernel& KernelLoader::get(const KernelSource& source) {
  const std::string key = cubin_key(source, images_.tree(), architecture_, nvrtc::identity());
  Slot* slot = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    std::unique_ptr<Slot>& place = slots_[key];
    if (!place) place = std::make_unique<Slot>();
    slot = place.get();
  }
  const std::scoped_lock lock(slot->mutex);
  if (slot->kernel) {
    const std::scoped_lock counting(mutex_);
    ++stats_.from_memory;
    return *slot->kernel;
  }
  const auto start = std::chrono::steady_clock::now();
  const ImageStore::Found found = images_.get(source, architecture_);
  slot->kernel.emplace(device_, source.label, found.image);
  const std::scoped_lock counting(mutex_);
  ++(found.from_cache ? stats_.from_disk : stats_.compiled);
  stats_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return *slot->kernel;
}

KernelLoader::Stats KernelLoader::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

}  // namespace tq
