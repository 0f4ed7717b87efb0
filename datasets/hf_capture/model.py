"""A model from a folder or the hub: its configuration, its body without the head, and the shapes of its layers."""

import contextlib
import dataclasses
import inspect
import os

import torch
import transformers
from transformers import AutoConfig, AutoModel, DynamicCache

from .attention import watched
from .failure import BAD_INPUT, Failure

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """Of one layer's keys, values and queries, and how it attends."""
    head_dim: int
    kv_heads: int
    q_heads: int
    softmax_scale: float
    sliding_window: int  # None: the layer sees all tokens
    softcap: float       # None: none


@contextlib.contextmanager
def _one_line(name, what):
    """The library raises anything on files that it did not write."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        raise Failure(BAD_INPUT, f"{name}: {what} ({type(error).__name__}: {error})") from error


def load_config(name, revision):
    with _one_line(name, "has no configuration that can be read"):
        config = AutoConfig.from_pretrained(name, revision=revision)
    if config.is_encoder_decoder:
        raise Failure(BAD_INPUT, f"{name}: is an encoder-decoder model; a capture is of a decoder-only one")
    return config


def load_model(name, revision, dtype, device):
    """Weights come from safetensors files only: nothing is unpickled. dtype: a name, or "auto": the files' own."""
    with _one_line(name, "cannot be loaded"):
        model, info = AutoModel.from_pretrained(name, revision=revision, dtype=DTYPES.get(dtype, dtype),
                                                use_safetensors=True, output_loading_info=True)
        if missing := sorted([*info["missing_keys"], *info["mismatched_keys"]], key=str):
            raise Failure(BAD_INPUT, f"{name}: {len(missing)} weights are missing or misshapen, the first {missing[0]}")
        return model.get_decoder().to(device).eval()


def model_without_weights(config):
    """Says everything about shapes, and takes no memory."""
    with _one_line(config.model_type, "cannot be made from its configuration"), torch.device("meta"):
        return AutoModel.from_config(config).get_decoder().eval()


def forward(model, ids, cache):
    """The next tokens of the sequence that `cache` holds. ids: int64 on the model's device."""
    model(input_ids=ids[None], use_cache=True, **{_cache_argument(model): cache})


def new_cache(model):
    return DynamicCache(config=model.config)


def _cache_argument(model):
    """Of its forward(); newer versions of Transformers have renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def layer_shapes(model):
    """What the layers call attention with, found by one token; `model` may be without weights."""
    calls = []
    with _one_line(type(model).__name__, "cannot run"), torch.inference_mode(), watched(model, calls.append):
        forward(model, torch.zeros(1, dtype=torch.int64, device=model.device), new_cache(model))
    shapes = [LayerShape(call.k.shape[2], call.k.shape[0], call.q.shape[0], float(call.softmax_scale),
                         call.sliding_window, call.softcap) for call in calls]
    name = type(model).__name__
    if [call.layer for call in calls] != list(range(model.config.num_hidden_layers)):
        raise Failure(BAD_INPUT, f"{name}: not all of its layers attend over a cache of keys and values")
    if any(call.k.shape != call.v.shape or call.q.shape[2] != call.k.shape[2] for call in calls):
        raise Failure(BAD_INPUT, f"{name}: its keys and values differ in shape, which a capture cannot hold")
    if len({(shape.kv_heads, shape.q_heads) for shape in shapes}) > 1:
        raise Failure(BAD_INPUT, f"{name}: its layers differ in their number of heads, which a capture cannot hold")
    return shapes


def rope_theta(config, shape):
    """Of a layer; None where there is none. Families whose layers differ have parameters for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kind = "full_attention" if shape.sliding_window is None else "sliding_attention"
    return parameters.get(kind, parameters).get("rope_theta")


def model_attributes(name, revision, model, config):
    """Provenance. Of a folder only its last component: where it lies says nothing to a reader elsewhere."""
    folder = os.path.isdir(name)
    return {"model": os.path.basename(os.path.abspath(name)) if folder else name,
            "model_type": config.model_type,
            "model_revision": getattr(config, "_commit_hash", None) or revision or "",
            "source_dtype": str(model.dtype).removeprefix("torch."),
            "tool_version": f"capture_hf 1, transformers {transformers.__version__}, torch {torch.__version__}"}


def weights_stamp(name):
    """What changes when a folder's weights do; [] for a name on the hub, whose revision says it."""
    if not os.path.isdir(name):
        return []
    files = sorted(entry.path for entry in os.scandir(name) if entry.name.endswith(".safetensors"))
    return [(os.path.basename(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in files]
