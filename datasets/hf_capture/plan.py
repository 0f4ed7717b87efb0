"""What a capture will hold, known before the first token runs: shapes, positions, attributes and its size."""

import dataclasses
import hashlib
import json
import math

import numpy as np

from .failure import BAD_INPUT, Failure

BYTES = 2  # of a stored element: float16 and bfloat16
TENSORS = ("k", "v", "q")


@dataclasses.dataclass(frozen=True)
class Plan:
    layers: list        # LayerShape
    lengths: list       # tokens of every sequence
    query_every: int    # 0: no queries
    storage: str        # "float16" or "bfloat16"
    attributes: dict    # of the root
    layer_attributes: list
    job: str            # digest of all that the rows depend on: a run goes on only with its own

    @property
    def tokens(self):
        return sum(self.lengths)

    @property
    def queries(self):
        return sum(query_rows(length, self.query_every) for length in self.lengths)

    def rows(self, tensor):
        return self.queries if tensor == "q" else self.tokens

    def heads(self, layer, tensor):
        return self.layers[layer].q_heads if tensor == "q" else self.layers[layer].kv_heads

    def tensors(self):
        """(layer, tensor) of every dataset."""
        names = TENSORS if self.queries else TENSORS[:2]
        return [(layer, name) for layer in range(len(self.layers)) for name in names]

    @property
    def bytes(self):
        return sum(BYTES * self.rows(name) * self.heads(layer, name) * self.layers[layer].head_dim
                   for layer, name in self.tensors())

    def first_rows(self, sequence):
        """(first row of k and v, first row of q) of a sequence."""
        before = self.lengths[:sequence]
        return sum(before), sum(query_rows(length, self.query_every) for length in before)

    def token_indices(self):
        """position, sequence_id, q_position, q_sequence_id of every row."""
        positions = [np.arange(length) for length in self.lengths]
        queried = [range_[first_query(0, len(range_), self.query_every)::self.query_every]
                   if self.query_every else range_[:0] for range_ in positions]
        of = lambda parts: np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return {"position": np.concatenate(positions), "sequence_id": of(positions),
                "q_position": np.concatenate(queried), "q_sequence_id": of(queried)}


def first_query(begin, length, every):
    """The first position from `begin` on whose query is kept. They are counted from a sequence's end, so that its last
    token always asks."""
    return begin + (length - 1 - begin) % every


def query_rows(length, every):
    return math.ceil(length / every) if every else 0


def make_plan(layers, thetas, sequences, query_every, storage, attributes, weights):
    """thetas: rope_theta of every layer or None; attributes: provenance, the time left out; weights: what changes when
    the model's do."""
    first = layers[0]
    attributes = {"format": "kv-capture", "format_version": 1, **attributes, "num_layers": len(layers),
                  "num_q_heads": first.q_heads, "num_kv_heads": first.kv_heads,
                  "axis_order": "tokens,heads,head_dim"}
    if len({layer.head_dim for layer in layers}) == 1:
        attributes["head_dim"] = first.head_dim
    if len({layer.softmax_scale for layer in layers}) == 1:
        attributes["softmax_scale"] = first.softmax_scale
    elif any(not math.isclose(layer.softmax_scale, layer.head_dim ** -0.5) for layer in layers):
        raise Failure(BAD_INPUT, "the model's layers differ in softmax scale, which a capture cannot hold")
    if first.softcap is not None:
        attributes["attention_softcap"] = first.softcap
    full = [theta for layer, theta in zip(layers, thetas) if layer.sliding_window is None] or thetas
    if full[0] is not None:
        attributes["rope_theta"] = float(full[0])
    layer_attributes = []
    for layer, theta in zip(layers, thetas):
        own = {} if layer.sliding_window is None else {"sliding_window": layer.sliding_window}
        if theta is not None and theta != full[0]:
            own["rope_theta"] = float(theta)
        layer_attributes.append(own)
    job = [attributes, layer_attributes, weights, query_every, storage,
           [hashlib.sha256(ids.tobytes()).hexdigest() for ids in sequences]]
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
    return Plan(layers, [len(ids) for ids in sequences], query_every, storage, attributes, layer_attributes, digest)
