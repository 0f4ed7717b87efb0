"""Attention over a compressed cache against torch's own, on random tensors.

    PYTHONPATH=experiments/python python3 experiments/python/example_torch.py [key bits] [value bits]

Random keys are the hardest there are: every token matters about the same, so the errors of a real model are smaller.
"""

import sys

import torch
import turboquant_lab as tq

TOKENS, KV_HEADS, Q_HEADS, HEAD_DIM = 4096, 8, 32, 128


def main():
    key_bits, value_bits = (int(argument) for argument in (sys.argv[1:] + ["4", "4"][len(sys.argv) - 1:]))
    found, reason = tq.gpu_available()
    device = "cuda" if found and torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print(f"on the host ({reason or 'torch has no CUDA'})")
    dtype = torch.float16 if device == "cuda" else torch.float32

    k, v = torch.randn(2, TOKENS, KV_HEADS, HEAD_DIM, dtype=dtype, device=device)
    q = torch.randn(Q_HEADS, HEAD_DIM, dtype=dtype, device=device)

    layer = tq.Layer(KV_HEADS, tq.KeyCodec(HEAD_DIM, bits=key_bits), tq.ValueCodec(HEAD_DIM, bits=value_bits))
    cache = tq.KvCache(layer, recent=0, device=device)
    cache.append(k, v)
    out = torch.as_tensor(cache.attend(q)).double()

    keys, values = (x.double().transpose(0, 1).repeat_interleave(Q_HEADS // KV_HEADS, dim=0) for x in (k, v))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double()[:, None], keys, values)[:, 0]
    error = (out - exact).norm() / exact.norm()
    cosine = torch.nn.functional.cosine_similarity(out, exact).mean()
    print(f"keys {layer.keys.name}, values {layer.values.name}, {TOKENS} tokens on {device}")
    print(f"attention output: relative error {error:.4f}, mean cosine {cosine:.4f}")
    print(f"{cache.bytes_used().total / 2**20:.2f} MiB, {cache.compression:.2f} times smaller than float16")


if __name__ == "__main__":
    main()
