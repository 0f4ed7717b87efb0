#!/usr/bin/env python3
"""Times datasets/capture_hf.py's capture against the forward pass of the same model alone, and prints JSON.

    python3 experiments/benchmarks/capture_speed.py --shape llama-1b llama-8b --json capture.json
    python3 experiments/benchmarks/capture_speed.py --shape small --tokens 4096 --window 1024

Models have random weights, so nothing is downloaded. Both sides run the same sequences with a cache, the forward pass
in one piece a sequence with the model's own choice of attention; they alternate, the median of --repeats counts. A
capture's time runs from the creation of the file to its last byte on the disk; what the disk takes for as many bytes
is measured beside it, since no capture is faster. A --scratch folder in memory (/dev/shm) leaves the disk out.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "datasets"))

from hf_capture.capture import capture  # noqa: E402: after its folder has been named
from hf_capture.capture_file import CaptureFile  # noqa: E402
from hf_capture.model import DTYPES, forward, layer_shapes, new_cache  # noqa: E402
from hf_capture.plan import make_plan  # noqa: E402
from hf_capture.row_writer import STORAGE  # noqa: E402

# hidden, intermediate, layers, query heads, KV heads, head_dim
SHAPES = {"small": (256, 704, 4, 4, 2, 64), "llama-1b": (2048, 8192, 16, 32, 8, 64),
          "llama-8b": (4096, 14336, 32, 32, 8, 128)}
VOCABULARY = 32000
WRITE = 64 << 20  # bytes of one write of the disk's probe


def make_model(shape, window, dtype, device):
    hidden, intermediate, layers, q_heads, kv_heads, head_dim = SHAPES[shape]
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=intermediate,
                                      num_hidden_layers=layers, num_attention_heads=q_heads, head_dim=head_dim,
                                      num_key_value_heads=kv_heads, max_position_embeddings=window)
    torch.set_default_dtype(DTYPES[dtype])
    with torch.device(device):
        model = transformers.LlamaModel(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def finish(device):
    if device == "cuda":
        torch.cuda.synchronize()


def time_forward(model, sequences, device):
    start = time.perf_counter()
    with torch.inference_mode():
        for ids in sequences:
            forward(model, torch.from_numpy(ids).to(device), new_cache(model))
    finish(device)
    return time.perf_counter() - start


def time_capture(model, sequences, plan, chunk, path):
    start = time.perf_counter()
    file = CaptureFile(path, plan)
    capture(model, sequences, plan, file, chunk)
    file.finish()
    file.close()
    seconds = time.perf_counter() - start
    os.remove(path)
    return seconds


def time_disk(size, path):
    block = np.random.default_rng(0).bytes(min(WRITE, size))
    start = time.perf_counter()
    with open(path, "wb") as file:
        for begin in range(0, size, WRITE):
            file.write(block[:min(WRITE, size - begin)])
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    os.remove(path)
    return seconds


def spread(samples):
    return {"median_s": round(statistics.median(samples), 4), "min_s": round(min(samples), 4),
            "max_s": round(max(samples), 4)}


def measure(shape, given):
    model = make_model(shape, given.window, given.dtype, given.device)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, given.tokens)
    sequences = [ids[begin:begin + given.window] for begin in range(0, given.tokens, given.window)]
    layers = layer_shapes(model)
    plan = make_plan(layers, [None] * len(layers), sequences, given.query_every, given.storage,
                     {"model": shape, "key_basis": "post_rope"}, [])
    path = os.path.join(given.scratch, f"capture_speed_{os.getpid()}.kv.h5")
    time_forward(model, sequences[:1], given.device)  # the first pass chooses kernels
    forwards, captures, disks = [], [], []
    for _ in range(given.repeats):
        forwards.append(time_forward(model, sequences, given.device))
        captures.append(time_capture(model, sequences, plan, given.chunk or given.window, path))
        disks.append(time_disk(plan.bytes, path))
    alone, captured, disk = (statistics.median(samples) for samples in (forwards, captures, disks))
    return {"shape": shape, "bytes": plan.bytes, "bytes_per_token": plan.bytes // given.tokens,
            "forward": spread(forwards), "forward_tokens_per_s": round(given.tokens / alone),
            "capture": spread(captures), "capture_tokens_per_s": round(given.tokens / captured),
            "capture_gb_per_s": round(plan.bytes / captured / 1e9, 3),
            "disk": spread(disks), "disk_gb_per_s": round(plan.bytes / disk / 1e9, 3),
            "capture_of_forward_speed": round(alone / captured, 3)}


def main():
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=tuple(SHAPES), default=["llama-8b" if cuda else "small"])
    parser.add_argument("--tokens", type=int, default=65536 if cuda else 4096)
    parser.add_argument("--window", type=int, default=4096 if cuda else 1024, help="tokens of a sequence")
    parser.add_argument("--chunk", type=int, help="tokens of a forward pass of the capture (default: a window)")
    parser.add_argument("--query-every", type=int, default=16)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16" if cuda else "float32")
    parser.add_argument("--storage", choices=tuple(STORAGE), default="float16")
    parser.add_argument("--device", default="cuda" if cuda else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder of captures (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    setting = {name: value for name, value in vars(given).items() if name not in ("json", "scratch", "shape")}
    report = {"device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu", "torch": torch.__version__,
              "transformers": transformers.__version__, "setting": setting,
              "results": [measure(shape, given) for shape in given.shape]}
    text = json.dumps(report, indent=2)
    print(text)
    if given.json:
        pathlib.Path(given.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
