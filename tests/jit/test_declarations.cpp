// jit/driver_api.h and jit/nvrtc_api.h against the real headers. Everything here happens at compile time.
#include "jit/driver_api.h"
#include "jit/nvrtc_api.h"

#include <cuda.h>
#include <doctest/doctest.h>
#include <nvrtc.h>

#include <cstddef>
#include <string_view>
#include <type_traits>

namespace {

// The same to the calling convention: integers and enumerations of one size and sign class, pointers to what
// passes for the same, with the same const.
template <typename Ours, typename Theirs>
constexpr bool passes_for();

template <typename Ours, typename Theirs>
constexpr bool passes_for_pointer() {
  using A = std::remove_pointer_t<Ours>;
  using B = std::remove_pointer_t<Theirs>;
  if constexpr (std::is_const_v<A> != std::is_const_v<B>) {
    return false;
  } else if constexpr (std::is_void_v<A> || std::is_void_v<B>) {
    return std::is_void_v<A> && std::is_void_v<B>;
  } else if constexpr (std::is_class_v<A> && std::is_class_v<B>) {
    return true;  // opaque, or a struct whose layout is compared below
  } else {
    return passes_for<std::remove_const_t<A>, std::remove_const_t<B>>();
  }
}

template <typename Ours, typename Theirs>
constexpr bool passes_for() {
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
    return passes_for_pointer<Ours, Theirs>();
  } else if constexpr (std::is_enum_v<Ours> || std::is_enum_v<Theirs>) {
    return (std::is_enum_v<Ours> || std::is_integral_v<Ours>)&&(
               std::is_enum_v<Theirs> || std::is_integral_v<Theirs>)&&sizeof(Ours) == sizeof(Theirs);
  } else {
    return std::is_same_v<Ours, Theirs> ||
           (std::is_integral_v<Ours> && std::is_integral_v<Theirs> && sizeof(Ours) == sizeof(Theirs) &&
            std::is_signed_v<Ours> == std::is_signed_v<Theirs>);
  }
}

template <typename Ours, typename Theirs>
struct SameFunction : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
requires(sizeof...(A) == sizeof...(B)) struct SameFunction<R (*)(A...), S (*)(B...)>
    : std::bool_constant<passes_for<R, S>() && (passes_for<A, B>() && ...)> {
};

static_assert(SameFunction<int (*)(char*), int (*)(char*)>::value);
static_assert(!SameFunction<int (*)(char*), int (*)(const char*)>::value);
static_assert(!SameFunction<int (*)(int), int (*)(long)>::value);
static_assert(!SameFunction<int (*)(int), int (*)(unsigned)>::value);
static_assert(!SameFunction<int (*)(int), int (*)(int, int)>::value);
static_assert(!SameFunction<int (*)(int*), int (*)(int)>::value);

using tq::cuda::DriverApi;
using tq::nvrtc::NvrtcApi;

template <typename Member>
constexpr std::string_view name_of() {
  return Member::name();
}

// Expands `real` first, so that the versioned name that the header's macro stands for is compared.
#define TEXT_OF(real) #real
#define SAME_SIGNATURE(member, real) \
  static_assert(SameFunction<decltype(member)::Pointer, decltype(&real)>::value, TEXT_OF(real))
#define SAME_FUNCTION(member, real)                                           \
  static_assert(name_of<decltype(member)>() == TEXT_OF(real), TEXT_OF(real)); \
  SAME_SIGNATURE(member, real)

