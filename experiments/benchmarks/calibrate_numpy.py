#!/usr/bin/env python3
"""The job of `tq calibrate` as one writes it in NumPy: the yardstick for the calibration's speed.

Fits a table a layer for keys and for values on the first half of a capture's tokens, scores it against the data-free
table on the second half, and keeps the winner. Rotated 3-bit values, randomised Hadamard rotation as a dense product.

    python3 calibrate_numpy.py --capture sample.kv.h5 --out tables.npz --key-mode prod

Prints one JSON object: seconds by phase, the BLAS that NumPy used, and what the gate saw. Compare speeds with OpenBLAS
(Debian's libopenblas0-pthread): the reference BLAS that python3-numpy brings by itself is several times slower.
"""
import argparse
import json
import math
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import lru_cache

import h5py
import numpy as np

READ_TOKENS = 4096      # rows a read: whole chunks, and small enough that a long capture need not fit in memory
SPLIT_TOKENS = 128      # fit and held-out tokens meet at a multiple of this
HISTOGRAM_BINS = 8192
DENSITY_BINS = 1 << 17  # data-free table: centroids within 1e-8 of the closed form
LLOYD_TOLERANCE = 1e-10

seconds = defaultdict(float)


@contextmanager
def phase(name):
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def random_hadamard(d, rng):
    """Rows of H, columns' signs flipped and rows permuted at random, over sqrt(d): an orthogonal d x d matrix."""
    h = np.ones((1, 1), np.float32)
    while len(h) < d:
        h = np.block([[h, h], [h, -h]])
    if len(h) != d:
        raise SystemExit(f"head_dim {d} is not a power of two: this program knows only Sylvester's matrices")
    return (h * rng.choice(np.float32([-1, 1]), d))[rng.permutation(d)] / np.float32(math.sqrt(d))


def lloyd_max(mass, low, high, bits):
    """Centroids and inner boundaries for a density that is constant within each of len(mass) bins on [low, high]."""
    edges = np.linspace(low, high, len(mass) + 1)
    width = edges[1] - edges[0]
    cum_mass = np.concatenate([[0], np.cumsum(mass)])
    cum_moment = np.concatenate([[0], np.cumsum(mass * (edges[:-1] + edges[1:]) / 2)])
    levels = (np.arange(2**bits) + 0.5) / 2**bits * cum_mass[-1]
    centroids = np.interp(levels, cum_mass, edges)
    change = np.inf
    while change > LLOYD_TOLERANCE:
        boundaries = (centroids[:-1] + centroids[1:]) / 2
        i = np.clip(((boundaries - low) / width).astype(int), 0, len(mass) - 1)
        part = mass[i] / width
        upper_mass = np.concatenate([[0], cum_mass[i] + part * (boundaries - edges[i]), cum_mass[-1:]])
        upper_moment = np.concatenate(
            [[0], cum_moment[i] + part * (boundaries**2 - edges[i] ** 2) / 2, cum_moment[-1:]])
        cell_mass = np.diff(upper_mass)
        means = np.divide(np.diff(upper_moment), cell_mass, out=centroids.copy(), where=cell_mass > 0)
        change = np.abs(means - centroids).max()
        centroids = means
    return centroids, (centroids[:-1] + centroids[1:]) / 2


@lru_cache
def sphere_table(d, bits):
    """The data-free table: Lloyd-Max for one coordinate of a uniform direction in R^d."""
    y = (np.arange(DENSITY_BINS) + 0.5) / DENSITY_BINS * 2 - 1
    return lloyd_max((1 - y * y) ** ((d - 3) / 2), -1.0, 1.0, bits)


class Quantiser:
    """One table: rows in the rotated frame to their reconstruction, in the rotated frame."""

    def __init__(self, table, sketch=None):
        self.centroids, self.boundaries = (np.float32(part) for part in table)
        self.sketch, self.alpha = sketch, 0.0   # a sketch makes it `prod`: norm scale, and the residual's signs

    def nearest(self, y, n):
        return self.centroids[np.searchsorted(self.boundaries, y / np.maximum(n, 1e-30))]

    def residual_and_signs(self, y, n):
        c = self.nearest(y, n)
        residual = y - n * c
        return c, residual, np.where(residual @ self.sketch.T > 0, np.float32(1), np.float32(-1))

    def reconstruct(self, y):
        n = np.linalg.norm(y, axis=-1, keepdims=True)
        if self.sketch is None:
            c = self.nearest(y, n)
            return half(n / np.linalg.norm(c, axis=-1, keepdims=True)) * c
        c, residual, signs = self.residual_and_signs(y, n)
        length = half(np.linalg.norm(residual, axis=-1, keepdims=True))
        return half(n) * c + np.float32(self.alpha / y.shape[-1]) * length * (signs @ self.sketch)


def half(x):
    """What a scale becomes when it is stored."""
    return x.astype(np.float16).astype(np.float32)


def blocks(dataset, begin, end):
    """(slice of tokens, float32 rows [heads, tokens, d]) in reads of whole chunks."""
    for start in range(begin, end, READ_TOKENS):
        rows = slice(start, min(start + READ_TOKENS, end))
        with phase("read"):
            x = dataset[rows].astype(np.float32).transpose(1, 0, 2)
        yield rows, x


