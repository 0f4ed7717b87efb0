"""The compressed KV cache, on the host or on a GPU."""

import ctypes
import dataclasses

import numpy as np

from . import _arrays as arrays
from ._codec import KeyCodec, ValueCodec, scale_of
from ._library import ELEMENTS, CacheBytes, CacheLayer, CachePolicy, call, file_name, gpu, integer, make


@dataclasses.dataclass
class Layer:
    """How one layer is stored. Without codecs its tokens all stay float16, and head_dim must be given."""
    kv_heads: int
    keys: KeyCodec = None
    values: ValueCodec = None
    head_dim: int = None


@dataclasses.dataclass
class BytesUsed:
    codes: int      # of quantised tokens
    scalars: int    # of quantised tokens: scales, zero points, norms
    exact: int      # tokens kept as float16
    allocated: int  # memory held for them

    @property
    def total(self):
        """Without what is allocated ahead."""
        return self.codes + self.scalars + self.exact


class KvCache:
    """Per layer and sequence the first `sinks` and the newest `recent` tokens as float16, all others quantised, once.

    layers  one Layer or a list of them; their codecs may be closed afterwards
    batch   sequences
    device  None: the host, NumPy arrays of float32. Else a GPU (0, "cuda", "cuda:1", torch.device), CUDA arrays of
            float32, float16 or bfloat16
    stream  where a GPU's work goes, torch's current stream by default; calls made in another one are ordered with it
    """

    def __init__(self, layers, recent=128, sinks=0, flush_block=1, batch=1, device=None, stream=None):
        layers = [layers] if isinstance(layers, Layer) else list(layers)
        handles = [_layer_handles(layer) for layer in layers]
        array = (CacheLayer * len(layers))(*(_c_layer(layer, pair) for layer, pair in zip(layers, handles)))
        self._make("tq_cache_create", (array, len(layers)), recent, sinks, flush_block, batch, device, stream)

    @classmethod
    def from_artefact(cls, path, recent=None, sinks=None, flush_block=1, batch=1, device=None, stream=None):
        """All layers of a *.tq.h5. recent, sinks None: as the artefact says, else 128 and 0."""
        policy = CachePolicy()
        call("tq_artefact_policy", file_name(path), ctypes.byref(policy))
        recent = policy.recent if recent is None else recent
        sinks = policy.sinks if sinks is None else sinks
        cache = cls.__new__(cls)
        cache._make("tq_cache_from_artefact", (file_name(path),), recent, sinks, flush_block, batch, device, stream)
        return cache

    def _make(self, name, what, recent, sinks, flush_block, batch, device, stream):
        policy = CachePolicy(integer("recent", recent), integer("sinks", sinks), integer("flush_block", flush_block))
        self.device = _ordinal(device)
        on = None if self.device is None else gpu(self.device)
        self._stream = None if self.device is None else arrays.stream_object(self.device, stream)  # lives as we do
        self._handle = make(name, "cache", *what, ctypes.byref(policy), integer("batch", batch), on,
                            arrays.stream_pointer(self._stream))
        layers, found_batch = ctypes.c_int(), ctypes.c_int()
        call("tq_cache_describe", self._handle, ctypes.byref(layers), ctypes.byref(found_batch), None)
        self.layers, self.batch = layers.value, found_batch.value
        self.recent, self.sinks = policy.recent, policy.sinks
        self._shapes = [self._shape(layer) for layer in range(self.layers)]

    def _shape(self, layer):
        head_dim, kv_heads = ctypes.c_int(), ctypes.c_int()
        call("tq_cache_layer_shape", self._handle, layer, ctypes.byref(head_dim), ctypes.byref(kv_heads))
        return kv_heads.value, head_dim.value

    def __repr__(self):
        return f"KvCache({self.layers} layers, batch {self.batch}, on {arrays.describe(self.device)})"

    def close(self):
        """Gives the memory back; waits for work that uses it."""
        self._handle = None

    # Tokens in.

    def prefill(self, k, v, layer=0, sequence=0, stream=None):
        """append() to a sequence that must be empty in this layer."""
        self._append("tq_cache_prefill", k, v, layer, sequence, stream)

    def append(self, k, v, layer=0, sequence=0, stream=None):
        """k, v: tokens x KV heads x head_dim, oldest first."""
        self._append("tq_cache_append", k, v, layer, sequence, stream)

    def append_batch(self, k, v, layer=0, stream=None):
        """As many tokens to every sequence. k, v: batch x tokens x KV heads x head_dim."""
        self._append("tq_cache_append_batch", k, v, layer, None, stream)

    def _append(self, name, k, v, layer, sequence, stream):
        handle, layer = self._open(), self._layer(layer)
        pointer = self._stream_of(stream, k=k, v=v)
        keys, values = arrays.span("k", k, pointer), arrays.span("v", v, pointer)
        shape = (None, *self._shapes[layer])
        if sequence is None:
            shape = (self.batch, *shape)
        arrays.check("k", keys, self._types(), shape)
        arrays.check("v", values, (keys.dtype,), keys.shape)
        which = [] if sequence is None else [self._sequence(sequence)]
        call(name, handle, layer, *which, keys.pointer, values.pointer, ELEMENTS[keys.dtype], keys.shape[-3], pointer)

    # What it holds.

    def tokens(self, layer=0, sequence=0):
        return self._count("tq_cache_tokens", layer, sequence)

    def quantised(self, layer=0, sequence=0):
        """Those of the tokens that are not float16."""
        return self._count("tq_cache_quantised", layer, sequence)

    def _count(self, name, layer, sequence):
        count = ctypes.c_size_t()
        call(name, self._open(), self._layer(layer), self._sequence(sequence), ctypes.byref(count))
        return count.value

    def bytes_used(self):
        """Of all layers and sequences."""
        found = CacheBytes()
        call("tq_cache_bytes_used", self._open(), ctypes.byref(found))
        return BytesUsed(found.codes, found.scalars, found.exact, found.allocated)

    @property
    def compression(self):
        """How many times smaller the tokens are than as float16; 1 while there are none."""
        plain = sum(4 * kv_heads * head_dim * self.tokens(layer, sequence)
                    for layer, (kv_heads, head_dim) in enumerate(self._shapes) for sequence in range(self.batch))
        return plain / self.bytes_used().total if plain else 1.0

    # Attention.

    def attend(self, q, layer=0, softmax_scale=None, out=None, return_lse=False, stream=None):
        """Attention of every sequence over all its tokens, exact and quantised, of q's shape and type: batch x query
        heads x head_dim, or query heads x head_dim for a batch of 1. Query head h reads KV head h // (query heads /
        KV heads); at most 16 of them share one on a GPU. softmax_scale None: 1 / sqrt(head_dim). return_lse: also the
        logarithm of each head's sum of exp(scaled scores), float32."""
        handle, layer = self._open(), self._layer(layer)
        pointer = self._stream_of(stream, q=q)
        queries = arrays.span("q", q, pointer)
        head_dim = self._shapes[layer][1]
        single = self.batch == 1 and len(queries.shape) == 2
        arrays.check("q", queries, self._types(), (None, head_dim) if single else (self.batch, None, head_dim))
        if out is None:
            out = arrays.empty(queries.dtype, queries.shape, self.device, pointer)
        arrays.same_device(self.device, "the cache is", out=out)
        to = arrays.span("out", out, pointer, writable=True)
        arrays.check("out", to, self._types(), queries.shape)
        lse = arrays.empty("float32", queries.shape[:-1], self.device, pointer) if return_lse else None
        sums = arrays.span("lse", lse, pointer, writable=True).pointer if return_lse else None
        call("tq_cache_attend", handle, layer, queries.pointer, ELEMENTS[queries.dtype], queries.shape[-2],
             scale_of(softmax_scale, head_dim), to.pointer, ELEMENTS[to.dtype], sums, pointer)
        return (out, lse) if return_lse else out

    def scores(self, q, layer=0, sequence=0, out=None, stream=None):
        """<q_h, k^_t> of one sequence's quantised tokens, the oldest first, without a softmax scale: query heads x
        quantised(), float32. q: query heads x head_dim."""
        handle, layer, sequence = self._open(), self._layer(layer), self._sequence(sequence)
        pointer = self._stream_of(stream, q=q)
        queries = arrays.span("q", q, pointer)
        arrays.check("q", queries, self._types(), (None, self._shapes[layer][1]))
        shape = (queries.shape[0], self.quantised(layer, sequence))
        out = arrays.empty("float32", shape, self.device, pointer) if out is None else out
        arrays.same_device(self.device, "the cache is", out=out)
        to = arrays.span("out", out, pointer, writable=True)
        arrays.check("out", to, ("float32",), shape)
        call("tq_cache_scores", handle, layer, sequence, queries.pointer, ELEMENTS[queries.dtype], queries.shape[0],
             to.pointer, pointer)
        return out

    # Checks.

    def _open(self):
        handle = self._handle
        if handle is None:
            raise ValueError("this KvCache is closed")
        return handle

    def _layer(self, layer):
        return integer("layer", layer, 0, self.layers - 1)

    def _sequence(self, sequence):
        return integer("sequence", sequence, 0, self.batch - 1)

    def _types(self):
        return ("float32",) if self.device is None else tuple(ELEMENTS)

    def _stream_of(self, stream, **given):
        arrays.same_device(self.device, "the cache is", **given)
        if self.device is None:
            return 0
        return arrays.stream_pointer(arrays.stream_object(self.device, stream))