SAME_FUNCTION(DriverApi::init, cuInit);
SAME_FUNCTION(DriverApi::driver_get_version, cuDriverGetVersion);
SAME_FUNCTION(DriverApi::get_error_name, cuGetErrorName);
SAME_FUNCTION(DriverApi::get_error_string, cuGetErrorString);
SAME_FUNCTION(DriverApi::device_get_count, cuDeviceGetCount);
SAME_FUNCTION(DriverApi::device_get, cuDeviceGet);
SAME_FUNCTION(DriverApi::device_get_name, cuDeviceGetName);
SAME_FUNCTION(DriverApi::device_get_attribute, cuDeviceGetAttribute);
SAME_FUNCTION(DriverApi::device_total_mem, cuDeviceTotalMem);
SAME_FUNCTION(DriverApi::device_primary_ctx_retain, cuDevicePrimaryCtxRetain);
SAME_FUNCTION(DriverApi::device_primary_ctx_release, cuDevicePrimaryCtxRelease);
SAME_FUNCTION(DriverApi::ctx_get_current, cuCtxGetCurrent);
SAME_FUNCTION(DriverApi::ctx_push_current, cuCtxPushCurrent);
SAME_FUNCTION(DriverApi::ctx_pop_current, cuCtxPopCurrent);
SAME_FUNCTION(DriverApi::ctx_synchronize, cuCtxSynchronize);
SAME_FUNCTION(DriverApi::mem_get_info, cuMemGetInfo);
SAME_FUNCTION(DriverApi::mem_alloc, cuMemAlloc);
SAME_FUNCTION(DriverApi::mem_free, cuMemFree);
SAME_FUNCTION(DriverApi::memcpy_htod_async, cuMemcpyHtoDAsync);
SAME_FUNCTION(DriverApi::memcpy_dtoh_async, cuMemcpyDtoHAsync);
SAME_FUNCTION(DriverApi::memcpy_dtod_async, cuMemcpyDtoDAsync);
SAME_FUNCTION(DriverApi::memset_d8_async, cuMemsetD8Async);
SAME_FUNCTION(DriverApi::mem_get_allocation_granularity, cuMemGetAllocationGranularity);
SAME_FUNCTION(DriverApi::mem_address_reserve, cuMemAddressReserve);
SAME_FUNCTION(DriverApi::mem_address_free, cuMemAddressFree);
SAME_FUNCTION(DriverApi::mem_create, cuMemCreate);
SAME_FUNCTION(DriverApi::mem_release, cuMemRelease);
SAME_FUNCTION(DriverApi::mem_map, cuMemMap);
SAME_FUNCTION(DriverApi::mem_unmap, cuMemUnmap);
SAME_FUNCTION(DriverApi::mem_set_access, cuMemSetAccess);
SAME_FUNCTION(DriverApi::stream_create, cuStreamCreate);
SAME_FUNCTION(DriverApi::stream_destroy, cuStreamDestroy);
SAME_FUNCTION(DriverApi::stream_synchronize, cuStreamSynchronize);
SAME_FUNCTION(DriverApi::stream_wait_event, cuStreamWaitEvent);
SAME_FUNCTION(DriverApi::stream_begin_capture, cuStreamBeginCapture);
SAME_FUNCTION(DriverApi::stream_end_capture, cuStreamEndCapture);
SAME_FUNCTION(DriverApi::graph_instantiate, cuGraphInstantiateWithFlags);
SAME_FUNCTION(DriverApi::graph_launch, cuGraphLaunch);
SAME_FUNCTION(DriverApi::graph_exec_destroy, cuGraphExecDestroy);
SAME_FUNCTION(DriverApi::graph_destroy, cuGraphDestroy);
SAME_FUNCTION(DriverApi::event_create, cuEventCreate);
SAME_FUNCTION(DriverApi::event_destroy, cuEventDestroy);
SAME_FUNCTION(DriverApi::event_record, cuEventRecord);
SAME_FUNCTION(DriverApi::event_synchronize, cuEventSynchronize);
SAME_SIGNATURE(DriverApi::event_elapsed_time, cuEventElapsedTime);  // version 1 on purpose
SAME_FUNCTION(DriverApi::module_load_data, cuModuleLoadData);
SAME_FUNCTION(DriverApi::module_unload, cuModuleUnload);
SAME_FUNCTION(DriverApi::module_get_function, cuModuleGetFunction);
SAME_FUNCTION(DriverApi::func_get_attribute, cuFuncGetAttribute);
SAME_FUNCTION(DriverApi::func_set_attribute, cuFuncSetAttribute);
#if CUDA_VERSION >= 12040
SAME_FUNCTION(DriverApi::func_get_param_info, cuFuncGetParamInfo);
#endif
SAME_FUNCTION(DriverApi::occupancy_max_active_blocks, cuOccupancyMaxActiveBlocksPerMultiprocessor);
SAME_FUNCTION(DriverApi::launch_kernel, cuLaunchKernelEx);

SAME_FUNCTION(NvrtcApi::get_error_string, nvrtcGetErrorString);
SAME_FUNCTION(NvrtcApi::version, nvrtcVersion);
SAME_FUNCTION(NvrtcApi::get_num_supported_archs, nvrtcGetNumSupportedArchs);
SAME_FUNCTION(NvrtcApi::get_supported_archs, nvrtcGetSupportedArchs);
SAME_FUNCTION(NvrtcApi::create_program, nvrtcCreateProgram);
SAME_FUNCTION(NvrtcApi::destroy_program, nvrtcDestroyProgram);
SAME_FUNCTION(NvrtcApi::add_name_expression, nvrtcAddNameExpression);
SAME_FUNCTION(NvrtcApi::compile_program, nvrtcCompileProgram);
SAME_FUNCTION(NvrtcApi::get_program_log_size, nvrtcGetProgramLogSize);
SAME_FUNCTION(NvrtcApi::get_program_log, nvrtcGetProgramLog);
SAME_FUNCTION(NvrtcApi::get_lowered_name, nvrtcGetLoweredName);
SAME_FUNCTION(NvrtcApi::get_cubin_size, nvrtcGetCUBINSize);
SAME_FUNCTION(NvrtcApi::get_cubin, nvrtcGetCUBIN);

#define SAME_VALUE(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))

