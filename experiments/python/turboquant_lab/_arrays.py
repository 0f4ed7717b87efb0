"""Arrays of any framework as pointer, type, shape and device, without copying; streams; results."""

import ctypes
import dataclasses
import math
import sys

import numpy as np

from ._library import UsageError, integer

NUMPY_TYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
# DLPack: (kind, bits) of kDLUInt, kDLFloat, kDLBfloat.
DLPACK_TYPES = {(2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16", (1, 8): "uint8", (2, 64): "float64"}
DLPACK_HOST, DLPACK_CUDA = (1, 3), (2, 13)
POINTER_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


@dataclasses.dataclass
class Span:
    """A contiguous array that a call may use while the Span lives."""
    pointer: int
    dtype: str
    shape: tuple
    device: object  # None: host memory; else the GPU's ordinal
    owner: object   # keeps the memory


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("kind", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes, _capsule_pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


def loaded_torch():
    return sys.modules.get("torch")


def device_of(name, x):
    """None for the host, else the ordinal of the array's GPU. Raises TypeError for what is no array."""
    if isinstance(x, np.ndarray):
        return None
    if hasattr(x, "__dlpack_device__"):
        kind, ordinal = (int(part) for part in x.__dlpack_device__())
        if kind in DLPACK_HOST:
            return None
        if kind in DLPACK_CUDA:
            return ordinal
        raise TypeError(f"{name} is on a device that is neither the host nor an NVIDIA GPU")
    if hasattr(x, "__cuda_array_interface__"):
        return _ordinal_of(x.__cuda_array_interface__["data"][0])
    raise TypeError(f"{name} must be a NumPy array, or a tensor with __dlpack__ or __cuda_array_interface__, not "
                    f"{type(x).__name__}")


def span(name, x, stream=0, writable=False):
    """`stream`: the one that will use the array; what makes its content is ordered before."""
    if isinstance(x, np.ndarray):
        return _numpy_span(name, x, writable)
    if device_of(name, x) is None:
        if writable:
            raise TypeError(f"{name} must be a NumPy array where the inputs are on the host")
        try:
            return _numpy_span(name, np.from_dlpack(x), False)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(f"{name} cannot be read as a NumPy array ({error}): float32 without gradients") from error
    if hasattr(x, "__dlpack__"):
        return _dlpack_span(name, x, stream)
    return _interface_span(name, x, stream)


def check(name, array, dtypes, shape):
    """`shape`: lengths, None for any. Raises TypeError or ValueError that says what to do."""
    if array.dtype not in dtypes:
        wanted = " or ".join(dtypes)
        advice = f"{name}.astype(numpy.{dtypes[0]})" if array.device is None else f"{name}.to(torch.{dtypes[0]})"
        raise TypeError(f"{name} is {array.dtype}, must be {wanted}: {advice}")
    fits = len(array.shape) == len(shape) and all(b is None or a == b for a, b in zip(array.shape, shape))
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} has shape {array.shape}, must be ({wanted})")


def same_device(expected, where, **arrays):
    for name, x in arrays.items():
        if device_of(name, x) != expected:
            raise ValueError(f"{name} is on {describe(device_of(name, x))}, {where} on {describe(expected)}")


def describe(device):
    return "the host" if device is None else f"GPU {device}"


# Streams.

def stream_object(device, stream):
    """What the caller gave, else torch's current stream on the device, else None: the legacy default one."""
    torch = loaded_torch()
    if stream is None and torch is not None and torch.cuda.is_initialized():
        return torch.cuda.current_stream(device)
    return stream


def stream_pointer(stream):
    """Of torch's, CuPy's and other streams, or of a plain number."""
    if stream is None:
        return 0
    for attribute in ("cuda_stream", "ptr"):
        if hasattr(stream, attribute):
            return int(getattr(stream, attribute))
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    return integer("stream", stream, 0, 2**64 - 1)


# Results.

def type_name(dtype):
    """'float16' of torch.float16, numpy.float16 and 'float16'."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    name = name.removeprefix("torch.")
    if name not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"dtype is {name}, must be float32, float16 or bfloat16")
    return name


def empty(dtype, shape, device, stream):
    """A new array for a result that `stream` (a pointer) writes."""
    if device is None:
        return np.empty(shape, NUMPY_TYPES[dtype])
    torch = loaded_torch()
    if torch is None:
        raise TypeError("results on a GPU are torch tensors, and torch is not imported: give out=")
    if torch.cuda.current_stream(device).cuda_stream != stream:
        # torch may hand out memory that its own stream still uses.
        raise ValueError("with a stream= that is not torch's current one give out=, or work inside "
                         "`with torch.cuda.stream(...)`")
    return torch.empty(shape, dtype=getattr(torch, dtype), device=f"cuda:{device}")


# Kinds of arrays.

def _contiguous(shape, strides):
    """Strides in elements."""
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides)):
        if length != 1 and stride != expected:
            return math.prod(shape) == 0
        expected *= length
    return True


def _numpy_span(name, x, writable):
    if not x.flags.c_contiguous or not x.flags.aligned:
        raise ValueError(f"{name} is not contiguous: numpy.ascontiguousarray({name})")
    if not x.dtype.isnative:
        raise TypeError(f"{name} has foreign byte order: {name}.astype({name}.dtype.newbyteorder('='))")
    if writable and not x.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return Span(x.ctypes.data, x.dtype.name, x.shape, None, x)


def _dlpack_span(name, x, stream):
    torch = loaded_torch()
    is_torch = torch is not None and isinstance(x, torch.Tensor)
    # torch's own stream needs no ordering; -1 says so, 1 is the legacy default stream.
    own = is_torch and torch.cuda.current_stream(x.device).cuda_stream == stream
    try:
        capsule = x.__dlpack__(stream=-1 if own else stream or 1)
    except (BufferError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be shared ({error}): {name}.detach()") from error
    tensor = DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides and not _contiguous(shape, [tensor.strides[i] for i in range(tensor.ndim)]):
        raise ValueError(f"{name} is not contiguous: {name}.contiguous()")
    dtype = DLPACK_TYPES.get((tensor.kind, tensor.bits)) if tensor.lanes == 1 else None
    pointer = (tensor.data or 0) + tensor.byte_offset
    return Span(pointer, dtype or f"a type of {tensor.bits} bits", shape, int(tensor.device_id), (capsule, x))


def _interface_span(name, x, stream):
    interface = x.__cuda_array_interface__
    made_in = interface.get("stream")
    if made_in is not None and made_in not in ((0, 1) if stream in (0, 1) else (stream,)):
        raise ValueError(f"{name} is made in stream {made_in:#x}: give stream={made_in:#x}, or synchronise first")
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    strides = interface.get("strides")
    if strides is not None and not _contiguous(shape, [stride // dtype.itemsize for stride in strides]):
        raise ValueError(f"{name} is not contiguous")
    pointer = interface["data"][0]
    return Span(pointer, dtype.name, shape, _ordinal_of(pointer), x)


def _ordinal_of(pointer):
    """An array of no elements has no address: it is taken to be on the first GPU."""
    ordinal = ctypes.c_int(0)
    if pointer:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuPointerGetAttribute(ctypes.byref(ordinal), POINTER_DEVICE_ORDINAL, ctypes.c_void_p(pointer)) != 0:
            raise UsageError(f"{pointer:#x} is no address of a GPU")
    return ordinal.value
