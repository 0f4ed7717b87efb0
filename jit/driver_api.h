#pragma once

#include <cstddef>

#include "jit/shared_library.h"

// The part of the CUDA driver API that this project uses, declared here so that neither building nor running
// needs a toolkit, and libcuda.so.1 is opened when a GPU is first asked for. Names, values and layouts are
// those of cuda.h; tests/jit/test_declarations.cpp compares them where that header is at hand.
namespace tq::cuda {

// CUresult. Only the values that the project acts on are named.
enum class Result : int {
  success = 0,
  out_of_memory = 2,
  deinitialized = 4,
  no_device = 100,
  ecc_uncorrectable = 214,
  illegal_address = 700,
  context_is_destroyed = 709,
  launch_failed = 719,
};

// CUdevice_attribute
enum class DeviceAttribute : int {
  max_grid_x = 5,
  max_grid_y = 6,
  max_grid_z = 7,
  multiprocessor_count = 16,
  l2_bytes = 38,
  compute_capability_major = 75,
  compute_capability_minor = 76,
  max_shared_bytes_per_block_optin = 97,
  virtual_memory_management = 102,
};

// CUfunction_attribute
enum class FunctionAttribute : int { static_shared_bytes = 1, max_dynamic_shared_bytes = 8 };

inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr int kCaptureThreadLocal = 1;
inline constexpr int kLocationDevice = 1;
inline constexpr int kAllocationPinned = 1;
inline constexpr int kAccessReadWrite = 3;
inline constexpr int kGranularityMinimum = 0;

using DeviceOrdinal = int;                        // CUdevice
using DeviceAddress = unsigned long long;         // CUdeviceptr
using AllocationHandle = unsigned long long;      // CUmemGenericAllocationHandle
using ContextHandle = struct ContextObject*;      // CUcontext
using ModuleHandle = struct ModuleObject*;        // CUmodule
using FunctionHandle = struct FunctionObject*;    // CUfunction
using StreamHandle = struct StreamObject*;        // CUstream
using EventHandle = struct EventObject*;          // CUevent
using GraphHandle = struct GraphObject*;          // CUgraph
using GraphExecHandle = struct GraphExecObject*;  // CUgraphExec

// CUmemLocation
struct MemoryLocation {
  int type;
  int id;
};

// CUmemAllocationProp
struct AllocationProperties {
  int type;
  int requested_handle_types;
  MemoryLocation location;
  void* win32_meta_data;
  struct {
    unsigned char compression_type;
    unsigned char gpu_direct_rdma_capable;
    unsigned short usage;
    unsigned char reserved[4];
  } flags;
};

// CUmemAccessDesc
struct AccessDescription {
  MemoryLocation location;
  int flags;
};

// CUlaunchAttribute
struct LaunchAttribute {
  int id;
  char padding[4];
  union {
    char bytes[64];
    int programmatic_stream_serialization_allowed;
  } value;
};
inline constexpr int kProgrammaticStreamSerialization = 6;

// CUlaunchConfig
struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

// A name with a version is what cuda.h's macro of the plain name stands for.
struct DriverApi {
  explicit DriverApi(SharedLibrary opened) : library(std::move(opened)) {}

  template <FixedString Name, typename... Args>
  using Function = LibraryFunction<Name, Result(Args...)>;

  SharedLibrary library;

  Function<"cuInit", unsigned> init{library};
  Function<"cuDriverGetVersion", int*> driver_get_version{library};
  Function<"cuGetErrorName", Result, const char**> get_error_name{library};
  Function<"cuGetErrorString", Result, const char**> get_error_string{library};

  Function<"cuDeviceGetCount", int*> device_get_count{library};
  Function<"cuDeviceGet", DeviceOrdinal*, int> device_get{library};
  Function<"cuDeviceGetName", char*, int, DeviceOrdinal> device_get_name{library};
  Function<"cuDeviceGetAttribute", int*, DeviceAttribute, DeviceOrdinal> device_get_attribute{library};
  Function<"cuDeviceTotalMem_v2", std::size_t*, DeviceOrdinal> device_total_mem{library};

  Function<"cuDevicePrimaryCtxRetain", ContextHandle*, DeviceOrdinal> device_primary_ctx_retain{library};
  Function<"cuDevicePrimaryCtxRelease_v2", DeviceOrdinal> device_primary_ctx_release{library};
  Function<"cuCtxGetCurrent", ContextHandle*> ctx_get_current{library};
  Function<"cuCtxPushCurrent_v2", ContextHandle> ctx_push_current{library};
  Function<"cuCtxPopCurrent_v2", ContextHandle*> ctx_pop_current{library};
  Function<"cuCtxSynchronize"> ctx_synchronize{library};

