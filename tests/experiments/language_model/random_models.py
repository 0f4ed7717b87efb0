"""Small random models of each family that `tq` reads, with the logits that transformers computes in float32.

usage: random_models.py FOLDER [SEED]    writes FOLDER/FAMILY/{config.json, model.safetensors, tokens.u32, logits.f32}

Needs torch and transformers. `tests/golden/language_model` was written by this script with seed 1 (transformers
5.24, torch 2.15); test_logits.py compares `tq` with it, and test_fresh_logits.py with models of a new seed.
"""

import os
import sys

import numpy as np
import torch
import transformers

TOKENS = 160  # more than the 128 of the recent window
SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=None)


def families():
    """Name, configuration, dtype of the file: every difference between the families, and every dtype, once."""
    rope = dict(rope_type="default", rope_theta=500.0)
    return [
        ("llama", transformers.LlamaConfig(**SHAPE, head_dim=16, rms_norm_eps=1e-5, mlp_bias=True,
                                           rope_parameters=rope, tie_word_embeddings=False), torch.bfloat16),
        ("llama_attention_bias", transformers.LlamaConfig(**{**SHAPE, "num_key_value_heads": 4, "hidden_size": 64},
                                                          attention_bias=True, tie_word_embeddings=True),
         torch.float16),
        ("qwen2", transformers.Qwen2Config(**{**SHAPE, "num_attention_heads": 2, "num_key_value_heads": 1},
                                           tie_word_embeddings=True), torch.float16),
        ("qwen3", transformers.Qwen3Config(**SHAPE, head_dim=24, tie_word_embeddings=False), torch.float32),
    ]


def random_model(config, dtype, seed):
    """Weights large enough that attention and logits are far from uniform, rounded to the file's dtype."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.5 * torch.randn_like(parameter))
            elif "embed" in name or "lm_head" in name:
                parameter.copy_(0.5 * torch.randn_like(parameter))
            else:
                parameter.copy_(1.2 * torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
            parameter.copy_(parameter.to(dtype).float())
    return model.eval()


def write(folder, name, config, dtype, seed):
    path = os.path.join(folder, name)
    model = random_model(config, dtype, seed)
    tokens = torch.randint(config.vocab_size, (1, TOKENS))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[0]
    model.to(dtype).save_pretrained(path)
    for extra in ("generation_config.json",):
        if os.path.exists(os.path.join(path, extra)):
            os.remove(os.path.join(path, extra))
    tokens[0].numpy().astype("<u4").tofile(os.path.join(path, "tokens.u32"))
    logits.numpy().astype("<f4").tofile(os.path.join(path, "logits.f32"))


def main(folder, seed=1):
    torch.set_num_threads(1)
    for index, (name, config, dtype) in enumerate(families()):
        write(folder, name, config, dtype, 1000 * int(seed) + index)


if __name__ == "__main__":
    main(*sys.argv[1:])
