"""Codecs of keys and of values."""

import ctypes
import math

import numpy as np

from . import _arrays as arrays
from ._library import (ALPHAS, ELEMENTS, KEYS, VALUES, CodecInfo, CodecOptions, Rows, call, file_name, gpu, integer,
                       lib, make, text)

FIELDS = ("codes", "scales", "zeros", "signs", "residual_norms")


class Encoded:
    """Encoded vectors in the canonical layout, rows or heads x rows of them; what a codec does not have is None.

    codes           uint8 (..., bytes): b bits a coordinate laid end to end, least significant bit first
    scales, zeros   float16 (...), or (..., groups) of group values
    signs           uint8 (..., d / 8): bit 1 is +1
    residual_norms  float16 (...)
    """

    def __init__(self, codes, scales, zeros=None, signs=None, residual_norms=None):
        self.codes, self.scales, self.zeros, self.signs, self.residual_norms = (
            codes, scales, zeros, signs, residual_norms)

    @property
    def nbytes(self):
        return sum(getattr(self, name).nbytes for name in FIELDS if getattr(self, name) is not None)

    def __repr__(self):
        parts = ", ".join(f"{name} {tuple(getattr(self, name).shape)}" for name in FIELDS
                          if getattr(self, name) is not None)
        return f"Encoded({parts})"


class _Codec:
    def __init__(self, handle):
        self._handle = handle
        self._info = CodecInfo()
        call("tq_codec_describe", handle, ctypes.byref(self._info))

    # What it is.

    @property
    def name(self):
        """'mse3-nc'"""
        return self._info.name.decode()

    @property
    def head_dim(self):
        return self._info.head_dim

    @property
    def heads(self):
        """KV heads that have tables of their own; 1: one codec for any number of heads."""
        return self._info.heads

    @property
    def bytes_per_token(self):
        """Of one head."""
        return self._info.bytes_per_token

    def tables(self, head=0):
        """(centroids, boundaries, alpha) of Lloyd-Max codecs; alpha is 0 unless there is a sketch."""
        centroids, boundaries = np.empty(2**self._info.table_bits), np.empty(2**self._info.table_bits + 1)
        alpha = ctypes.c_double()
        call("tq_codec_tables", self.handle(), integer("head", head), centroids.ctypes.data, boundaries.ctypes.data,
             ctypes.byref(alpha))
        return centroids, boundaries, alpha.value

    @property
    def rotation(self):
        """Pi, d x d: Pi x / ||x|| is what the tables quantise."""
        matrix = np.empty((self.head_dim, self.head_dim), np.float32)
        call("tq_codec_matrices", self.handle(), matrix.ctypes.data, None)
        return matrix

    @property
    def sketch(self):
        """S, d x d, of keys in prod mode: applied to the rotated residual."""
        matrix = np.empty((self.head_dim, self.head_dim), np.float32)
        call("tq_codec_matrices", self.handle(), None, matrix.ctypes.data)
        return matrix

    def __repr__(self):
        state = "" if self._handle else ", closed"
        return f"{type(self).__name__}({self.name}, head_dim {self.head_dim}{state})"

    def handle(self):
        handle = self._handle
        if handle is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return handle

    def close(self):
        """Gives its memory back, on GPUs too. Caches made with it go on."""
        self._handle = None

    # What it does.

    def encode(self, x, out=None, stream=None):
        """x: rows x d or heads x rows x d, float32; on a GPU also float16 and bfloat16. Returns Encoded."""
        handle, device = self.handle(), arrays.device_of("x", x)
        pointer = _stream(device, stream)
        vectors = arrays.span("x", x, pointer)
        self._check_vectors("x", vectors)
        if out is None:
            out = Encoded(**{name: arrays.empty(dtype, shape, device, pointer)
                             for name, dtype, shape in self._layout(vectors.shape[:-1])})
        rows, keep = self._rows("out", out, vectors.shape[:-1], device, pointer, writable=True)
        heads, count = _split(vectors.shape[:-1])
        if device is None:
            call("tq_encode", handle, vectors.pointer, heads, count, rows)
        else:
            call("tq_encode_device", handle, gpu(device), vectors.pointer, ELEMENTS[vectors.dtype], heads, count, rows,
                 pointer)
        del keep
        return out

    def decode(self, encoded, out=None, dtype="float32", stream=None):
        """Vectors of the shape that was encoded; `dtype` is for a GPU."""
        device = arrays.device_of("encoded.codes", _checked("encoded", encoded).codes)
        handle = self.handle()
        pointer = _stream(device, stream)
        shape = tuple(encoded.codes.shape[:-1])
        rows, keep = self._rows("encoded", encoded, shape, device, pointer)
        if out is None:
            out = arrays.empty(_float_type(dtype, device), (*shape, self.head_dim), device, pointer)
        arrays.same_device(device, "encoded is", out=out)
        vectors = arrays.span("out", out, pointer, writable=True)
        self._check_vectors("out", vectors, shape)
        heads, count = _split(shape)
        if device is None:
            call("tq_decode", handle, rows, heads, count, vectors.pointer)
        else:
            call("tq_decode_device", handle, gpu(device), rows, heads, count, vectors.pointer, ELEMENTS[vectors.dtype],
                 pointer)
        del keep
        return out

    # Checks.

    def _check_vectors(self, name, vectors, shape=None):
        types = ("float32",) if vectors.device is None else tuple(ELEMENTS)
        if shape is None and len(vectors.shape) not in (2, 3):
            raise ValueError(f"{name} has shape {vectors.shape}, must be (rows, {self.head_dim}) or (heads, rows, "
                             f"{self.head_dim})")
        leading = shape or (None,) * (len(vectors.shape) - 1)
        arrays.check(name, vectors, types, (*leading, self.head_dim))
        if self.heads > 1 and (len(vectors.shape) != 3 or vectors.shape[0] != self.heads):
            raise ValueError(f"{name} has shape {vectors.shape}, must be ({self.heads}, rows, {self.head_dim}): the "
                             f"codec has a table for each of {self.heads} heads")

    def _layout(self, leading):
        """(name, dtype, shape) of the arrays that the codec has."""
        info = self._info
        grouped = info.zeros > 0
        scalars = (*leading, info.scales) if grouped else leading
        sizes = (("codes", "uint8", info.code_bytes, (*leading, info.code_bytes)),
                 ("scales", "float16", info.scales, scalars), ("zeros", "float16", info.zeros, scalars),
                 ("signs", "uint8", info.sign_bytes, (*leading, info.sign_bytes)),
                 ("residual_norms", "float16", info.residual_norms, leading))
        return [(name, dtype, shape) for name, dtype, size, shape in sizes if size > 0]

    def _rows(self, name, encoded, leading, device, stream, writable=False):
        """The library's view of Encoded, and what must live as long as it."""
        _checked(name, encoded)
        if len(leading) not in (1, 2):
            raise ValueError(f"{name}.codes has {len(leading) + 1} dimensions, must have 2 or 3")
        if self.heads > 1 and (len(leading) != 2 or leading[0] != self.heads):
            raise ValueError(f"{name} must be of {self.heads} heads, each of which has tables of its own")
        rows, keep = Rows(), []
        for field, dtype, shape in self._layout(leading):
            array, label = getattr(encoded, field), f"{name}.{field}"
            if array is None:
                raise ValueError(f"{label} is missing; {self.name} has it")
            arrays.same_device(device, "the others are", **{label: array})
            keep.append(arrays.span(label, array, stream, writable))
            arrays.check(label, keep[-1], (dtype,), shape)
            setattr(rows, field, keep[-1].pointer)
        return rows, keep


