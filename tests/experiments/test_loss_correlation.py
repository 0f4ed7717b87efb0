"""experiments/benchmarks/loss_correlation.py against ranks counted by hand.

usage: test_loss_correlation.py
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "benchmarks" / "loss_correlation.py"
SEED = int(os.environ.get("TQ_TEST_SEED", random.randrange(1 << 32)))
METRICS = ("key_relative_mse", "key_cosine", "value_relative_mse", "inner_product_error", "softmax_kl", "top1_agreement",
           "output_error")
BETTER = ("key_cosine", "top1_agreement")
LOSSES = ("far_nats_increase", "far_prediction_kl")


def rank(values, i):
    """The mean place of value i among all, from the pairwise comparisons."""
    return sum((other < values[i]) + 0.5 * (other == values[i]) for other in values)


def spearman(x, y):
    a, b = [[rank(values, i) for i in range(len(values))] for values in (x, y)]
    mean = len(x) / 2
    product = sum((p - mean) * (q - mean) for p, q in zip(a, b))
    return product / (sum((p - mean) ** 2 for p in a) * sum((q - mean) ** 2 for q in b)) ** 0.5


def write(folder, rows):
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(codec, names, values):
    return {"configuration": codec, "bytes_per_token": 1200, "metrics": {n: {"mean": v} for n, v in zip(names, values)}}


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


class LossCorrelation(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_ranks(self):
        print(f"TQ_TEST_SEED={SEED}")
        generator = random.Random(SEED)
        codecs = [{"key-mode": "mse", "key-bits": bits, "scale": scale, "value-mode": mode, "value-bits": bits}
                  for bits in (2, 3, 4) for scale in ("nc", "norm", "ls") for mode in ("rotated", "group")]
        # Few different values, so that some are equal.
        proxies = [[generator.randrange(1, 12) / 16 for _ in METRICS] for _ in codecs]
        losses = [[generator.randrange(-3, 9) / 16, generator.randrange(1, 9) / 16] for _ in codecs]
        alone = {**codecs[0], "value-mode": "none"}
        write(self.folder / "loss", [row(c, LOSSES, v) for c, v in zip(codecs, losses)] + [row(alone, LOSSES, (9, 9))])
        write(self.folder / "proxies", [row(c, METRICS, v) for c, v in reversed(list(zip(codecs, proxies)))])
        process = run("--loss", self.folder / "loss", "--proxies", self.folder / "proxies", "--json", self.folder / "out.json")
        self.assertEqual(process.returncode, 0, process.stderr)
        result = json.loads((self.folder / "out.json").read_text())["correlations"]
        self.assertEqual({name: subset["pairs"] for name, subset in result.items()},
                         {"all": 18, "2 bits": 6, "3 bits": 6, "4 bits": 6})
        for name, subset in result.items():
            chosen = [i for i, codec in enumerate(codecs) if name == "all" or name[0] == str(codec["key-bits"])]
            for m, metric in enumerate(METRICS):
                x = [proxies[i][m] * (-1 if metric in BETTER else 1) for i in chosen]
                for k, loss in enumerate(LOSSES):
                    y = [losses[i][k] for i in chosen]
                    if len(set(x)) > 1 and len(set(y)) > 1:
                        self.assertAlmostEqual(subset["spearman"][metric][loss], spearman(x, y), places=12)

    def test_refusals(self):
        codec = {"key-mode": "mse", "key-bits": 2, "value-mode": "rotated", "value-bits": 2}
        write(self.folder / "loss", [row(codec, LOSSES, (1, 1))])
        write(self.folder / "twice", [row(codec, METRICS, range(7))] * 2)
        write(self.folder / "one", [row(codec, METRICS, range(7))])
        for proxies, message in (("none", "No such file"), ("twice", "two rows of the codec"),
                                 ("one", "1 codec pairs are in both sweeps")):
            process = run("--loss", self.folder / "loss", "--proxies", self.folder / proxies)
            self.assertEqual(process.returncode, 3)
            self.assertIn(message, process.stderr)
            self.assertEqual(len(process.stderr.splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