def histogram(dataset, end, rotation):
    """Counts of the normalised rotated coordinates of tokens [0, end), and the range they cover."""
    d = dataset.shape[-1]
    high = 12 / math.sqrt(d)
    counts = np.zeros(HISTOGRAM_BINS)
    for _, x in blocks(dataset, 0, end):
        with phase("histogram"):
            y = x @ rotation.T
            y /= np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-30)
            bins = ((y + high) * (HISTOGRAM_BINS / (2 * high))).astype(np.int32)
            counts += np.bincount(np.clip(bins, 0, HISTOGRAM_BINS - 1).ravel(), minlength=HISTOGRAM_BINS)
    return counts, -high, high


def fit_alpha(dataset, end, rotation, quantisers):
    """alpha* = d sum(|r| <r, g>) / sum(|r|^2 |g|^2) with g = S^T sign(S r), over tokens [0, end)."""
    sums = np.zeros((len(quantisers), 2))
    for _, x in blocks(dataset, 0, end):
        with phase("alpha"):
            y = x @ rotation.T
            n = np.linalg.norm(y, axis=-1, keepdims=True)
            for row, quantiser in zip(sums, quantisers):
                _, residual, signs = quantiser.residual_and_signs(y, n)
                g = signs @ quantiser.sketch
                length = np.linalg.norm(residual, axis=-1)
                row += (length * (residual * g).sum(-1)).sum(), (length**2 * (g * g).sum(-1)).sum()
    for quantiser, (numerator, denominator) in zip(quantisers, sums):
        quantiser.alpha = dataset.shape[-1] * numerator / denominator if denominator else 0.0


def mean_error(x, approximation):
    """Sums over vectors of relative squared error and of cosine, and how many there are."""
    square = np.maximum((x * x).sum(-1), 1e-30)
    other = np.maximum((approximation * approximation).sum(-1), 1e-30)
    error = ((x - approximation) ** 2).sum(-1) / square
    cosine = (x * approximation).sum(-1) / np.sqrt(square * other)
    return np.array([error.sum(), cosine.sum(), error.size])


def log_softmax(scores):
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def score_keys(dataset, queries, visible, scale, split, rotation, quantisers):
    """Per quantiser and part: relative MSE, cosine, KL, top-1 agreement; and the exact attention weights.

    queries: [kv_heads, rows, d], visible: [rows, tokens]. A part's KL has its own tokens quantised, the others exact.
    """
    tokens = dataset.shape[0]
    shape = (*queries.shape[:2], tokens)
    exact = np.empty(shape, np.float32)
    quantised = [np.empty(shape, np.float32) for _ in quantisers]
    errors = np.zeros((len(quantisers), 2, 3))
    with phase("keys"):
        q = queries @ rotation.T * np.float32(scale)
    for part, (begin, end) in enumerate([(0, split), (split, tokens)]):
        for rows, x in blocks(dataset, begin, end):
            with phase("keys"):
                y = x @ rotation.T
                exact[..., rows] = q @ y.transpose(0, 2, 1)
                for i, quantiser in enumerate(quantisers):
                    approximation = quantiser.reconstruct(y)
                    errors[i, part] += mean_error(y, approximation)
                    quantised[i][..., rows] = q @ approximation.transpose(0, 2, 1)
    with phase("softmax"):
        exact[:, ~visible] = -np.inf
        log_p = log_softmax(exact)
        p = np.exp(log_p)
        metrics = [[], []]
        for part, chosen in enumerate([slice(0, split), slice(split, tokens)]):
            for i, scores in enumerate(quantised):
                mixed = exact.copy()
                mixed[..., chosen] = scores[..., chosen]
                mixed[:, ~visible] = -np.inf
                log_q = log_softmax(mixed)
                difference = np.subtract(log_p, log_q, out=np.zeros_like(p), where=visible)
                kl = (p * difference).sum(-1).mean()
                top1 = (exact.argmax(-1) == mixed.argmax(-1)).mean()
                metrics[part].append([*errors[i, part, :2] / errors[i, part, 2], kl, top1])
    return np.array(metrics).transpose(1, 0, 2), p


def score_values(dataset, weights, split, rotation, quantisers):
    """Per quantiser and part: relative MSE, cosine, relative squared error of the attention output."""
    shape = (*weights.shape[:2], dataset.shape[-1])
    output = np.zeros(shape, np.float32)
    output_error = np.zeros((len(quantisers), 2, *shape), np.float32)
    errors = np.zeros((len(quantisers), 2, 3))
    for part, (begin, end) in enumerate([(0, split), (split, dataset.shape[0])]):
        for rows, x in blocks(dataset, begin, end):
            with phase("values"):
                y = x @ rotation.T
                output += weights[..., rows] @ y
                for i, quantiser in enumerate(quantisers):
                    approximation = quantiser.reconstruct(y)
                    errors[i, part] += mean_error(y, approximation)
                    output_error[i, part] += weights[..., rows] @ (y - approximation)
    relative = (output_error**2).sum(-1) / np.maximum((output**2).sum(-1), 1e-30)
    return np.concatenate([errors[..., :2] / errors[..., 2:], relative.mean((2, 3))[..., None]], -1)


