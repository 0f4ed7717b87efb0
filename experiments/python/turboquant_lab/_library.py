"""libturboquant.so: where it is, its functions, and what their exit codes mean. See turboquant.h."""

import ctypes
import glob
import importlib.util
import operator
import os
import pathlib
import sys
import threading
import weakref

ABI_VERSION = 1
FILE_NAME = "libturboquant.so"

KEYS, VALUES = 0, 1
ALPHAS = {"unbiased": -1.0, "mse": -2.0}
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2}


class Error(Exception):
    """What the library reports."""


class UsageError(Error, ValueError):
    """An argument, or a combination of them."""


class InputError(Error, ValueError):
    """A file's content."""


class MachineError(Error, RuntimeError):
    """No memory, no GPU, a CUDA error."""


ERRORS = {2: UsageError, 3: InputError}


class CodecOptions(ctypes.Structure):
    _fields_ = [("head_dim", ctypes.c_int), ("mode", ctypes.c_char_p), ("bits", ctypes.c_int),
                ("scale", ctypes.c_char_p), ("sketch", ctypes.c_char_p), ("rotation", ctypes.c_char_p),
                ("group_size", ctypes.c_int), ("seed", ctypes.c_uint64), ("alpha", ctypes.c_double)]


class CodecInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in
                ("side", "head_dim", "heads", "bytes_per_token", "code_bytes", "scales", "zeros", "sign_bytes",
                 "residual_norms", "table_bits")] + [("name", ctypes.c_char * 64)]


class Rows(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("codes", "scales", "zeros", "signs", "residual_norms")]


class CacheLayer(ctypes.Structure):
    _fields_ = [("head_dim", ctypes.c_int), ("kv_heads", ctypes.c_int), ("keys", ctypes.c_void_p),
                ("values", ctypes.c_void_p)]


class CachePolicy(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("recent", "sinks", "flush_block")]


class CacheBytes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("codes", "scalars", "exact", "allocated")]


class Handle:
    """Owns one object of the library. It lives as long as a call or an object refers to it, so that close() in one
    thread takes nothing away from a call in another."""

    def __init__(self, pointer, destroy):
        self._as_parameter_ = pointer
        weakref.finalize(self, destroy, pointer)


def _prototypes():
    pointer, size, text, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
    made = ctypes.POINTER(ctypes.c_void_p)
    rows, policy = ctypes.POINTER(Rows), ctypes.POINTER(CachePolicy)
    numbers = ctypes.POINTER(ctypes.c_int)
    return {
        "tq_codec_create": [number, ctypes.POINTER(CodecOptions), made],
        "tq_codec_from_artefact": [text, number, number, made],
        "tq_codec_describe": [pointer, ctypes.POINTER(CodecInfo)],
        "tq_codec_tables": [pointer, number, pointer, pointer, ctypes.POINTER(ctypes.c_double)],
        "tq_codec_matrices": [pointer, pointer, pointer],
        "tq_encode": [pointer, pointer, size, size, rows],
        "tq_decode": [pointer, rows, size, size, pointer],
        "tq_scores": [pointer, rows, size, size, pointer, size, pointer],
        "tq_attend": [pointer, rows, pointer, rows, size, size, pointer, size, ctypes.c_float, pointer, pointer],
        "tq_gpu_open": [number, text, made],
        "tq_encode_device": [pointer, pointer, pointer, number, size, size, rows, pointer],
        "tq_decode_device": [pointer, pointer, rows, size, size, pointer, number, pointer],
        "tq_cache_create": [ctypes.POINTER(CacheLayer), size, policy, number, pointer, pointer, made],
        "tq_artefact_policy": [text, policy],
        "tq_cache_from_artefact": [text, policy, number, pointer, pointer, made],
        "tq_cache_describe": [pointer, numbers, numbers, policy],
        "tq_cache_layer_shape": [pointer, number, numbers, numbers],
        "tq_cache_tokens": [pointer, number, number, ctypes.POINTER(size)],
        "tq_cache_quantised": [pointer, number, number, ctypes.POINTER(size)],
        "tq_cache_prefill": [pointer, number, number, pointer, pointer, number, size, pointer],
        "tq_cache_append": [pointer, number, number, pointer, pointer, number, size, pointer],
        "tq_cache_append_batch": [pointer, number, pointer, pointer, number, size, pointer],
        "tq_cache_attend": [pointer, number, pointer, number, number, ctypes.c_float, pointer, number, pointer,
                            pointer],
        "tq_cache_scores": [pointer, number, number, pointer, number, number, pointer, pointer],
        "tq_cache_bytes_used": [pointer, ctypes.POINTER(CacheBytes)],
        "tq_gpu_available": [text, size],
    }