class KeyCodec(_Codec):
    """Keys. bits: stored bits a coordinate.

    mode      "mse": Lloyd-Max; "prod": one bit less, and the sign bits of a sketch of the residual
    scale     mse: "nc" keeps the length, "norm" as the paper, "ls" least squares
    sketch    prod: "orthogonal" or "gaussian"
    rotation  "rht" (Hadamard) or "qr" (dense)
    seed      of rotation and sketch: the same as of the program `tq`
    alpha     prod: "unbiased", "mse" (least squares for an isotropic residual) or a number
    """

    def __init__(self, head_dim, bits=3, mode="mse", scale="nc", sketch="orthogonal", rotation="rht", seed=0,
                 alpha="unbiased"):
        if isinstance(alpha, str) and alpha not in ALPHAS:
            raise ValueError(f"alpha is '{alpha}', must be 'unbiased', 'mse' or a number")
        options = _options(head_dim, bits, mode, scale, rotation, seed)
        options.sketch = text("sketch", sketch)
        options.alpha = ALPHAS[alpha] if isinstance(alpha, str) else _number("alpha", alpha)
        super().__init__(make("tq_codec_create", "codec", KEYS, ctypes.byref(options)))

    @classmethod
    def from_artefact(cls, path, layer):
        """The keys' codec of one layer of a *.tq.h5, layers counted from 0."""
        return _from_artefact(cls, path, layer, KEYS)

    def scores(self, q, encoded, out=None):
        """<q_h, k^_t> straight from the codes: query heads x rows. q: query heads x d, query heads a multiple of the
        heads encoded; query head h reads head h // (query heads / heads). NumPy arrays."""
        _host_only("scores", q=q, encoded=_checked("encoded", encoded).codes)
        shape = tuple(encoded.codes.shape[:-1])
        rows, keep = self._rows("encoded", encoded, shape, None, 0)
        heads, count = _split(shape)
        queries = _queries(q, self.head_dim, heads)
        out = np.empty((queries.shape[0], count), np.float32) if out is None else out
        to = arrays.span("out", out, writable=True)
        arrays.check("out", to, ("float32",), (queries.shape[0], count))
        call("tq_scores", self.handle(), rows, heads, count, queries.pointer, queries.shape[0], to.pointer)
        del keep
        return out


