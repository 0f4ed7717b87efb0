"""What the model reads back from the compressed cache that will be deployed (--quantised-as).

Codecs, tables and the rule of which tokens stay exact are those of the project's Python module, so what is captured is
what ships. All tokens are binary16 before anything else, as in the cache itself (core/kv_cache.h).
"""

import configparser
import hashlib

import h5py
import torch

from .attention import causal_mask
from .failure import BAD_INPUT, MACHINE, Failure

HALF_MAX = 65504
SECTION = "sweep"
# An axis of `tq sweep` and its default, as far as the Python module has it, and what stays exact.
KEYS = {"key-mode": "mse", "key-bits": "3", "sketch": "orthogonal", "alpha": "unbiased"}
VALUES = {"value-mode": "rotated", "value-bits": "3", "group-size": "32"}
BOTH = {"scale": "nc", "rotation": "rht", "seed": "0"}
POLICY = {"first-tokens": "0", "recent-window": "0"}


class DeployedCache:
    """Gives every layer the keys and values of one sequence as its cache would.

    codecs  a layer's (KeyCodec, ValueCodec); None: that side stays binary16
    recent, sinks  the newest and the first tokens that stay binary16, a query's own token counted
    """

    def __init__(self, codecs, recent, sinks, description):
        self.codecs, self.recent, self.sinks, self.description = codecs, recent, sinks, description
        self._layers = {}

    def start_sequence(self):
        self._layers = {}

    def exchange(self, layer, key, value, new, mask):
        """key, value: 1 x KV heads x tokens x head_dim, of which the `new` last ones were not there before and the
        others are what the model's own cache keeps (the window of a sliding layer). Returns the keys, values and mask
        to attend with; where some tokens are exact for some queries only, each token comes twice."""
        tokens = key.shape[2]
        exact = [_binary16(x) for x in (key, value)]
        before, seen = self._layers.get(layer, ((None, None), 0))
        coded = [_through(codec, x[:, :, -new:]) for codec, x in zip(self.codecs[layer], exact)]
        coded = [x if old is None else torch.cat([old, x], dim=2)[:, :, -tokens:] for old, x in zip(before, coded)]
        seen += new
        self._layers[layer] = (coded, seen)
        coded, exact = ([x.to(key.dtype) for x in pair] for pair in (coded, exact))
        if self.recent == 0 and self.sinks == 0:
            return *coded, mask
        position = torch.arange(seen - tokens, seen, device=key.device)
        kept = (position < self.sinks) | (position[-new:, None] - position < self.recent)
        mask = causal_mask(mask, new, tokens, key.device)
        keys, values = (torch.cat(pair, dim=2) for pair in zip(exact, coded))
        return keys, values, torch.cat([mask & kept, mask & ~kept], dim=-1)


def deployed_cache(path, layers):
    """Of an artefact (*.tq.h5), or of an INI file whose section [sweep] has one value an axis. `layers`: LayerShape."""
    try:
        import turboquant_lab as tq
    except ImportError as error:
        raise Failure(MACHINE, f"--quantised-as needs the project's Python module; set PYTHONPATH=experiments/python "
                               f"({error})") from error
    try:
        with open(path, "rb") as file:
            content = file.read()
        make = _from_artefact if h5py.is_hdf5(path) else _from_ini
        codecs, recent, sinks, name = make(tq, path, layers)
    except OSError as error:
        raise Failure(BAD_INPUT, f"{path}: {error.strerror}") from error
    except (tq.Error, ValueError, configparser.Error) as error:
        raise Failure(BAD_INPUT, str(error) if path in str(error) else f"{path}: {error}") from error
    return DeployedCache(codecs, recent, sinks, f"{name}, sha256 {hashlib.sha256(content).hexdigest()}")


def _from_artefact(tq, path, layers):
    cache = tq.KvCache.from_artefact(path)
    if cache.layers != len(layers):
        raise ValueError(f"has {cache.layers} layers, and the model {len(layers)}")
    codecs = [(tq.KeyCodec.from_artefact(path, i), tq.ValueCodec.from_artefact(path, i)) for i in range(cache.layers)]
    for i, (layer, (keys, _)) in enumerate(zip(layers, codecs)):
        if keys.head_dim != layer.head_dim or keys.heads not in (1, layer.kv_heads):
            raise ValueError(f"layer {i} is of another shape than the model's")
    return codecs, cache.recent, cache.sinks, "artefact"


def _from_ini(tq, path, layers):
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    parser.read(path)
    if parser.sections() != [SECTION]:
        raise ValueError(f"is neither an artefact (*.tq.h5) nor an INI file with the one section [{SECTION}]")
    given, known = parser[SECTION], {**KEYS, **VALUES, **BOTH, **POLICY}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"'{unknown[0]}' is not known here; choose from: {', '.join(known)}")
    axes = {name: given.get(name, default) for name, default in known.items()}
    common = dict(rotation=axes["rotation"], seed=int(axes["seed"]))
    keys = dict(mode=axes["key-mode"], bits=int(axes["key-bits"]), scale=axes["scale"], sketch=axes["sketch"],
                alpha=_number_or_name(axes["alpha"]), **common)
    values = dict(mode=axes["value-mode"], bits=int(axes["value-bits"]), group_size=int(axes["group-size"]),
                  scale=axes["scale"], **common)
    made = {}  # layers of one head_dim share what is random
    for head_dim in {layer.head_dim for layer in layers}:
        made[head_dim] = (None if keys["mode"] == "none" else tq.KeyCodec(head_dim, **keys),
                          None if values["mode"] == "none" else tq.ValueCodec(head_dim, **values))
    codecs = [made[layer.head_dim] for layer in layers]
    name = " with ".join(codec.name if codec else "fp16" for codec in codecs[0])
    return codecs, int(axes["recent-window"]), int(axes["first-tokens"]), name


def _number_or_name(text):
    try:
        return float(text)
    except ValueError:
        return text


def _binary16(x):
    return x.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)


def _through(codec, x):
    """x: 1 x KV heads x rows x head_dim, binary16."""
    if codec is None:
        return x
    rows = x[0].contiguous()
    if rows.is_cuda:
        return codec.decode(codec.encode(rows))[None]
    return torch.from_numpy(codec.decode(codec.encode(rows.float().numpy())))[None]
