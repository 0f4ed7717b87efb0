#!/usr/bin/env python3
"""Times what else does attention and rotations on a GPU, on the shapes and by the method of `tq bench`, and prints both.

    python3 peers.py --tq build/release/experiments/tq --json peers.json
    python3 peers.py --bench bench.json --json peers.json

Without --bench it runs `tq bench --only wht,attend` first. Needs PyTorch with CUDA. Peers: PyTorch's attention (flash and
cuDNN), FlashInfer and fast-hadamard-transform where they are installed, cuBLAS through torch.matmul, and a plain clone.
Every result is compared with float64 before it is timed.
"""
import argparse
import contextlib
import importlib
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# As in experiments/bench/timing.cpp, with the reasons.
WORKING_SET_OF_L2 = 4
LEAST_REPLAY_US = 2000
WARM_UPS = 5
REPLAYS = 100

ATTEND_LIMIT = 2e-3
ROWS = 1 << 20
ROTATION_DIMS = (64, 128, 256, 512)
CHECKED_ROWS = 64
PAGE_TOKENS = 64  # of FlashInfer's cache: as of ours


class Wrong(Exception):
    """A peer's result is not what float64 gives."""


def copies_of(size):
    l2 = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20)
    return max(1, math.ceil(WORKING_SET_OF_L2 * l2 / size))


def capture(stream, call, copies, rounds):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(rounds):
            for copy in copies:
                call(copy)
    return graph


def elapsed_us(start, end):
    return 1000 * start.elapsed_time(end)


def event():
    return torch.cuda.Event(enable_timing=True)


def summary(times, launches):
    times = sorted(time / launches for time in times)
    at = lambda share: times[round(share * (len(times) - 1))]
    return {"median_us": statistics.median(times), "p5_us": at(0.05), "p95_us": at(0.95), "launches": launches}


def throughput(call, copies):
    """One call of many back to back in a CUDA graph, over `copies` inputs in turn."""
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):  # the first one chooses kernels and allocates
            start, end = event(), event()
            start.record()
            for copy in range(copies):
                call(copy)
            end.record()
            end.synchronize()
        rounds = max(1, math.ceil(LEAST_REPLAY_US / elapsed_us(start, end)))
    graph = capture(stream, call, range(copies), rounds)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            graph.replay()
        marks = []
        for _ in range(REPLAYS):
            start, end = event(), event()
            start.record()
            graph.replay()
            end.record()
            marks.append((start, end))
        torch.cuda.synchronize()
    return summary([elapsed_us(*mark) for mark in marks], rounds * copies)


def latency(call, copies):
    """A graph of one call from an idle stream to its end, its inputs out of L2."""
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call(0)
        torch.cuda.synchronize()
    graphs = [capture(stream, call, [copy], 1) for copy in range(copies)]
    warm_ups, times = max(WARM_UPS, 2 * copies), []
    with torch.cuda.stream(stream):
        for i in range(warm_ups + REPLAYS):
            start, end = event(), event()
            torch.cuda.synchronize()
            start.record()
            graphs[i % copies].replay()
            end.record()
            end.synchronize()
            if i >= warm_ups:
                times.append(elapsed_us(start, end))
    return summary(times, 1)


