"""`tq eval` and `tq sweep` with backend cuda against the host's numbers, and the seed's Experiment C on the GPU.

usage: test_eval_backend.py TQ_BINARY SAMPLE_CAPTURE CONFIG_FOLDER

Exits 77 where there is no GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

SKIPPED = 77
TIMEOUT = 900  # seconds; the first run compiles some hundred kernels
TQ, SAMPLE, CONFIGS = (os.path.abspath(path) for path in sys.argv[1:4])
del sys.argv[1:4]

CODECS = {
    "seed": ("--key-mode", "prod", "--sketch", "gaussian", "--value-mode", "group"),
    "fitted alpha": ("--key-mode", "prod", "--alpha", "mse", "--value-mode", "group", "--value-bits", "2",
                     "--group-size", "16"),
    "default": (),
    "four bits, dense rotation": ("--key-bits", "4", "--value-bits", "4", "--rotation", "qr"),
    "least squares": ("--key-bits", "2", "--scale", "ls", "--value-mode", "group", "--value-bits", "8",
                      "--group-size", "128"),
    "prod, dense rotation": ("--key-mode", "prod", "--key-bits", "4", "--sketch", "gaussian", "--alpha", "cos",
                             "--rotation", "qr", "--scale", "norm"),
}
# Relative. A code that lies within rounding of a boundary may fall to either side; where it is of a token that all
# queries look at, that shows in its layer.
OVERALL, LAYER = 1e-4, 1e-3
QUERIES = 8 * 64  # of a layer of the sample: of two top scores within rounding either may be the larger


def run(*arguments):
    process = subprocess.run([TQ, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return process.returncode, process.stdout, process.stderr


def succeed(*arguments):
    code, out, err = run(*arguments)
    if code != 0:
        raise AssertionError(f"tq {' '.join(map(str, arguments))}: exit {code}: {err[-2000:]}")
    return out


def differences(host, cuda, layers):
    """By metric: the relative difference. `layers`: so many of the same size are averaged in the metrics."""
    found = {}
    for name, expected in host.items():
        if not isinstance(expected, float):
            if expected != cuda[name]:
                raise AssertionError(f"{name}: {cuda[name]} instead of {expected}")
            continue
        difference = abs(cuda[name] - expected)
        scale = abs(expected)
        if name == "inner_product_bias":  # may be as good as 0
            scale = max(scale, host["inner_product_error"])
        if name == "top1_agreement":
            difference = max(0.0, difference - 1.001 / (QUERIES * layers))
        found[name] = difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))
    return found


class Backend(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tq-gpu-")
        self.addCleanup(folder.cleanup)
        self.path = lambda name: os.path.join(folder.name, name)

    def compare(self, name, arguments):
        host, cuda = (json.loads(succeed("eval", "--capture", SAMPLE, "--json", "--backend", backend, *arguments))
                      for backend in ("host", "cuda"))
        self.assertEqual(len(host["layers"]), len(cuda["layers"]))
        reports = [(host["overall"], cuda["overall"], len(host["layers"]), OVERALL)]
        reports += [(ours, theirs, 1, LAYER) for ours, theirs in zip(host["layers"], cuda["layers"])]
        worst = [0.0, 0.0]
        for expected, actual, layers, tolerance in reports:
            for metric, difference in differences(expected, actual, layers).items():
                with self.subTest(codec=name, metric=metric, layer=expected.get("layer", "all")):
                    # Written so that a NaN fails.
                    self.assertTrue(difference <= tolerance, f"{difference:.2e}")
                worst[layers == 1] = max(worst[layers == 1], difference)
        print(f"{name:26} largest relative difference {worst[0]:.1e}, in a layer {worst[1]:.1e}")

    def test_eval(self):
        for name, arguments in CODECS.items():
            self.compare(name, arguments)

    def test_eval_of_an_artefact(self):
        artefact = self.path("sample.tq.h5")
        succeed("calibrate", "--capture", SAMPLE, "--out", artefact, "--key-mode", "prod")
        self.compare("artefact", ("--artefact", artefact))

    def test_sweep(self):
        out = self.path("sweep")
        succeed("sweep", "--out", out, "--backend", "host,cuda", "--source", "gaussian,laplace", "--d",
                "64,80,96,192,256", "--rows", "2048", "--queries", "64", "--key-mode", "mse,prod", "--value-mode",
                "rotated,group", "--group-size", "16")
        lines = {"host": [], "cuda": []}
        with open(os.path.join(out, "results.jsonl"), encoding="utf-8") as file:
            for line in map(json.loads, file):
                lines[line["configuration"].pop("backend")].append(line)
        self.assertEqual(len(lines["host"]), 2 * 5 * 2 * 2)
        worst = 0.0
        for ours, theirs in zip(lines["host"], lines["cuda"], strict=True):
            self.assertEqual(ours["configuration"], theirs["configuration"])
            means = [{name: metric["mean"] for name, metric in line["metrics"].items()} for line in (ours, theirs)]
            self.assertEqual(means[0].keys(), means[1].keys())
            for host in means:  # of 64 queries; compared above
                del host["top1_agreement"]
            for metric, difference in differences(means[0], means[1], 1).items():
                with self.subTest(metric=metric, **ours["configuration"]):
                    self.assertTrue(difference <= LAYER, f"{difference:.2e}")
                worst = max(worst, difference)
        print(f"sweep: {len(lines['host'])} configurations, largest relative difference {worst:.1e}")
        with open(os.path.join(out, "manifest.json"), encoding="utf-8") as file:
            gpu = json.load(file)["runs"][0]["gpu"]
        print(gpu)
        self.assertTrue(gpu["name"] and gpu["nvrtc"])
        self.assertGreaterEqual(gpu["cuda_driver"], 12000)

    def test_experiment_c(self):
        config = ("sweep", "--config", os.path.join(CONFIGS, "fused.ini"), "--set", "backend=cuda")
        out = self.path("fused")
        code, table, errors = run(*config, "--out", out)
        print(table)
        self.assertEqual(code, 0, errors[-2000:])
        self.assertTrue(table.endswith("75 of 75 pass\n"))
        with open(os.path.join(out, "results.jsonl"), encoding="utf-8") as file:
            errors = [json.loads(line)["metrics"]["relative_error"] for line in file]
        # The kernels round to binary16; less than that would mean that the host was measured.
        self.assertGreater(min(errors), 1e-5)


if __name__ == "__main__":
    refused = run("eval", "--capture", SAMPLE, "--backend", "cuda", "--json")
    if refused[0] == 4 and any(text in refused[2] for text in ("no NVIDIA driver", "no GPU:")):
        print(f"skipped: {refused[2].strip()}")
        sys.exit(SKIPPED)
    unittest.main()