class ValueCodec(_Codec):
    """Values.

    mode        "rotated": as keys in mse mode; "group": a minimum and a step a group
    group_size  group: coordinates of a group, a divisor of head_dim
    scale, rotation, seed  rotated: as KeyCodec's
    """

    def __init__(self, head_dim, bits=3, mode="rotated", group_size=32, scale="nc", rotation="rht", seed=0):
        options = _options(head_dim, bits, mode, scale, rotation, seed)
        options.group_size = integer("group_size", group_size)
        super().__init__(make("tq_codec_create", "codec", VALUES, ctypes.byref(options)))

    @classmethod
    def from_artefact(cls, path, layer):
        """The values' codec of one layer of a *.tq.h5, layers counted from 0."""
        return _from_artefact(cls, path, layer, VALUES)


def attend(q, key_codec, keys, value_codec, values, softmax_scale=None, return_lse=False):
    """Attention over encoded keys and values: query heads x d. q as for KeyCodec.scores(); softmax_scale None:
    1 / sqrt(d). return_lse: also the logarithm of each head's sum of exp(scaled scores). NumPy arrays."""
    if not isinstance(key_codec, KeyCodec) or not isinstance(value_codec, ValueCodec):
        raise TypeError("attend takes q, a KeyCodec, its Encoded, a ValueCodec and its Encoded")
    _host_only("attend", q=q, keys=_checked("keys", keys).codes, values=_checked("values", values).codes)
    if value_codec.head_dim != key_codec.head_dim:
        raise ValueError(f"keys have head_dim {key_codec.head_dim}, values {value_codec.head_dim}")
    shape = tuple(keys.codes.shape[:-1])
    key_rows, keep_keys = key_codec._rows("keys", keys, shape, None, 0)
    value_rows, keep_values = value_codec._rows("values", values, shape, None, 0)
    heads, count = _split(shape)
    queries = _queries(q, key_codec.head_dim, heads)
    out, lse = np.empty(queries.shape, np.float32), np.empty(queries.shape[0], np.float32)
    call("tq_attend", key_codec.handle(), key_rows, value_codec.handle(), value_rows, heads, count, queries.pointer,
         queries.shape[0], scale_of(softmax_scale, key_codec.head_dim), out.ctypes.data, lse.ctypes.data)
    del keep_keys, keep_values
    return (out, lse) if return_lse else out


def scale_of(softmax_scale, head_dim):
    return 1 / math.sqrt(head_dim) if softmax_scale is None else _number("softmax_scale", softmax_scale)


def _checked(name, encoded):
    if not isinstance(encoded, Encoded):
        raise TypeError(f"{name} must be Encoded, not {type(encoded).__name__}")
    return encoded


def _options(head_dim, bits, mode, scale, rotation, seed):
    options = CodecOptions()
    lib.tq_codec_defaults(ctypes.byref(options))
    options.head_dim, options.bits = integer("head_dim", head_dim), integer("bits", bits)
    options.mode, options.scale = text("mode", mode), text("scale", scale)
    options.rotation, options.seed = text("rotation", rotation), integer("seed", seed, 0, 2**64 - 1)
    return options


def _number(name, value):
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
    return value


def _from_artefact(cls, path, layer, side):
    codec = cls.__new__(cls)
    _Codec.__init__(codec, make("tq_codec_from_artefact", "codec", file_name(path), integer("layer", layer), side))
    return codec


def _split(leading):
    """(heads, rows)"""
    return (1, leading[0]) if len(leading) == 1 else leading


def _queries(q, head_dim, heads):
    queries = arrays.span("q", q)
    arrays.check("q", queries, ("float32",), (None, head_dim))
    if heads == 0 or queries.shape[0] % heads != 0:
        raise ValueError(f"q has {queries.shape[0]} heads, must be a multiple of the {heads} that are encoded")
    return queries


def _host_only(what, **given):
    for name, x in given.items():
        if arrays.device_of(name, x) is not None:
            raise TypeError(f"{name} is on a GPU, and {what}() works on the host: there it is KvCache.{what}()")


def _stream(device, stream):
    if device is None:
        return 0
    return arrays.stream_pointer(arrays.stream_object(device, stream))


def _float_type(dtype, device):
    name = arrays.type_name(dtype)
    if device is None and name != "float32":
        raise TypeError("on the host vectors are float32")
    return name