def visible_tokens(file, query_rows):
    """[query rows, tokens]: same sequence, position up to the query's own."""
    position, sequence = file["tokens/position"][:], file["tokens/sequence_id"][:]
    q_position = file["tokens/q_position"][:query_rows]
    if "tokens/q_sequence_id" in file:
        q_sequence = file["tokens/q_sequence_id"][:query_rows]
    else:
        order = np.argsort(position, kind="stable")
        q_sequence = sequence[order[np.searchsorted(position[order], q_position)]]
    return (sequence == q_sequence[:, None]) & (position <= q_position[:, None])


def blas_library():
    """The BLAS that NumPy's products ran in: reference BLAS and OpenBLAS differ several times in speed."""
    with open("/proc/self/maps") as maps:
        return sorted({line.split("/")[-1].strip() for line in maps if "blas" in line and ".so" in line})


def calibrate(file, options):
    rng = np.random.default_rng(options.seed)
    kv_heads = int(file.attrs["num_kv_heads"])
    tables, frames, report = {}, {}, []
    for layer in range(int(file.attrs["num_layers"])):
        name = f"layers/{layer:03d}"
        k, v = file[f"{name}/k"], file[f"{name}/v"]
        tokens, _, d = k.shape
        split = max(tokens // 2 // SPLIT_TOKENS, 1) * SPLIT_TOKENS
        if split >= tokens:
            raise SystemExit(f"{name}: {tokens} tokens do not fill a fit and a held-out part")
        with phase("read"):
            q = file[f"{name}/q"][:].astype(np.float32)
            visible = visible_tokens(file, len(q))
        group = q.shape[1] // kv_heads      # query heads that read one KV head, as rows of one product
        queries = q.transpose(1, 0, 2).reshape(kv_heads, group * len(q), d)
        visible = np.tile(visible, (group, 1))
        if d not in frames:
            frames[d] = random_hadamard(d, rng), random_hadamard(d, rng) * np.float32(math.sqrt(d))
            tables[f"{d}/rotation"], tables[f"{d}/sketch"] = frames[d]
        rotation, sketch = frames[d] if options.key_mode == "prod" else (frames[d][0], None)
        table_bits = options.key_bits - (options.key_mode == "prod")

        key_counts = histogram(k, split, rotation)
        value_counts = histogram(v, split, rotation)
        with phase("lloyd"):
            keys = [Quantiser(sphere_table(d, table_bits), sketch), Quantiser(lloyd_max(*key_counts, table_bits), sketch)]
            values = [Quantiser(sphere_table(d, options.value_bits)),
                      Quantiser(lloyd_max(*value_counts, options.value_bits))]
        if sketch is not None:
            fit_alpha(k, split, rotation, keys)
        scale = file.attrs.get("softmax_scale", 1 / math.sqrt(d))
        key_metrics, weights = score_keys(k, queries, visible, scale, split, rotation, keys)
        value_metrics = score_values(v, weights, split, rotation, values)

        kept_key = int(key_metrics[1, 1, 2] < key_metrics[0, 1, 2])         # held-out softmax KL
        kept_value = int(value_metrics[1, 1, 2] < value_metrics[0, 1, 2])   # held-out output error
        for side, chosen in [("key", keys[kept_key]), ("value", values[kept_value])]:
            tables[f"{layer}/{side}/centroids"] = chosen.centroids
            tables[f"{layer}/{side}/boundaries"] = np.float32([-1, *chosen.boundaries, 1])
        tables[f"{layer}/key/qjl_scale"] = np.float32(keys[kept_key].alpha)
        tables[f"{layer}/key/metrics"], tables[f"{layer}/value/metrics"] = key_metrics, value_metrics
        report.append({"layer": layer, "key_tuned_kept": bool(kept_key), "value_tuned_kept": bool(kept_value),
                       "key_kl_held_out": key_metrics[:, 1, 2].tolist(),
                       "value_output_error_held_out": value_metrics[:, 1, 2].tolist()})
    return tables, report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", required=True)
    parser.add_argument("--out", required=True, help="tables and metrics of every layer, .npz")
    parser.add_argument("--key-mode", choices=["mse", "prod"], default="mse")
    parser.add_argument("--key-bits", type=int, default=3)
    parser.add_argument("--value-bits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    with h5py.File(options.capture, "r") as file:
        axis_order = file.attrs["axis_order"]
        if isinstance(axis_order, bytes):  # a string of fixed length
            axis_order = axis_order.decode()
        if axis_order != "tokens,heads,head_dim":
            raise SystemExit("this program reads axis_order tokens,heads,head_dim only")
        tables, layers = calibrate(file, options)
    with phase("write"):
        np.savez(options.out, **tables)
    seconds["total"] = time.perf_counter() - start
    print(json.dumps({"seconds": {name: round(s, 4) for name, s in seconds.items()}, "blas": blas_library(),
                      "layers": layers}, indent=1))


if __name__ == "__main__":
    main()