using tq::cuda::Result;
SAME_VALUE(Result::success, CUDA_SUCCESS);
SAME_VALUE(Result::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME_VALUE(Result::deinitialized, CUDA_ERROR_DEINITIALIZED);
SAME_VALUE(Result::no_device, CUDA_ERROR_NO_DEVICE);
SAME_VALUE(Result::ecc_uncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE);
SAME_VALUE(Result::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME_VALUE(Result::context_is_destroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
SAME_VALUE(Result::launch_failed, CUDA_ERROR_LAUNCH_FAILED);

using tq::cuda::DeviceAttribute;
SAME_VALUE(DeviceAttribute::max_grid_x, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X);
SAME_VALUE(DeviceAttribute::max_grid_y, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y);
SAME_VALUE(DeviceAttribute::max_grid_z, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z);
SAME_VALUE(DeviceAttribute::multiprocessor_count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME_VALUE(DeviceAttribute::l2_bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME_VALUE(DeviceAttribute::compute_capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME_VALUE(DeviceAttribute::compute_capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME_VALUE(DeviceAttribute::max_shared_bytes_per_block_optin,
           CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME_VALUE(DeviceAttribute::virtual_memory_management,
           CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);

using tq::cuda::FunctionAttribute;
SAME_VALUE(FunctionAttribute::static_shared_bytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
SAME_VALUE(FunctionAttribute::max_dynamic_shared_bytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);

SAME_VALUE(tq::cuda::kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
SAME_VALUE(tq::cuda::kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME_VALUE(tq::cuda::kLocationDevice, CU_MEM_LOCATION_TYPE_DEVICE);
SAME_VALUE(tq::cuda::kAllocationPinned, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME_VALUE(tq::cuda::kAccessReadWrite, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME_VALUE(tq::cuda::kGranularityMinimum, CU_MEM_ALLOC_GRANULARITY_MINIMUM);

SAME_VALUE(tq::cuda::kProgrammaticStreamSerialization, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);

SAME_VALUE(tq::nvrtc::Result::success, NVRTC_SUCCESS);

#define SAME_FIELD(Ours, ours, Theirs, theirs)                     \
  static_assert(offsetof(Ours, ours) == offsetof(Theirs, theirs)); \
  static_assert(sizeof(Ours::ours) == sizeof(Theirs::theirs))

using tq::cuda::AccessDescription;
using tq::cuda::AllocationProperties;
using tq::cuda::MemoryLocation;
static_assert(sizeof(MemoryLocation) == sizeof(CUmemLocation));
SAME_FIELD(MemoryLocation, type, CUmemLocation, type);
SAME_FIELD(MemoryLocation, id, CUmemLocation, id);
static_assert(sizeof(AllocationProperties) == sizeof(CUmemAllocationProp));
SAME_FIELD(AllocationProperties, type, CUmemAllocationProp, type);
SAME_FIELD(AllocationProperties, requested_handle_types, CUmemAllocationProp, requestedHandleTypes);
SAME_FIELD(AllocationProperties, location, CUmemAllocationProp, location);
SAME_FIELD(AllocationProperties, win32_meta_data, CUmemAllocationProp, win32HandleMetaData);
SAME_FIELD(AllocationProperties, flags, CUmemAllocationProp, allocFlags);
static_assert(sizeof(AccessDescription) == sizeof(CUmemAccessDesc));
SAME_FIELD(AccessDescription, location, CUmemAccessDesc, location);
SAME_FIELD(AccessDescription, flags, CUmemAccessDesc, flags);

using tq::cuda::LaunchAttribute;
using tq::cuda::LaunchConfig;
static_assert(sizeof(LaunchAttribute) == sizeof(CUlaunchAttribute));
SAME_FIELD(LaunchAttribute, id, CUlaunchAttribute, id);
SAME_FIELD(LaunchAttribute, value, CUlaunchAttribute, value);
SAME_FIELD(LaunchAttribute, value.programmatic_stream_serialization_allowed, CUlaunchAttribute,
           value.programmaticStreamSerializationAllowed);
static_assert(sizeof(LaunchConfig) == sizeof(CUlaunchConfig));
SAME_FIELD(LaunchConfig, grid_x, CUlaunchConfig, gridDimX);
SAME_FIELD(LaunchConfig, grid_z, CUlaunchConfig, gridDimZ);
SAME_FIELD(LaunchConfig, block_x, CUlaunchConfig, blockDimX);
SAME_FIELD(LaunchConfig, block_z, CUlaunchConfig, blockDimZ);
SAME_FIELD(LaunchConfig, shared_bytes, CUlaunchConfig, sharedMemBytes);
SAME_FIELD(LaunchConfig, stream, CUlaunchConfig, hStream);
SAME_FIELD(LaunchConfig, attributes, CUlaunchConfig, attrs);
SAME_FIELD(LaunchConfig, attribute_count, CUlaunchConfig, numAttrs);

}  // namespace

TEST_CASE("our declarations of CUDA are those of its headers") {
  MESSAGE("compared at compile time with cuda.h of CUDA ", CUDA_VERSION);
}