def relative_error(actual, expected):
    error = ((actual.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()
    return error if math.isfinite(error) else math.inf


def require(error, limit):
    if not error <= limit:
        raise Wrong(f"relative error {error:.1e}, at most {limit:.0e}")
    return {"relative_error": error, "limit": limit}


# --- attention ---

class Step:
    """One decode step's inputs in so many copies; k and v: copy x batch x KV head x token x d, binary16."""

    def __init__(self, shape):
        self.shape = shape
        batch, heads, tokens, group, d = shape
        self.bytes = 2 * 2 * batch * heads * tokens * d
        self.copies = copies_of(self.bytes)
        normal = lambda *size: torch.randn(self.copies, batch, *size, dtype=torch.float16, device="cuda")
        self.k, self.v = normal(heads, tokens, d), normal(heads, tokens, d)
        self.q = normal(heads, group, d)

    def check(self, call):
        """call(copy) gives batch x KV head x group x d in any shape of that order."""
        batch, heads, _, group, d = self.shape
        worst, copy = 0.0, int(torch.randint(self.copies, ()))
        out = call(copy).reshape(batch, heads, group, d)
        for _ in range(2):
            at = copy, int(torch.randint(batch, ())), int(torch.randint(heads, ()))
            scores = self.q[at].double() @ self.k[at].double().T / math.sqrt(d)
            expected = torch.softmax(scores, dim=-1) @ self.v[at].double()
            worst = max(worst, relative_error(out[at[1], at[2]], expected))
        return require(worst, ATTEND_LIMIT)


def torch_attention(step, backend, folded):
    """`folded`: the query heads that share a KV head as positions of one head, which is the same without a mask."""
    batch, heads, _, group, d = step.shape

    def call(copy):
        q = step.q[copy] if folded else step.q[copy].reshape(batch, heads * group, 1, d)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, step.k[copy], step.v[copy], enable_gqa=not folded and group > 1)
    return call


def flashinfer_single(step, tensor_cores):
    flashinfer = importlib.import_module("flashinfer")
    batch, heads, _, group, d = step.shape
    if batch != 1:
        raise NotImplementedError("one sequence only")

    def call(copy):
        return flashinfer.single_decode_with_kv_cache(step.q[copy, 0].reshape(heads * group, d), step.k[copy, 0],
                                                      step.v[copy, 0], kv_layout="HND", use_tensor_cores=tensor_cores)
    return call


def flashinfer_batch(step, tensor_cores):
    flashinfer = importlib.import_module("flashinfer")
    batch, heads, tokens, group, d = step.shape
    pages = tokens // PAGE_TOKENS
    # copy x page x (k, v) x KV head x token x d
    paged = torch.stack([x.unflatten(3, (pages, PAGE_TOKENS)).transpose(2, 3).flatten(1, 2) for x in (step.k, step.v)], dim=2)
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=tensor_cores)
    integers = lambda values: torch.tensor(values, dtype=torch.int32, device="cuda")
    wrapper.plan(integers([pages * i for i in range(batch + 1)]), torch.arange(batch * pages, dtype=torch.int32, device="cuda"),
                 integers([PAGE_TOKENS] * batch), heads * group, heads, d, PAGE_TOKENS, q_data_type=torch.float16,
                 kv_data_type=torch.float16)

    def call(copy):
        return wrapper.run(step.q[copy].reshape(batch, heads * group, d), paged[copy])
    return call


ATTENTION_PEERS = {
    "torch flash": lambda step: torch_attention(step, SDPBackend.FLASH_ATTENTION, False),
    "torch flash, heads folded": lambda step: torch_attention(step, SDPBackend.FLASH_ATTENTION, True),
    "torch cuDNN": lambda step: torch_attention(step, SDPBackend.CUDNN_ATTENTION, False),
    "torch cuDNN, heads folded": lambda step: torch_attention(step, SDPBackend.CUDNN_ATTENTION, True),
    "FlashInfer single": lambda step: flashinfer_single(step, False),
    "FlashInfer single, tensor cores": lambda step: flashinfer_single(step, True),
    "FlashInfer batch": lambda step: flashinfer_batch(step, False),
    "FlashInfer batch, tensor cores": lambda step: flashinfer_batch(step, True),
}


# --- rotations ---

def hadamard(d):
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < d:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(d)


@contextlib.contextmanager
def precision(name):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matmul(x, precision_name):
    matrix = hadamard(x.shape[1]).to(x)

    def call(_):
        with precision(precision_name):
            return x @ matrix
    return call


def fast_hadamard(x):
    module = importlib.import_module("fast_hadamard_transform")
    return lambda _: module.hadamard_transform(x, scale=1 / math.sqrt(x.shape[1]))