  Function<"cuMemGetInfo_v2", std::size_t*, std::size_t*> mem_get_info{library};
  Function<"cuMemAlloc_v2", DeviceAddress*, std::size_t> mem_alloc{library};
  Function<"cuMemFree_v2", DeviceAddress> mem_free{library};
  Function<"cuMemcpyHtoDAsync_v2", DeviceAddress, const void*, std::size_t, StreamHandle> memcpy_htod_async{
      library};
  Function<"cuMemcpyDtoHAsync_v2", void*, DeviceAddress, std::size_t, StreamHandle> memcpy_dtoh_async{
      library};
  Function<"cuMemcpyDtoDAsync_v2", DeviceAddress, DeviceAddress, std::size_t, StreamHandle> memcpy_dtod_async{
      library};
  Function<"cuMemsetD8Async", DeviceAddress, unsigned char, std::size_t, StreamHandle> memset_d8_async{
      library};

  Function<"cuMemGetAllocationGranularity", std::size_t*, const AllocationProperties*, int>
      mem_get_allocation_granularity{library};
  Function<"cuMemAddressReserve", DeviceAddress*, std::size_t, std::size_t, DeviceAddress, unsigned long long>
      mem_address_reserve{library};
  Function<"cuMemAddressFree", DeviceAddress, std::size_t> mem_address_free{library};
  Function<"cuMemCreate", AllocationHandle*, std::size_t, const AllocationProperties*, unsigned long long>
      mem_create{library};
  Function<"cuMemRelease", AllocationHandle> mem_release{library};
  Function<"cuMemMap", DeviceAddress, std::size_t, std::size_t, AllocationHandle, unsigned long long> mem_map{
      library};
  Function<"cuMemUnmap", DeviceAddress, std::size_t> mem_unmap{library};
  Function<"cuMemSetAccess", DeviceAddress, std::size_t, const AccessDescription*, std::size_t>
      mem_set_access{library};

  Function<"cuStreamCreate", StreamHandle*, unsigned> stream_create{library};
  Function<"cuStreamDestroy_v2", StreamHandle> stream_destroy{library};
  Function<"cuStreamSynchronize", StreamHandle> stream_synchronize{library};
  Function<"cuStreamWaitEvent", StreamHandle, EventHandle, unsigned> stream_wait_event{library};
  Function<"cuStreamBeginCapture_v2", StreamHandle, int> stream_begin_capture{library};
  Function<"cuStreamEndCapture", StreamHandle, GraphHandle*> stream_end_capture{library};
  Function<"cuGraphInstantiateWithFlags", GraphExecHandle*, GraphHandle, unsigned long long>
      graph_instantiate{library};
  Function<"cuGraphLaunch", GraphExecHandle, StreamHandle> graph_launch{library};
  Function<"cuGraphExecDestroy", GraphExecHandle> graph_exec_destroy{library};
  Function<"cuGraphDestroy", GraphHandle> graph_destroy{library};

  Function<"cuEventCreate", EventHandle*, unsigned> event_create{library};
  Function<"cuEventDestroy_v2", EventHandle> event_destroy{library};
  Function<"cuEventRecord", EventHandle, StreamHandle> event_record{library};
  Function<"cuEventSynchronize", EventHandle> event_synchronize{library};
  // cuda.h's macro means version 2 from CUDA 12.8 on; the first one is in every driver and does the same.
  Function<"cuEventElapsedTime", float*, EventHandle, EventHandle> event_elapsed_time{library};

  Function<"cuModuleLoadData", ModuleHandle*, const void*> module_load_data{library};
  Function<"cuModuleUnload", ModuleHandle> module_unload{library};
  Function<"cuModuleGetFunction", FunctionHandle*, ModuleHandle, const char*> module_get_function{library};
  Function<"cuFuncGetAttribute", int*, FunctionAttribute, FunctionHandle> func_get_attribute{library};
  Function<"cuFuncSetAttribute", FunctionHandle, FunctionAttribute, int> func_set_attribute{library};
  // From CUDA 12.4 on.
  Function<"cuFuncGetParamInfo", FunctionHandle, std::size_t, std::size_t*, std::size_t*> func_get_param_info{
      library, Presence::optional};
  Function<"cuOccupancyMaxActiveBlocksPerMultiprocessor", int*, FunctionHandle, int, std::size_t>
      occupancy_max_active_blocks{library};
  Function<"cuLaunchKernelEx", const LaunchConfig*, FunctionHandle, void**, void**> launch_kernel{library};
};

// The driver, opened and initialised at the first call. Throws SystemError when there is none, when it is
// older than CUDA 12.0, or when it cannot be initialised (no device); a later call tries again.
const DriverApi& driver();

// The newest CUDA version that the driver supports, as cuda.h writes it: 12040 is 12.4.
int driver_version();

}  // namespace tq::cuda
