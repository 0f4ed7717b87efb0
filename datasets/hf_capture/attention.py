"""Sees the queries, keys and values of every layer, whatever the family of the model.

Transformers lets a registered function stand in for attention. Every family calls it with the queries and keys after
RoPE, the values, and the layer's module; this one shows them to a visitor and then attends as the model would.
"""

import contextlib
import dataclasses
import sys

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .failure import BAD_INPUT, Failure
from .rope_inputs import rope_inputs

NAME = "tq_capture"


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """What one layer was called with: tensors of (heads, new tokens, head_dim), and how it attends."""
    layer: int
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    softmax_scale: float
    sliding_window: int  # tokens, a query's own included; None: all of them
    softcap: float       # scores become softcap tanh(score / softcap); None: they stay


@contextlib.contextmanager
def watched(model, visit, key_basis="post_rope", deployed=None):
    """Calls visit(LayerCall) for every layer of every forward pass of one sequence within the block.

    key_basis  "pre_rope": the visitor gets queries and keys as they are before RoPE
    deployed   a DeployedCache: the model attends over what that cache gives back (deployed_cache.py)
    """
    def attend(module, query, key, value, mask, scaling=None, softcap=None, sliding_window=None, **_):
        new = query.shape[2]
        q, k = (query, key[:, :, -new:]) if before is None else before(query)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        window = sliding_window or getattr(module, "sliding_window", None)
        visit(LayerCall(module.layer_idx, q[0], k[0], value[0, :, -new:], scaling, window, softcap))
        if deployed is not None:
            key, value, mask = deployed.exchange(module.layer_idx, key, value, new, mask)
        if softcap is None:
            return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
        return _softcapped(module, query, key, value, mask, scaling, softcap)

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    previous = model.config._attn_implementation
    with rope_inputs(model) if key_basis == "pre_rope" else contextlib.nullcontext() as before:
        model.set_attn_implementation(NAME)
        try:
            yield
        finally:
            model.set_attn_implementation(previous)


def causal_mask(mask, new, tokens, device):
    """Which of `tokens` keys each of the `new` last ones sees; the model leaves the mask out where it is plain."""
    if mask is not None:
        return mask
    position = torch.arange(tokens, device=device)
    return (position[-new:, None] >= position)[None, None]


def _softcapped(module, query, key, value, mask, scaling, softcap):
    """By the family's own function, which wants a mask to add."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise Failure(BAD_INPUT, f"{type(module).__name__} caps its scores in a way that is not known here")
    mask = causal_mask(mask, query.shape[2], key.shape[2], query.device)
    added = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
    added.masked_fill_(~mask, torch.finfo(query.dtype).min)
    return eager(module, query, key, value, added, scaling=scaling, softcap=softcap)