def _candidates():
    given = os.environ.get("TURBOQUANT_LAB_LIBRARY")
    if given:
        return [os.path.join(given, FILE_NAME) if os.path.isdir(given) else given]
    package = pathlib.Path(__file__).resolve().parent
    found = [package / FILE_NAME, package.parent / FILE_NAME]
    for folder in package.parents:
        found += [folder / "lib" / FILE_NAME, folder / "build" / "release" / "lib" / FILE_NAME]
    return [str(path) for path in found]


def _load():
    candidates = _candidates()
    path = next((path for path in candidates if os.path.isfile(path)), None)
    if path is None:
        raise ImportError(f"{FILE_NAME} is not at {candidates[0]}" if len(candidates) == 1 else
                          f"{FILE_NAME} is neither beside the package nor in lib/ above it: build it (./setup.sh "
                          f"build), or set TURBOQUANT_LAB_LIBRARY to the file or its folder")
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}") from error
    library.tq_version.restype = library.tq_last_error.restype = ctypes.c_char_p
    if library.tq_abi_version() != ABI_VERSION:
        raise ImportError(f"{path} (version {library.tq_version().decode()}) does not go with this package: its "
                          f"interface is {library.tq_abi_version()}, {ABI_VERSION} is needed")
    for name, arguments in _prototypes().items():
        getattr(library, name).argtypes = arguments
    for kind in ("codec", "cache", "gpu"):
        destroy = getattr(library, f"tq_{kind}_destroy")
        destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
    library.tq_codec_defaults.argtypes, library.tq_codec_defaults.restype = [ctypes.POINTER(CodecOptions)], None
    return path, library


library_path, lib = _load()
version = lib.tq_version().decode()


def call(name, *arguments):
    """Raises Error when the function fails."""
    code = getattr(lib, name)(*arguments)
    if code != 0:
        raise ERRORS.get(code, MachineError)(lib.tq_last_error().decode(errors="replace"))


def make(name, kind, *arguments):
    """Of a function whose last argument receives a new object, the Handle to it."""
    made = ctypes.c_void_p()
    call(name, *arguments, ctypes.byref(made))
    return Handle(made, getattr(lib, f"tq_{kind}_destroy"))


def integer(name, value, low=-2**31, high=2**31 - 1):
    """ctypes would cut a large number to its low bits."""
    value = operator.index(value)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, must be from {low} to {high}")
    return value


def text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return value.encode()


def file_name(path):
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("the path has a null character")
    return encoded


def gpu_available():
    """(True, "") or (False, why not)."""
    _find_nvrtc()
    reason = ctypes.create_string_buffer(1024)
    found = lib.tq_gpu_available(reason, len(reason)) == 1
    return found, reason.value.decode(errors="replace")


_gpus, _lock = {}, threading.Lock()


def gpu(ordinal):
    """The Handle of a GPU, one a process."""
    with _lock:
        if ordinal not in _gpus:
            _find_nvrtc()
            _gpus[ordinal] = make("tq_gpu_open", "gpu", ordinal, None)
        return _gpus[ordinal]


_nvrtc = []  # keeps the library open


def _find_nvrtc():
    """Opens the NVRTC that PyTorch's wheels bring, so that the library finds it loaded."""
    if _nvrtc or os.environ.get("TQ_NVRTC_LIBRARY"):
        return
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in glob.glob(os.path.join(folder, "*/lib/libnvrtc.so.1[23]")))
    # The version that torch was built for is the one whose kernels this driver takes.
    torch = sys.modules.get("torch")
    major = (getattr(torch.version, "cuda", None) or "").split(".")[0] if torch else ""
    for path in sorted(found, key=lambda path: path.endswith("." + major), reverse=True):
        try:
            _nvrtc.append(ctypes.CDLL(path))
            return
        except OSError:
            continue
