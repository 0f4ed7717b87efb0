"""Sweeps: what is planned, what is measured, and that no kill, job count or full disk changes a byte of it.

usage: test_sweep.py TQ_BINARY SAMPLE_CAPTURE CONFIG_FOLDER KILLS [SEED]
"""

import collections
import fcntl
import hashlib
import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

from model_folder import random_llama
from tq_program import TIMEOUT, Program, write_random_capture

TQ, SAMPLE, CONFIGS, KILLS = Program(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
SEED = int(sys.argv[5]) if len(sys.argv) > 5 else random.randrange(10**9)
del sys.argv[1:]

# Some forty small configurations of a few milliseconds each.
SMALL = """[sweep]
source = gaussian, laplace
d = 64
rows = 1500
queries = 24
key-mode = mse, prod
key-bits = 2, 3
alpha = mse
value-mode = rotated, group
value-bits = 2, 4
group-size = 16, 32
"""
SMALL_COUNT = 2 * (2 * 2 * 2 + 2 * 2 * 2 * 2)

# Baselines and the bytes of a vector.
BASELINES = {"fp16": lambda d: 2 * d, "fp8": lambda d: d + 2, "minmax8": lambda d: d + 4,
             "minmax4": lambda d: d // 2 + 4, "q8_0": lambda d: 34 * d // 32, "q4_0": lambda d: 18 * d // 32}


def baseline_reference(name, x):
    """What storing leaves of the rows of x, in float64; scales are not rounded."""
    if name == "fp16":
        return x.astype(np.float16).astype(np.float64)
    if name == "fp8":
        numbers = np.array([m * 2.0 ** -9 if e == 0 else (8 + m) * 2.0 ** (e - 10)
                            for e in range(16) for m in range(8)][:-1])
        scale = np.abs(x).max(1, keepdims=True) / 448
        return np.copysign(numbers[np.searchsorted((numbers[1:] + numbers[:-1]) / 2, np.abs(x) / scale)], x) * scale
    if name.startswith("minmax"):
        low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
        scale = (high - low) / (2 ** int(name[-1]) - 1)
        return low + np.rint((x - low) / scale) * scale
    blocks = x.reshape(-1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = np.abs(largest) / 127 if name == "q8_0" else largest / -8
    codes = np.rint(blocks / scale)
    return (np.minimum(codes, 127 if name == "q8_0" else 7) * scale).reshape(x.shape)


def trellis_levels(bits):
    """The value of each window of 12 bits."""
    symbols, states = 2 ** bits, 2 ** (12 - bits)
    factor = int(2 ** (12 - bits) / ((1 + 5 ** 0.5) / 2)) | 1
    normal = statistics.NormalDist(0, (1 - 4.0 ** -bits) ** 0.5)
    levels = []
    for window in range(4096):
        state, oldest = window // symbols, window // states
        cell, place = (window + 2 * state + oldest) % symbols, state * factor % states
        levels.append(normal.inv_cdf((cell * states + place + 0.5) / 4096))
    return np.array(levels)


def trellis_path(x, levels, bits, state=None):
    """Windows of the nearest paths to the rows of x: free ones, or from a row's `state` back to it."""
    rows, states = np.arange(len(x)), 4096 >> bits
    before = np.arange(4096) >> bits
    costs = np.zeros((len(x), states))
    if state is not None:
        costs[:] = np.inf
        costs[rows, state] = 0
    choices = []
    for column in x.T:
        edges = (costs[:, before] + (column[:, None] - levels) ** 2).reshape(len(x), 2 ** bits, states)
        choices.append(edges.argmin(1))
        costs = edges.min(1)
    state = costs.argmin(1) if state is None else state
    windows = []
    for choice in reversed(choices):
        windows.append(choice[rows, state] * states + state)
        state = windows[-1] >> bits
    return np.array(windows[::-1]).T


def trellis_reference(x, bits):
    """What least-squares scales make of trellis codes of the rows of x, in float64; 64 coordinates or more."""
    levels = trellis_levels(bits)
    y = x * (x.shape[1] / np.sum(x ** 2, 1, keepdims=True)) ** 0.5
    seam = trellis_path(np.hstack([y[:, -64:], y[:, :64]]), levels, bits)[:, 64] >> bits
    symbols = trellis_path(y, levels, bits, seam) % 2 ** bits
    # Decoded from the symbols alone: a window is 12 bits of their ring.
    windows = sum(np.roll(symbols, age, 1) << bits * age for age in range(-(-12 // bits))) % 4096
    c = levels[windows]
    return c * (np.sum(x * c, 1) / np.sum(c * c, 1))[:, None]


class SweepTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-sweep-")
        self.out = self.path("out")

    def tearDown(self):
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, text, name="sweep.ini"):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def results(self, out=None):
        with open(os.path.join(out or self.out, "results.jsonl"), "rb") as file:
            return file.read()

    def lines(self, out=None):
        return [json.loads(line) for line in self.results(out).splitlines()]

    def arguments(self, text, *more, out=None):
        return ["sweep", "--config", self.write(text), "--out", out or self.out, *more]

    def sweep(self, text, *more, **options):
        return TQ.succeed(*self.arguments(text, *more, **options))

    def plan(self, text, *more):
        """The configurations of a dry run."""
        out = TQ.succeed("sweep", "--config", self.write(text), "--dry-run", "--json", *more).out
        return [json.loads(line) for line in out.splitlines()]

    def configurations(self, text, *more):
        return [entry["configuration"] for entry in self.plan(text, *more)]

    def assert_refused(self, code, arguments, *words):
        with self.subTest(arguments=arguments):
            result = TQ.run(*arguments)
            self.assertEqual(result.code, code, result.err)
            self.assertEqual(result.out, "")
            self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
            for word in words:
                self.assertIn(word, result.err)


class Plan(SweepTest):
    def test_product(self):
        found = self.configurations("[sweep]\nkey-bits = 2,3,4\nvalue-bits=3, 4\nseed=0,1\n")
        self.assertEqual([(c["seed"], c["key-bits"], c["value-bits"]) for c in found],
                         [(s, k, v) for s in (0, 1) for k in (2, 3, 4) for v in (3, 4)])
        self.assertEqual(found[0], {"source": "gaussian", "d": 128, "rows": 4096, "queries": 256, "seed": 0,
                                    "backend": "host", "rotation": "rht", "key-mode": "mse", "key-bits": 2,
                                    "value-mode": "rotated", "value-bits": 3, "scale": "nc"})
        self.assertEqual(len(self.configurations("[sweep]\n")), 1)
        self.assertEqual(len(self.configurations(SMALL)), SMALL_COUNT)

    def test_axes_that_make_no_difference(self):
        def names(text):
            found = self.configurations("[sweep]\n" + text)
            self.assertEqual(len(found), 1, text)
            return set(found[0])

        every = {"source", "d", "rows", "queries", "seed", "backend", "rotation", "key-mode", "key-bits", "sketch",
                 "alpha", "value-mode", "value-bits", "group-size", "scale"}
        lists = "sketch=gaussian,orthogonal\nalpha=mse,unbiased\n"
        self.assertEqual(names("key-mode=mse\nvalue-mode=rotated\ngroup-size=16,32\n" + lists),
                         every - {"sketch", "alpha", "group-size"})
        self.assertEqual(names("key-mode=prod\nvalue-mode=group\nscale=nc,norm,ls\n"), every - {"scale"})
        self.assertEqual(names("key-mode=none\nvalue-mode=group\nkey-bits=2,3\nrotation=qr,rht\nscale=nc,ls\n" + lists),
                         every - {"rotation", "key-bits", "sketch", "alpha", "scale"})
        self.assertEqual(names("key-mode=prod\nvalue-mode=none\nvalue-bits=2,3\ngroup-size=16,32\n"),
                         every - {"value-bits", "group-size", "scale"})
        self.assertEqual(names("source=sample\nd=64,128\nrows=1,2\nqueries=1,2\n"),
                         every - {"d", "rows", "queries", "sketch", "alpha", "group-size"})
        self.assertEqual(names("source=sample\nkey-mode=none\nvalue-mode=group\nseed=0,1\n"),
                         {"source", "backend", "key-mode", "value-mode", "value-bits", "group-size"})
        # One value written twice, or in two ways; one capture by two names.
        self.assertEqual(names("key-bits=3, 03,3\n"), names(""))
        self.assertEqual(len(self.configurations(f"[sweep]\nsource = sample, capture:{SAMPLE}\n")), 1)

    def test_exclude(self):
        text = "[sweep]\nkey-mode=mse,prod\nkey-bits=1,2,3\nvalue-bits=2,3\n"
        both = "exclude = key-mode=prod & key-bits=1,2\nexclude=key-mode=mse&value-bits=2\n"
        found = [(c["key-mode"], c["key-bits"], c["value-bits"]) for c in self.configurations(text + both)]
        self.assertEqual(found, [("mse", 1, 3), ("mse", 2, 3), ("mse", 3, 3), ("prod", 3, 2), ("prod", 3, 3)])
        # Against effective values: rotated values have no group size, so nothing is excluded twice over.
        found = self.configurations("[sweep]\nvalue-mode=rotated,group\ngroup-size=16,32\nexclude=group-size=16\n")
        self.assertEqual([c.get("group-size") for c in found], [None, 32])
        counts = TQ.succeed("sweep", "--config", self.write(text + both), "--dry-run").out.splitlines()[-1]
        self.assertEqual(counts, "5 configurations, 0 of them done; of the product, 7 points are excluded and "
                                 "0 repeat another")

    def test_set_wins_over_the_file(self):
        text = "[sweep]\nkey-bits=2,3\n"
        for more in (["--set", "key-bits=4,5"], ["--key-bits", "2", "--set", "key-bits=4,5"]):
            self.assertEqual([c["key-bits"] for c in self.configurations(text, *more)], [4, 5])
        found = self.configurations(text, "--set", "key-bits=4", "--set", "seed=7")
        self.assertEqual([(c["key-bits"], c["seed"]) for c in found], [(4, 7)])

    def test_keys_name_what_is_measured(self):
        copy = shutil.copy(SAMPLE, self.path("copy.kv.h5"))
        other = write_random_capture(self.path("other.kv.h5"))
        keys = [self.plan("[sweep]\n", "--set", f"source={source}")[0]["key"]
                for source in ("sample", f"capture:{SAMPLE}", f"capture:{copy}", f"capture:{other}", "gaussian")]
        self.assertEqual(len(set(keys[:3])), 1)
        self.assertEqual(len(set(keys)), 3)
        entry = self.plan("[sweep]\nkey-mode=prod\nalpha=mse\n")[0]
        canonical = json.dumps({**entry["configuration"], "result_format": 2}, sort_keys=True, separators=(",", ":"))
        self.assertEqual(entry["key"], hashlib.sha256(canonical.encode()).hexdigest())

    def test_dry_run_changes_nothing(self):
        self.sweep(SMALL, "--set", "source=laplace")
        with open(os.path.join(self.out, "results.jsonl"), "ab") as file:
            file.write(b'{"key":"cut')
        before = self.results()
        out = TQ.succeed(*self.arguments(SMALL, "--dry-run")).out.splitlines()
        self.assertEqual(len(out), SMALL_COUNT + 1)
        self.assertEqual(sum(" done " in line for line in out[:-1]), SMALL_COUNT // 2)
        self.assertIn(f"{SMALL_COUNT} configurations, {SMALL_COUNT // 2} of them done", out[-1])
        self.assertEqual(self.results(), before)
        self.assertEqual(len(os.listdir(self.out)), 3)
        self.assertFalse(os.path.exists(self.path("nowhere")))
        TQ.succeed(*self.arguments(SMALL, "--dry-run", out=self.path("nowhere")))
        self.assertFalse(os.path.exists(self.path("nowhere")))

    def test_bad_axes_and_rules(self):
        for text, words in (("kye-bits=3", ["'kye-bits'", "'key-bits'"]), ("groupsize=32", ["'groupsize'", "'group-size'"]),
                            ("key-bits=three", ["key-bits", "'three'"]), ("key-bits=9", ["key-bits", "'9'"]),
                            ("key-bits=", ["key-bits"]), ("key-bits=3,,4", ["key-bits"]), ("seed=-1", ["seed"]),
                            ("key-mode=max", ["key-mode", "prod", "none", "q8_0"]),
                            ("value-mode=fp32", ["value-mode", "group", "none", "fp16", "q4_0"]), ("source=normal", ["source", "gaussian", "sample"]),
                            ("source=capture:", ["source"]), ("backend=tpu", ["backend", "host"]),
                            ("rows=0", ["rows"]), ("d=0", ["d '0'"]),
                            ("exclude=key-bits", ["exclude", "axis=value"]), ("exclude=bits=3", ["'bits'"]),
                            ("exclude=key-bits=x", ["'x'"]), ("exclude=key-bits=3 &", ["axis=value"]),
                            ("exclude=key-bits=3", ["no configuration"])):
            self.assert_refused(2, self.arguments(f"[sweep]\n{text}\n"), *words)
        for more, words in ((["--set", "kye-bits=3"], ["'kye-bits'", "'key-bits'"]), (["--set", "key-bits"], ["--set"]),
                            (["--jobs", "0"], ["--jobs"]), (["--jobs", "many"], ["--jobs"])):
            self.assert_refused(2, self.arguments("[sweep]\n", *more), *words)
        self.assert_refused(2, ["sweep", "--config", self.write("[sweep]\n")], "--out", "missing")
        self.assert_refused(3, self.arguments("[sweep]\n", "--set", f"source=capture:{self.path('no.kv.h5')}"), "no.kv.h5")
        self.assertFalse(os.path.exists(self.out))

    def test_impossible_combinations(self):
        for text, words, rule in (
                ("key-mode=mse,prod\nkey-bits=1,2", ["prod keys take 2 to 8"], "key-mode=prod & key-bits=1"),
                ("value-mode=group\ngroup-size=24", ["group size 24", "128"], "group-size=24"),
                ("value-mode=group\nvalue-bits=2,5", ["2, 3, 4 or 8"], "value-bits=5"),
                ("d=104\n", ["Hadamard"], "d=104 & rotation=rht"),
                ("d=104\nrotation=qr\nkey-mode=prod", ["Hadamard"], "d=104 & sketch=orthogonal"),
                ("d=512\nrows=1000000", ["memory"], "d=512 & rows=1000000"),
                ("key-mode=prod\nalpha=score\nqueries=0", ["queries"], "queries=0 & alpha=score"),
                ("source=sample\nvalue-mode=group\ngroup-size=48", ["group size 48"], "source=sample"),
                ("d=80\nrotation=qr\nkey-mode=fp8,q8_0", ["q8_0", "32", "80"], "d=80 & key-mode=q8_0"),
                ("d=80\nrotation=qr\nvalue-mode=q4_0,rotated", ["q4_0", "32", "80"], "d=80 & value-mode=q4_0"),
                ("backend=cuda\nkey-mode=fp16", ["no kernels", "fp16"], "backend=cuda & key-mode=fp16"),
                ("backend=cuda\nvalue-mode=q8_0", ["no kernels", "q8_0"], "backend=cuda & value-mode=q8_0"),
                ("measure=fused\nkey-mode=fp8", ["takes no", "fp8"], "measure=fused & key-mode=fp8"),
                ("key-mode=trellis\nkey-bits=3,5", ["trellis takes 1, 2, 3, 4"], "key-mode=trellis & key-bits=5"),
                ("d=104\nkey-mode=none\nvalue-mode=trellis", ["Hadamard"], "d=104 & rotation=rht"),
                ("backend=cuda\nvalue-mode=trellis", ["no kernels", "trellis"], "backend=cuda & value-mode=trellis"),
                ("measure=fused\nvalue-mode=trellis", ["takes no", "trellis"], "measure=fused & value-mode=trellis"),
                ("key-mode=mse,none\nvalue-mode=none,group", ["nothing"], "key-mode=none & value-mode=none")):
            text = f"[sweep]\n{text}\n"
            self.assert_refused(2, self.arguments(text), *words, "exclude = ", rule)
            self.assertFalse(os.path.exists(self.out))
            # What the message says is what helps.
            excluded = re.search("exclude = (.*)", TQ.run(*self.arguments(text)).err)[1]
            result = TQ.run(*self.arguments(f"{text}exclude = {excluded}\n", "--dry-run"))
            self.assertTrue(result.code == 0 or "no configuration" in result.err, result.err)


class Results(SweepTest):
    def test_line_table_and_manifest(self):
        text = "[sweep]\nsource=sample\nkey-mode=mse,prod\nvalue-mode=group\nseed=0,1,2\n"
        table = self.sweep(text).out
        lines = self.lines()
        self.assertEqual(len(lines), 6)
        first = lines[0]
        self.assertEqual(list(first), ["key", "configuration", "capture_sha256", "bytes_per_token",
                                       "padded_bytes_per_token", "fp16_bytes_per_token", "compression",
                                       "padded_compression", "rotation_bytes", "metrics", "layers"])
        self.assertEqual(list(first["metrics"]),
                         ["key_relative_mse", "key_cosine", "inner_product_bias", "inner_product_variance",
                          "inner_product_error", "softmax_kl", "top1_agreement", "value_relative_mse", "value_cosine",
                          "output_error"])
        for metric in first["metrics"].values():
            self.assertEqual(list(metric), ["mean", "half_width"])
            self.assertGreater(metric["half_width"], 0)
        self.assertEqual([layer["layer"] for layer in first["layers"]], [0, 1, 2, 3])
        # What tq eval says of the same codec.
        report = TQ.json("eval", "--capture", SAMPLE, "--value-mode", "group")
        for name, value in report["overall"].items():
            self.assertEqual(first["metrics"][name]["mean"] if name in first["metrics"] else first[name], value, name)
        for ours, theirs in zip(first["layers"], report["layers"]):
            for name, metric in ours["metrics"].items():
                if name in theirs:
                    self.assertEqual(metric["mean"], theirs[name])
        metrics = first["layers"][2]["metrics"]
        self.assertAlmostEqual(metrics["inner_product_variance"]["mean"],
                               metrics["inner_product_error"]["mean"] ** 2 - metrics["inner_product_bias"]["mean"] ** 2)

        # One row a codec, seeds averaged.
        rows = table.splitlines()
        self.assertEqual(rows[0], "+-: half of the 95 % interval, over seeds (Student's t)")
        self.assertEqual([row.split()[0] for row in rows[5:]], ["mse", "prod"])
        kls = [line["metrics"]["softmax_kl"]["mean"] for line in lines if line["configuration"]["key-mode"] == "mse"]
        self.assertEqual(len(kls), 3)
        half = 4.302653 * statistics.stdev(kls) / 3 ** 0.5
        self.assertEqual(re.split(r"  +", rows[3])[:2], ["key-mode", "key MSE"])  # no other axis has two values
        cell = dict(zip(re.split(r"  +", rows[3]), re.split(r"  +", rows[5])))["softmax KL"]
        cells = re.fullmatch(r"(\S+) \+- (\S+)", cell)
        self.assertAlmostEqual(float(cells[1]), statistics.mean(kls), delta=half / 10)
        self.assertAlmostEqual(float(cells[2]), half, delta=half / 10)

        with open(os.path.join(self.out, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        run = manifest["runs"][0]
        self.assertEqual(manifest["format"], "turboquant-sweep")
        self.assertEqual((run["seeds"], run["measured"], run["configurations"]), ([0, 1, 2], 6, 6))
        with open(SAMPLE, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        self.assertEqual((run["inputs"][0]["sha256"], first["capture_sha256"]), (digest, digest))
        for name in ("command_line", "tool_version", "git_revision", "build_type", "cpu", "simd_target", "libraries",
                     "utc_start", "utc_end"):
            self.assertTrue(run[name], name)
        self.assertGreater(run["wall_seconds"], 0)
        with open(os.path.join(self.out, "timings.jsonl"), encoding="utf-8") as file:
            timings = [json.loads(line) for line in file]
        self.assertEqual([timing["key"] for timing in timings], [line["key"] for line in lines])
        self.assertEqual([lines[i].get("alpha") for i in (0, 1)], [None, (np.pi / 2) ** 0.5])
        self.assertEqual(sorted(os.listdir(self.out)), ["manifest.json", "results.jsonl", "timings.jsonl"])

    def test_json_prints_the_lines(self):
        out = self.sweep(SMALL, "--json").out
        self.assertEqual(out.encode(), self.results())
        # Also of what an earlier run has measured, in the order of this configuration.
        out = self.sweep(SMALL, "--json", "--resume", "--set", "key-bits=3").out
        self.assertEqual([json.loads(line) for line in out.splitlines()],
                         [line for line in self.lines() if line["configuration"]["key-bits"] == 3])

    def test_bytes(self):
        self.sweep("[sweep]\nrows=64\nqueries=0\nkey-mode=prod\nvalue-mode=group,none\nvalue-bits=2,3,4\n")
        found = [(line["bytes_per_token"], line["padded_bytes_per_token"], line["fp16_bytes_per_token"])
                 for line in self.lines()]
        self.assertEqual(found, [(100, 132, 512), (116, 148, 512), (132, 164, 512), (52, 84, 256)])
        self.assertAlmostEqual(self.lines()[0]["padded_compression"], 3.88, delta=0.005)

    def test_seed_table_of_values(self):
        TQ.succeed("sweep", "--config", os.path.join(CONFIGS, "values.ini"), "--out", self.out, "--set",
                   "source=gaussian")
        expected = {(2, 32): 0.9329, (2, 16): 0.9522, (2, 8): 0.9714, (3, 32): 0.9864, (3, 16): 0.9905,
                    (4, 32): 0.9970, (4, 16): 0.9979}
        seeds = collections.Counter()
        for line in self.lines():
            row = line["configuration"]
            if row["value-mode"] != "group":
                continue  # test_baselines_of_values
            group = row["value-bits"], row["group-size"]
            seeds[row["d"], group] += 1
            cosine = line["metrics"]["value_cosine"]
            self.assertEqual(row["rows"], 20000)
            self.assertLess(abs(cosine["mean"] - expected[group]), 0.0005, line)
            self.assertLess(cosine["half_width"], 0.0005)
            self.assertEqual(line["bytes_per_token"], row["d"] * group[0] // 8 + 4 * row["d"] // group[1])
        # Three seeds, and equalised to no use.
        self.assertEqual(seeds, {(d, group): 6 for d in (128, 256) for group in expected})

    def lines_by_modes(self):
        return {(line["configuration"]["key-mode"], line["configuration"]["value-mode"]): line for line in self.lines()}

    def test_baselines_of_values(self):
        TQ.succeed("sweep", "--config", os.path.join(CONFIGS, "values.ini"), "--out", self.out,
                   "--set", f"value-mode={','.join(BASELINES)}", "--set", "source=gaussian")
        self.assertEqual(collections.Counter((line["configuration"]["d"], line["configuration"]["value-mode"])
                                             for line in self.lines()),
                         {(d, name): 3 for d in (128, 256) for name in BASELINES})
        for line in self.lines():
            row = line["configuration"]
            self.assertEqual(set(row), {"source", "d", "rows", "queries", "seed", "backend", "key-mode", "value-mode"})
            name, d = row["value-mode"], row["d"]
            self.assertEqual(line["bytes_per_token"], BASELINES[name](d))
            self.assertEqual(line["padded_bytes_per_token"], BASELINES[name](d))
            # Vectors of another generator: the same within a few percent.
            x = np.random.default_rng(SEED).standard_normal((4000, d))
            expected = np.mean(np.sum((x - baseline_reference(name, x)) ** 2, 1) / np.sum(x ** 2, 1))
            measured = line["metrics"]["value_relative_mse"]["mean"]
            print(f"{name:7} d={d} relative MSE {measured:.4e}, reference {expected:.4e}")
            self.assertLess(abs(measured / expected - 1), 0.03, line)

    def test_baselines_of_a_capture(self):
        modes = ",".join(BASELINES)
        table = self.sweep("[sweep]\nsource=sample\nkey-bits=2,3\nsketch=gaussian,orthogonal\nseed=0,1\n"
                           f"key-mode={modes}\nvalue-mode={modes}\nvalue-bits=2,3\ngroup-size=16,32\n").out
        lines = self.lines_by_modes()
        self.assertEqual(len(self.lines()), len(BASELINES) ** 2)
        heads = lines["fp16", "fp16"]["fp16_bytes_per_token"] // 512
        for (key, value), line in lines.items():
            self.assertEqual(set(line["configuration"]), {"source", "backend", "key-mode", "value-mode"})
            size = heads * (BASELINES[key](128) + BASELINES[value](128))
            self.assertEqual((line["bytes_per_token"], line["padded_bytes_per_token"]), (size, size))
            self.assertEqual(line["fp16_bytes_per_token"], heads * 512)
            self.assertEqual(line["metrics"]["key_cosine"], lines[key, "fp16"]["metrics"]["key_cosine"])
        self.assertEqual(lines["fp16", "fp16"]["compression"], 1)
        kl = {name: lines[name, "fp16"]["metrics"]["softmax_kl"]["mean"] for name in BASELINES}
        print("softmax KL", kl)
        self.assertLess(kl["fp16"], 1e-5)
        self.assertLess(max(kl["q8_0"], kl["minmax8"]), kl["fp8"])
        self.assertLess(kl["fp8"], kl["q4_0"])
        self.assertLess(kl["q4_0"], kl["minmax4"])
        for name in BASELINES:
            self.assertRegex(table, rf"(?m)^{name} ")

    def test_a_baseline_beside_a_codec(self):
        self.sweep("[sweep]\nrows=512\nqueries=16\nkey-mode=prod,fp8\nvalue-mode=group,q4_0\n")
        found = self.lines_by_modes()
        self.assertEqual({modes: line["bytes_per_token"] for modes, line in found.items()},
                         {("prod", "group"): 52 + 64, ("prod", "q4_0"): 52 + 72,
                          ("fp8", "group"): 130 + 64, ("fp8", "q4_0"): 130 + 72})
        padding = {modes: line["padded_bytes_per_token"] - line["bytes_per_token"] for modes, line in found.items()}
        self.assertEqual(padding,
                         {("prod", "group"): 32, ("prod", "q4_0"): 32, ("fp8", "group"): 0, ("fp8", "q4_0"): 0})
        for side, metric in ((0, "key_cosine"), (1, "value_cosine")):
            by_mode = collections.defaultdict(set)
            for modes, line in found.items():
                by_mode[modes[side]].add(line["metrics"][metric]["mean"])
            self.assertEqual([len(means) for means in by_mode.values()], [1, 1])

    def test_trellis_against_numpy(self):
        self.sweep("[sweep]\nrows=2000\nqueries=0\nkey-mode=none\nvalue-mode=trellis\nvalue-bits=2,3\nscale=ls\n")
        self.assertEqual(len(self.lines()), 2)
        for line in self.lines():
            bits = line["configuration"]["value-bits"]
            self.assertEqual((line["bytes_per_token"], line["padded_bytes_per_token"]), (16 * bits + 2,) * 2)
            x = np.random.default_rng(SEED).standard_normal((80, 128))
            expected = np.mean(np.sum((x - trellis_reference(x, bits)) ** 2, 1) / np.sum(x ** 2, 1))
            measured = line["metrics"]["value_relative_mse"]["mean"]
            print(f"trellis {bits} bits: relative MSE {measured:.5f}, reference {expected:.5f}")
            self.assertLess(abs(measured / expected - 1), 0.04, line)  # five standard errors of 80 vectors

    def test_trellis_beside_other_modes(self):
        self.assertEqual(self.configurations("[sweep]\nsource=sample\nkey-mode=trellis\nkey-bits=2\nvalue-mode=fp8\n"),
                         [{"source": "sample", "seed": 0, "backend": "host", "rotation": "rht", "key-mode": "trellis",
                           "key-bits": 2, "value-mode": "fp8", "scale": "nc"}])
        self.sweep("[sweep]\nrows=256\nqueries=8\nrotation=qr,rht\nkey-mode=trellis,prod\nkey-bits=2\n"
                   "value-mode=trellis,q4_0\nscale=nc,ls\n")
        sizes = {"trellis": (34, 50), "prod": (36, 0), "q4_0": (0, 72)}
        found = collections.Counter()
        for line in self.lines():
            row = line["configuration"]
            key, value = row["key-mode"], row["value-mode"]
            found[key, value] += 1
            self.assertEqual(line["bytes_per_token"], sizes[key][0] + sizes[value][1])
            self.assertEqual(line["padded_bytes_per_token"] - line["bytes_per_token"], 48 if key == "prod" else 0)
            self.assertEqual("scale" in row, (key, value) != ("prod", "q4_0"))
            self.assertEqual("value-bits" in row, value == "trellis")
        self.assertEqual(found, {("trellis", "trellis"): 4, ("trellis", "q4_0"): 4, ("prod", "trellis"): 4,
                                 ("prod", "q4_0"): 2})
        # Each of two rotations and two scale rules is its own, whatever the values are.
        keys = collections.Counter(json.dumps([line["metrics"][name] for name in ("key_cosine", "key_relative_mse")])
                                   for line in self.lines() if line["configuration"]["key-mode"] == "trellis")
        self.assertEqual(list(keys.values()), [2] * 4)

    def test_every_ready_configuration_can_be_planned(self):
        for name in sorted(name for name in os.listdir(CONFIGS) if name.endswith(".ini")):
            inputs = []
            if name == "perplexity.ini":
                text = self.path("text")
                with open(text, "wb") as file:
                    file.write(bytes(1024))
                inputs = ["--set", f"model={random_llama(self.path('model'), positions=1024)}", "--set", f"text={text}"]
            out = TQ.succeed("sweep", "--config", os.path.join(CONFIGS, name), "--dry-run", *inputs).out
            self.assertNotIn("\n0 configurations", out)
            modes = {mode for mode in BASELINES for line in out.splitlines() if f"value-mode={mode}" in line.split()}
            self.assertEqual(modes, set(BASELINES) if name in ("values.ini", "capture.ini", "frontier.ini") else
                              {"fp16"} if name == "capacity.ini" else
                              {"fp16", "fp8", "q8_0", "q4_0", "minmax4"} if name in ("perplexity.ini", "proxies.ini") else set())
        out = TQ.succeed("sweep", "--config", os.path.join(CONFIGS, "trellis.ini"), "--dry-run").out
        self.assertEqual(sum("key-mode=trellis key-bits=3 value-mode=trellis value-bits=3" in line
                             for line in out.splitlines()), 2 * 2 * 3)

    def test_keys_are_those_of_the_recorded_results(self):
        # A key that changes measures again what is recorded: then kResultFormat moves, and the results with it.
        results = os.path.join(CONFIGS, "..", "results")
        for name in ("alpha", "capacity", "capture", "frontier", "rotation", "trellis", "values"):
            with self.subTest(name):
                planned = TQ.succeed("sweep", "--config", os.path.join(CONFIGS, f"{name}.ini"), "--dry-run", "--json").out
                with open(os.path.join(results, name, "results.jsonl"), encoding="utf-8") as recorded:
                    self.assertEqual([json.loads(line)["key"] for line in planned.splitlines()],
                                     [json.loads(line)["key"] for line in recorded])

    def test_half_widths_are_what_seeds_vary_by(self):
        seeds = 48
        self.sweep(f"[sweep]\nrows=2048\nqueries=192\nkey-bits=2\nvalue-bits=2\nd=64\nrotation=qr\n"
                   f"seed={','.join(map(str, range(seeds)))}\n")
        lines = self.lines()
        for name in lines[0]["metrics"]:
            with self.subTest(name):
                spread = statistics.stdev(line["metrics"][name]["mean"] for line in lines)
                claimed = statistics.mean(line["metrics"][name]["half_width"] for line in lines) / 1.96
                print(f"{name:24} seeds vary by {spread:.2e}, standard error {claimed:.2e}")
                # All queries meet the same values, and what is wrong with those they have in common.
                self.assertLess(abs(spread / claimed - 1), 0.6 if name != "output_error" else 4)

    def test_synthetic_sources(self):
        # Every distribution; alpha's targets that need data, and queries.
        self.sweep("[sweep]\nsource=gaussian,laplace,student_t,sphere,outliers\nrows=512\nqueries=32\nkey-mode=prod\n"
                   "alpha=score,cos\n")
        lines = self.lines()
        self.assertEqual(len(lines), 10)
        self.assertTrue(all("layers" not in line for line in lines))
        self.assertEqual(len({line["metrics"]["value_relative_mse"]["mean"] for line in lines}), 5)


class Interruptions(SweepTest):
    def expected(self, text=SMALL):
        out = self.path("undisturbed")
        begin = time.monotonic()
        self.sweep(text, out=out)
        self.seconds = time.monotonic() - begin
        return self.results(out)

    def test_jobs_do_not_change_a_byte(self):
        expected = self.expected()
        self.assertEqual(expected.count(b"\n"), SMALL_COUNT)
        for jobs in (1, 2, 5):
            out = self.path(f"jobs{jobs}")
            self.sweep(SMALL, "--jobs", jobs, out=out)
            self.assertEqual(self.results(out), expected)
        capture = "[sweep]\nsource=sample\nkey-mode=mse,prod\nalpha=mse\nkey-bits=2,3,4\n"
        for jobs in (1, 3):
            self.sweep(capture, "--jobs", jobs, out=self.path(f"capture{jobs}"))
        self.assertEqual(self.results(self.path("capture1")), self.results(self.path("capture3")))

    def test_killed_at_random_points(self):
        print(f"seed {SEED}")
        draws = random.Random(SEED)
        text = SMALL.replace("rows = 1500", "rows = 8000")  # half a second of work
        expected = self.expected(text)
        kills, lengths = 0, []
        while kills < KILLS:
            shutil.rmtree(self.out, ignore_errors=True)
            finished = False
            while not finished:
                process = TQ.start(*self.arguments(text, "--resume", "--jobs", draws.choice("12")),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                time.sleep(draws.uniform(0, 0.7 * self.seconds))
                process.kill()
                errors = process.communicate(timeout=TIMEOUT)[1]
                finished = process.returncode == 0
                kills += not finished
                self.assertIn(process.returncode, (0, -signal.SIGKILL), errors)
                if os.path.exists(os.path.join(self.out, "results.jsonl")):
                    kept = self.results()
                    lengths.append(len(kept))
                    self.assertTrue(expected.startswith(kept))
            self.assertEqual(self.results(), expected)
        print(f"{kills} kills, at {len(set(lengths))} different lengths")

    def test_a_line_cut_anywhere_is_measured_again(self):
        draws = random.Random(SEED)
        expected = self.expected()
        ends = [i + 1 for i, byte in enumerate(expected) if byte == ord("\n")]
        last = ends[-2]
        for cut in (last + 1, last + 3, last + 20, len(expected) - 1, draws.randrange(1, len(expected)), 0, 1):
            with self.subTest(cut=cut, seed=SEED):
                shutil.rmtree(self.out, ignore_errors=True)
                shutil.copytree(self.path("undisturbed"), self.out)
                os.truncate(os.path.join(self.out, "results.jsonl"), cut)
                result = self.sweep(SMALL, "--resume")
                self.assertEqual(self.results(), expected)
                self.assertEqual("cut off" in result.err, cut not in [0, *ends])
                done = sum(end <= cut for end in ends)
                self.assertIn(f"{done} of {SMALL_COUNT} configurations are done", result.err)

    def test_interrupted(self):
        expected = self.expected()
        process = TQ.start(*self.arguments(SMALL), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        results = os.path.join(self.out, "results.jsonl")
        while process.poll() is None and not (os.path.exists(results) and os.path.getsize(results)):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
        self.assertIn(process.returncode, (130, 0))
        self.sweep(SMALL, "--resume")
        self.assertEqual(self.results(), expected)
        with open(os.path.join(self.out, "manifest.json"), encoding="utf-8") as file:
            runs = json.load(file)["runs"]
        self.assertEqual(len(runs), 2)
        self.assertIsNotNone(runs[1]["utc_end"])

    def test_nothing_is_measured_twice(self):
        expected = self.expected()
        shutil.copytree(self.path("undisturbed"), self.out)
        self.sweep(SMALL, "--resume")
        self.assertEqual(self.results(), expected)
        # A changed configuration adds what is new, and only that.
        self.sweep(SMALL, "--resume", "--set", "key-bits=2,3,4")
        grown = self.results()
        self.assertTrue(grown.startswith(expected))
        keys = [line["key"] for line in self.lines()]
        self.assertEqual(len(keys), len(set(keys)))
        self.assertEqual(len(keys), SMALL_COUNT * 3 // 2)
        added = [json.loads(line)["configuration"]["key-bits"] for line in grown[len(expected):].splitlines()]
        self.assertEqual(set(added), {4})

    def test_folders_that_are_refused(self):
        os.mkdir(self.out)
        self.sweep(SMALL, "--set", "d=32")  # an empty folder will do
        before = self.results()
        self.assert_refused(2, self.arguments(SMALL), "not empty", "--resume", self.out)
        self.assertEqual(self.results(), before)
        mine = self.path("mine")
        os.mkdir(mine)
        with open(os.path.join(mine, "thesis.tex"), "w", encoding="utf-8") as file:
            file.write("years of work")
        for more in ([], ["--resume"]):
            self.assert_refused(2, self.arguments(SMALL, *more, out=mine), mine, *(["no sweep"] if more else []))
        self.assertEqual(os.listdir(mine), ["thesis.tex"])
        for content in ('{"loss": 3}\n', "text without an end", before.decode() + "\n",
                        before.decode() + before.decode().splitlines()[0] + "\n"):
            other = self.path("other")
            os.makedirs(other, exist_ok=True)
            with open(os.path.join(other, "results.jsonl"), "w", encoding="utf-8") as file:
                file.write(content)
            self.assert_refused(3, self.arguments(SMALL, "--resume", out=other), "results.jsonl", "line")
            self.assertEqual(self.results(other).decode(), content)
            self.assertEqual(os.listdir(other), ["results.jsonl"])
        self.assert_refused(4, self.arguments(SMALL, out=os.path.join(mine, "thesis.tex", "x")), "thesis.tex")

    def test_one_process_at_a_time(self):
        self.sweep(SMALL, "--set", "d=32")
        with open(os.path.join(self.out, "results.jsonl"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assert_refused(2, self.arguments(SMALL, "--resume"), self.out, "another tq sweep")
        # Two that start at once on a new folder: one does it all.
        both = self.path("both")
        processes = [TQ.start(*self.arguments(SMALL, out=both), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                     for _ in range(2)]
        self.assertEqual(sorted(process.wait(TIMEOUT) for process in processes), [0, 2])
        self.assertEqual(self.results(both), self.expected())

    def test_full_disk(self):
        expected = self.expected()
        for limit in (2500, 12345):
            with self.subTest(limit=limit):
                shutil.rmtree(self.out, ignore_errors=True)

                def small_disk():
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

                process = TQ.start(*self.arguments(SMALL), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=small_disk)
                errors = process.communicate(timeout=TIMEOUT)[1].decode()
                self.assertEqual(process.returncode, 4, errors)
                self.assertIn("results.jsonl: cannot be written", errors.splitlines()[-1])
                self.assertIn("--resume", errors.splitlines()[-1])
                kept = self.results()
                self.assertTrue(expected.startswith(kept) and kept.endswith(b"\n") and len(kept) <= limit)
                self.sweep(SMALL, "--resume")
                self.assertEqual(self.results(), expected)

    def test_a_capture_with_a_fault_loses_nothing(self):
        import h5py
        bad = write_random_capture(self.path("bad.kv.h5"))
        with h5py.File(bad, "r+") as file:
            file["layers/001/v"][200, 1, 5] = float("nan")
        text = f"[sweep]\nsource=gaussian,capture:{bad}\nrows=256\nqueries=8\nkey-bits=2,3\n"
        result = TQ.run(*self.arguments(text))
        self.assertEqual(result.code, 3)
        self.assertIn("/layers/001/v", result.err.splitlines()[-1])
        self.assertEqual(len(self.lines()), 2)


class Progress(SweepTest):
    # Minutes of work: the bar comes after half a second on any machine, and nobody waits for the end.
    LONG = ("[sweep]\nrows=65536\nqueries=1024\nkey-mode=prod\nalpha=cos\nvalue-bits=2,3,4\nseed="
            + ",".join(map(str, range(50))) + "\n")

    def test_bar_on_a_terminal(self):
        ours, theirs = pty.openpty()
        process = TQ.start(*self.arguments(self.LONG), stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = ""
        bar = re.compile(r"sweeping \[=* *\] +\d+ %  \d+ s left")
        while select.select([ours], [], [], TIMEOUT)[0] and not bar.search(shown):
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:
                break  # the other end was closed
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), 130, shown)
        os.close(ours)
        self.assertRegex(shown, bar)
        self.assertNotIn("source=", shown)

    def test_lines_in_a_log(self):
        log = self.sweep(SMALL).err.splitlines()
        self.assertEqual(len(log), SMALL_COUNT)
        self.assertRegex(log[2], rf"\Atq: 3/{SMALL_COUNT} source=gaussian .* \(\d+\.\d+ s\)\Z")

    def test_help(self):
        text = TQ.succeed("sweep", "--help").out
        for word in ("--config", "--resume", "--jobs", "--dry-run", "--set", "--exclude", "example: tq sweep"):
            self.assertIn(word, text)


if __name__ == "__main__":
    unittest.main()
