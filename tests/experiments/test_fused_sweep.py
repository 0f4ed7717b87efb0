"""Sweeps with `measure = fused` on the host, and what says that there is no GPU.

usage: test_fused_sweep.py TQ_BINARY SAMPLE_CAPTURE CONFIG_FOLDER
"""

import json
import os
import re
import shutil
import sys
import tempfile
import unittest

from tq_program import Program

TQ, SAMPLE, FUSED = Program(sys.argv[1]), sys.argv[2], os.path.join(sys.argv[3], "fused.ini")
del sys.argv[1:4]

# The seed's Experiment C: heads, tokens, head_dim, value bits, group size.
SEED_ROWS = {(8, 256, 128, 2, 32), (16, 1024, 128, 2, 32), (16, 1024, 256, 2, 32), (32, 4096, 128, 2, 32),
             (8, 256, 128, 3, 32), (16, 1024, 128, 3, 32), (16, 1024, 128, 3, 16), (16, 1024, 256, 3, 32),
             (32, 4096, 128, 3, 32)}
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}  # also where there is one
SMALL = ("--measure", "fused", "--rows", "150", "--heads", "2", "--gqa", "3", "--d", "64")


class FusedSweep(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-fused-")
        self.out = os.path.join(self.folder, "out")

    def tearDown(self):
        shutil.rmtree(self.folder)

    def lines(self, out=None):
        with open(os.path.join(out or self.out, "results.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def rewrite(self, lines):
        with open(os.path.join(self.out, "results.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)

    def assert_refused(self, code, arguments, *words, environment=None):
        with self.subTest(arguments=arguments):
            result = TQ.run(*arguments, environment=environment)
            self.assertEqual(result.code, code, result.err)
            self.assertEqual(result.out, "")
            self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
            for word in words:
                self.assertIn(word, result.err)

    def test_rows_of_the_configuration(self):
        out = TQ.succeed("sweep", "--config", FUSED, "--dry-run", "--json").out
        rows = [json.loads(line)["configuration"] for line in out.splitlines()]
        for row in rows:
            self.assertEqual((row["measure"], row["key-mode"], row["key-bits"], row["sketch"], row["rotation"],
                              row["value-mode"]), ("fused", "prod", 3, "gaussian", "qr", "group"))
        plain = {tuple(row[axis] for axis in ("heads", "rows", "d", "value-bits", "group-size")) for row in rows
                 if row["gqa"] == 1}
        like_the_seed = {row for row in plain if row[2] in (128, 256)}
        self.assertEqual({row for row in like_the_seed if row[3] in (2, 3)}, SEED_ROWS)
        more_bits = {(*row[:3], bits, row[4]) for row in SEED_ROWS for bits in (4, 8)}
        self.assertEqual({row for row in like_the_seed if row[3] in (4, 8)}, more_bits)
        everywhere = {(row["d"], row["gqa"], row["value-bits"]) for row in rows if row["heads"] == 16}
        self.assertEqual(everywhere, {(d, group, bits) for d in (64, 96, 128, 256) for group in (1, 4, 8, 16)
                                      for bits in (2, 3, 4, 8)})
        self.assertEqual(len(rows), 75)

    def test_table_and_lines(self):
        result = TQ.succeed("sweep", "--config", FUSED, "--out", self.out, "--set", "heads=8,16", "--set", "gqa=1,16",
                            "--set", "d=128,64", "--set", "value-bits=2,8")
        lines = self.lines()
        self.assertEqual(len(lines), 2 + 8 + 1)
        for line in lines:
            self.assertEqual(list(line), ["key", "configuration", "metrics", "pass"])
            self.assertEqual(list(line["metrics"]), ["max_error", "relative_error", "cosine", "lse_error"])
            self.assertIs(line["pass"], True)
            # float32 against float64, and not float64 against itself.
            self.assertLess(line["metrics"]["relative_error"], 1e-5)
            self.assertGreater(line["metrics"]["relative_error"], 1e-8)
            self.assertLess(line["metrics"]["lse_error"], 1e-5)
            self.assertLess(abs(1 - line["metrics"]["cosine"]), 1e-9)
        text = result.out.splitlines()
        header = next(i for i, row in enumerate(text) if row.startswith("BH "))
        self.assertEqual(re.split(r"  +", text[header]),
                         ["BH", "G", "N", "D", "vbits", "gs", "max_err", "relative", "cos", "lse err", "result"])
        rows = text[header + 2:header + 2 + len(lines)]
        for row, line in zip(rows, lines):
            point, cells = line["configuration"], row.split()
            self.assertEqual([int(cell) for cell in cells[:6]],
                             [point[axis] for axis in ("heads", "gqa", "rows", "d", "value-bits", "group-size")])
            self.assertRegex(row, r"  \d\.\de-\d\d  +\d\.\de-\d\d  \d\.\d{8}  \d\.\de-\d\d +PASS\Z")
            self.assertAlmostEqual(float(cells[6]) / line["metrics"]["max_error"], 1, delta=0.06)
        self.assertEqual(text[-1], f"{len(lines)} of {len(lines)} pass")

    def test_a_row_that_fails(self):
        arguments = ["sweep", *SMALL, "--value-bits", "2,3,4", "--out", self.out]
        TQ.succeed(*arguments)
        lines = self.lines()
        lines[1]["metrics"]["max_error"] = lines[1]["metrics"]["cosine"] = None  # as NaN is written
        lines[1]["pass"] = False
        self.rewrite(lines)
        for more in ([], ["--json"]):
            result = TQ.run(*arguments, "--resume", *more)
            self.assertEqual(result.code, 1, result.err)
        result = TQ.run(*arguments, "--resume")
        self.assertEqual([row.split()[-1] for row in result.out.splitlines() if re.search("PASS$|FAIL$", row)],
                         ["PASS", "FAIL", "PASS"])
        self.assertRegex(result.out, r" nan +\S+ +nan .*FAIL\n")
        self.assertTrue(result.out.endswith("2 of 3 pass\n"))
        # What is not asked for does not count.
        TQ.succeed(*arguments, "--resume", "--set", "value-bits=2,4")

    def test_every_codec(self):
        TQ.succeed("sweep", *SMALL, "--key-mode", "mse,prod", "--value-mode", "rotated,group", "--rotation", "rht,qr",
                   "--sketch", "gaussian,orthogonal", "--scale", "nc,ls", "--source", "gaussian,outliers", "--seed",
                   "1", "--out", self.out)
        lines = self.lines()
        self.assertEqual(len(lines), 2 * 2 * (2 * 2 + 2 * 3))
        self.assertTrue(all(line["pass"] for line in lines))
        # Other codes, other numbers.
        self.assertGreater(len({line["metrics"]["relative_error"] for line in lines}), len(lines) // 2)

    def test_beside_quality(self):
        text = TQ.succeed("sweep", *SMALL, "--set", "measure=quality,fused", "--queries", "8", "--out", self.out).out
        self.assertRegex(text, r"(?s)\A\+-: .*softmax KL.*\n\nfused attention .*\n\n1 of 1 pass\n\Z")
        quality, fused = self.lines()
        for axis in ("measure", "heads", "gqa"):
            self.assertNotIn(axis, quality["configuration"])
        self.assertNotIn("queries", fused["configuration"])
        # Jobs change nothing.
        other = os.path.join(self.folder, "jobs")
        TQ.succeed("sweep", *SMALL, "--set", "measure=quality,fused", "--queries", "8", "--out", other, "--jobs", "1")
        self.assertEqual(self.lines(other), self.lines())

    def test_impossible_combinations(self):
        for more, words, rule in ((["--source", "sample"], ["synthetic"], "measure=fused & source=sample"),
                                  (["--key-mode", "none"], ["keys and values"], "measure=fused & key-mode=none"),
                                  (["--key-mode", "prod", "--alpha", "mse"], ["alpha"], "measure=fused & alpha=mse"),
                                  (["--heads", "1024", "--rows", "1000000"], ["memory"], "heads=1024"),
                                  (["--backend", "cuda", "--d", "112"], ["head_dim 112"], "d=112 & backend=cuda"),
                                  (["--backend", "cuda", "--key-bits", "5"], ["mse5-nc"],
                                   "backend=cuda & key-mode=mse & key-bits=5"),
                                  (["--backend", "cuda", "--value-mode", "group", "--group-size", "8"], ["group3-gs8"],
                                   "value-bits=3 & group-size=8")):
            self.assert_refused(2, ["sweep", "--measure", "fused", "--dry-run", *more], *words, "exclude = ", rule)
        for axis, value in (("gqa", "17"), ("heads", "0"), ("measure", "speed"), ("backend", "tpu")):
            self.assert_refused(2, ["sweep", *SMALL, "--set", f"{axis}={value}", "--dry-run"], axis, value)

    def test_no_gpu(self):
        config = ["sweep", "--config", FUSED, "--set", "backend=cuda"]
        words = ["backend cuda: no ", "need one"]
        self.assert_refused(4, [*config, "--out", self.out], *words, environment=NO_GPU)
        self.assertFalse(os.path.exists(self.out))
        self.assert_refused(4, ["sweep", "--backend", "host,cuda", "--out", self.out], *words, environment=NO_GPU)
        self.assertFalse(os.path.exists(self.out))
        self.assert_refused(4, ["eval", "--capture", SAMPLE, "--backend", "cuda"], *words, environment=NO_GPU)
        self.assert_refused(2, ["eval", "--capture", SAMPLE, "--backend", "tpu"], "'tpu'", "host", "cuda")
        # A plan needs none, nor does what is asked of the host.
        TQ.succeed(*config, "--dry-run", environment=NO_GPU)
        TQ.succeed("sweep", *SMALL, "--out", self.out, environment=NO_GPU)
        with open(os.path.join(self.out, "manifest.json"), encoding="utf-8") as file:
            self.assertIsNone(json.load(file)["runs"][0]["gpu"])


if __name__ == "__main__":
    unittest.main()