def _ordinal(device):
    if device is None or str(device) == "cpu":
        return None
    if isinstance(device, (int, np.integer)):
        return integer("device", device, 0)
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise ValueError(f"device is {device}, must be None, a number, 'cuda' or 'cuda:N'")
    if number:
        return int(number)
    torch = arrays.loaded_torch()
    return torch.cuda.current_device() if torch is not None and torch.cuda.is_available() else 0


def _layer_handles(layer):
    if not isinstance(layer, Layer):
        raise TypeError(f"layers must be Layer, not {type(layer).__name__}")
    if layer.keys is not None and not isinstance(layer.keys, KeyCodec):
        raise TypeError("a Layer's keys must be a KeyCodec")
    if layer.values is not None and not isinstance(layer.values, ValueCodec):
        raise TypeError("a Layer's values must be a ValueCodec")
    return [codec.handle() if codec is not None else None for codec in (layer.keys, layer.values)]


def _c_layer(layer, handles):
    head_dim = layer.head_dim
    if head_dim is None:
        codec = layer.keys or layer.values
        if codec is None:
            raise ValueError("a Layer without codecs needs head_dim")
        head_dim = codec.head_dim
    pointers = [handle._as_parameter_ if handle is not None else None for handle in handles]
    return CacheLayer(integer("head_dim", head_dim), integer("kv_heads", layer.kv_heads), *pointers)