# Name to (element, what makes the call, largest error).
ROTATION_PEERS = {
    "cuBLAS float32": ("f32", lambda x: matmul(x, "highest"), 1e-5),
    "cuBLAS TF32": ("f32", lambda x: matmul(x, "high"), 2e-3),
    "cuBLAS float16": ("f16", lambda x: matmul(x, "highest"), 2e-3),
    "fast-hadamard-transform float32": ("f32", fast_hadamard, 1e-5),
    "fast-hadamard-transform float16": ("f16", fast_hadamard, 2e-3),
}


def check_rotation(call, x, limit):
    rows = torch.randint(len(x), (CHECKED_ROWS,), device=x.device)
    expected = x[rows].double() @ hadamard(x.shape[1]).to(x.device)
    return require(relative_error(call(0)[rows], expected), limit)


# --- measuring ---

MODULES = {"FlashInfer": "flashinfer", "fast-hadamard-transform": "fast_hadamard_transform"}


def missing(peer):
    return any(peer.startswith(name) and importlib.util.find_spec(module) is None for name, module in MODULES.items())


def measured(row, make, check, time):
    """The row with its time, or with why there is none."""
    if missing(row["peer"]):
        return row | {"absent": "not installed"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says why each backend that is not asked for does not run
            call = make()
            return row | {"checked": check(call)} | time(call)
    except Wrong as error:
        return row | {"wrong": str(error)}
    except Exception as error:  # pylint: disable=broad-exception-caught
        return row | {"absent": (str(error).splitlines() or [type(error).__name__])[0]}


def measure_attention(shape, alone):
    step = Step(shape)
    how = latency if alone else throughput
    names = dict(zip(("batch", "kv_heads", "tokens", "group", "d"), shape))
    return [measured({"family": "attend", "peer": peer, "alone": alone, "bytes": step.bytes} | names,
                     lambda make=make: make(step), step.check, lambda call: how(call, step.copies))
            for peer, make in ATTENTION_PEERS.items()]


def measure_rotation(d):
    rows = []
    for element, dtype in (("f32", torch.float32), ("f16", torch.float16)):
        x = torch.randn(ROWS, d, dtype=dtype, device="cuda")
        copies = 1  # input and output together are several times the L2 cache
        row = {"family": "wht", "element": element, "d": d, "bytes": 2 * x.numel() * x.element_size()}
        for peer, (its_element, make, limit) in ROTATION_PEERS.items():
            if its_element == element:
                rows.append(measured(row | {"peer": peer}, lambda make=make: make(x),
                                     lambda call, limit=limit: check_rotation(call, x, limit),
                                     lambda call: throughput(call, copies)))
        rows.append(measured(row | {"peer": "clone"}, lambda: lambda _: x.clone(), lambda _: {},
                             lambda call: throughput(call, copies)))
    return rows


# --- both side by side ---

def shape_of(row):
    return tuple(row[name] for name in ("batch", "kv_heads", "tokens", "group", "d"))


def fastest(rows):
    timed = [row for row in rows if "median_us" in row and row["peer"] != "clone"]
    return min(timed, key=lambda row: row["median_us"], default=None)


def against(ours, peer):
    if ours.get("failed"):
        return "FAILED"
    return f"{ours['median_us']:.1f}" + (f" ({peer['median_us'] / ours['median_us']:.2f} x)" if peer else "")


def print_table(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
    print()


def name_of(peer):
    return [peer["peer"], f"{peer['median_us']:.1f}"] if peer else ["none runs", "-"]


def print_attention(bench, peers, alone):
    ours = [row for row in bench["rows"] if row["family"] == "attend" and "codec" in row
            and (row.get("l2") == "cold" if alone else "alone" not in row)]
    codecs = list(dict.fromkeys(row["codec"] for row in ours))
    table = []
    for shape in dict.fromkeys(map(shape_of, ours)):
        peer = fastest([row for row in peers if row["family"] == "attend" and row["alone"] == alone and shape_of(row) == shape])
        found = {row["codec"]: row for row in ours if shape_of(row) == shape}
        batch, heads, tokens, group, d = shape
        table.append([f"({batch}, {heads}, {tokens}) G {group} d {d}", *name_of(peer),
                      *(against(found[codec], peer) if codec in found else "-" for codec in codecs)])
    print("attention, one launch on its own, inputs out of L2:" if alone else "attention:")
    print_table(["microseconds (the peer's over ours)", "fastest peer", "us", *codecs], table)


def print_rotations(bench, peers):
    table = []
    for ours in (row for row in bench["rows"] if row["family"] == "wht" and row["d"] in ROTATION_DIMS):
        its = [row for row in peers if row["family"] == "wht" and (row["d"], row["element"]) == (ours["d"], ours["element"])]
        peer = fastest(its)
        clone = next(row["median_us"] for row in its if row["peer"] == "clone")
        table.append([ours["name"], *name_of(peer), f"{clone:.1f}", against(ours, peer)])
    print_table(["microseconds (the peer's over ours)", "fastest peer", "us", "clone", "tq wht"], table)


def print_absent(peers):
    reasons = {}
    for row in peers:
        reason = row.get("absent") or row.get("wrong")
        if reason:
            where = f"d {row['d']}" if row["family"] == "wht" else str(shape_of(row))
            reasons.setdefault((row["peer"], "wrong: " + reason if "wrong" in row else reason), []).append(where)
    for (peer, reason), shapes in reasons.items():
        print(f"{peer}: {reason}" if reason == "not installed" else f"{peer}: {reason} [{', '.join(dict.fromkeys(shapes))}]")


def versions():
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for name, module in MODULES.items():
        installed = importlib.util.find_spec(module) is not None
        result[name] = getattr(importlib.import_module(module), "__version__", "unknown") if installed else None
    return result


def run_tq(tq):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.json"
        process = subprocess.run([tq, "bench", "--only", "wht,attend", "--json", path], stdout=sys.stderr, check=False)
        if process.returncode not in (0, 1):  # 1: a row is FAILED, and shown so
            raise SystemExit(f"peers: tq bench ended with exit code {process.returncode}")
        return json.loads(path.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tq", type=Path, help="the program; needed without --bench")
    parser.add_argument("--bench", type=Path, help="what tq bench --json wrote on this device, instead of a run")
    parser.add_argument("--json", type=Path, help="write all rows and versions there")
    options = parser.parse_args()
    if not options.bench and not options.tq:
        parser.error("give --tq or --bench")
    if not torch.cuda.is_available():
        print("peers: PyTorch finds no GPU", file=sys.stderr)
        return 4
    bench = json.loads(options.bench.read_text()) if options.bench else run_tq(options.tq)
    device = torch.cuda.get_device_name()
    if bench["device"] != device:
        print(f"peers: {options.bench} is of {bench['device']}, and this is {device}", file=sys.stderr)
        return 3
    torch.manual_seed(bench["seed"])
    attends = [row for row in bench["rows"] if row["family"] == "attend" and "codec" in row]
    peers = []
    for alone in (False, True):
        for shape in dict.fromkeys(shape_of(row) for row in attends if row.get("alone", False) == alone):
            print(f"peers: {shape}", file=sys.stderr)
            peers += measure_attention(shape, alone)
            torch.cuda.empty_cache()
    if any(row["family"] == "wht" for row in bench["rows"]):
        for d in ROTATION_DIMS:
            print(f"peers: rotation, d {d}", file=sys.stderr)
            peers += measure_rotation(d)
            torch.cuda.empty_cache()
    print(f"{device}; {versions()}\n")
    print_attention(bench, peers, False)
    print_attention(bench, peers, True)
    print_rotations(bench, peers)
    print_absent(peers)
    if options.json:
        options.json.write_text(json.dumps({"device": device, "versions": versions(), "peers": peers, "bench": bench}, indent=2) + "\n")
    return 1 if any("wrong" in row for row in peers) or any(row.get("failed") for row in bench["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
