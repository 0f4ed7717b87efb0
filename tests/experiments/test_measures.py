"""What sweeps measure beside errors: speeds, capacity, equalised values, alphas as they are, bytes stored once.

usage: test_measures.py TQ_BINARY SAMPLE_CAPTURE CONFIG_FOLDER [SEED]
"""

import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import unittest
from fractions import Fraction

import h5py
import numpy as np

import codec_reference as reference
from tq_program import Program, write_random_capture

TQ, SAMPLE, CONFIGS = Program(sys.argv[1]), sys.argv[2], sys.argv[3]
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(10**9)
del sys.argv[1:]


class MeasuresTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-measures-")
        self.out = self.path("out")

    def tearDown(self):
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def jsonl(self, name, out=None):
        with open(os.path.join(out or self.out, name), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def sweep(self, *options, out=None):
        """Table and result lines."""
        result = TQ.succeed("sweep", "--out", out or self.out, *options)
        return result.out, self.jsonl("results.jsonl", out)

    def plan(self, *options):
        out = TQ.succeed("sweep", "--dry-run", "--json", *options).out
        return [json.loads(line) for line in out.splitlines()]

    def assert_refused(self, options, *words):
        with self.subTest(options=options):
            result = TQ.run("sweep", "--dry-run", *options)
            self.assertEqual(result.code, 2, result.err)
            self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
            for word in words:
                self.assertIn(word, result.err)


def table_rows(table):
    """Cells of a table under the names of its columns, of several columns of one name the last."""
    lines = table.splitlines()
    rule = next(i for i, line in enumerate(lines) if re.fullmatch("-{9,}", line))
    header = re.split(r"  +", lines[rule - 1])
    return [dict(zip(header, re.split(r"  +", line))) for line in lines[rule + 1:] if line]


class Speeds(MeasuresTest):
    def test_times_lie_beside_the_results(self):
        table, lines = self.sweep("--rows", "500", "--queries", "8", "--key-mode", "mse,fp8", "--value-mode",
                                  "group,q4_0,none", "--seed", "0,1,2")
        timings = self.jsonl("timings.jsonl")
        self.assertEqual([timing["key"] for timing in timings], [line["key"] for line in lines])
        for line, timing in zip(lines, timings):
            point = line["configuration"]
            self.assertNotIn("seconds", json.dumps(line))
            self.assertEqual("values" in timing, point["value-mode"] != "none")
            total = 0
            for side, mode in (("keys", point["key-mode"]), ("values", point["value-mode"])):
                if mode == "none":
                    continue
                fields = ["encode_seconds", "decode_seconds"] if mode in ("mse", "group") else ["one_pass_seconds"]
                self.assertEqual(list(timing[side]), ["vectors", *fields])
                self.assertEqual(timing[side]["vectors"], 500)
                for field in fields:
                    self.assertGreater(timing[side][field], 0)
                    total += timing[side][field]
            self.assertLess(total, timing["seconds"])
        rows = table_rows(table)
        self.assertEqual(len(rows), 6)
        for row in rows:
            apart = r"\d+\.\d\d \+- \d+\.\d\d"
            for side, mode in (("key", row["key-mode"]), ("value", row["value-mode"])):
                split, joint = mode in ("mse", "group"), mode in ("fp8", "q4_0")
                self.assertRegex(row[f"{side} enc Mvec/s"], apart if split else "^-$")
                self.assertRegex(row[f"{side} dec Mvec/s"], apart if split else "^-$")
                self.assertRegex(row[f"{side} enc+dec Mvec/s"], apart if joint else "^-$")
        # The mean over seeds of vectors a second.
        of_row = [timing["keys"] for line, timing in zip(lines, timings)
                  if (line["configuration"]["key-mode"], line["configuration"]["value-mode"]) == ("mse", "group")]
        speed = np.mean([keys["vectors"] / keys["encode_seconds"] for keys in of_row]) / 1e6
        row = next(row for row in rows if (row["key-mode"], row["value-mode"]) == ("mse", "group"))
        self.assertAlmostEqual(float(row["key enc Mvec/s"].split()[0]), speed, delta=0.0051)

    def test_all_vectors_of_a_capture_are_counted(self):
        capture = write_random_capture(self.path("c.kv.h5"), layers=2, kv_heads=2, sequence_lengths=(300, 700))
        self.sweep("--source", f"capture:{capture}", "--key-mode", "prod", "--alpha", "mse", "--backend", "host")
        timing = self.jsonl("timings.jsonl")[0]
        self.assertEqual((timing["keys"]["vectors"], timing["values"]["vectors"]), (4000, 4000))

    def test_without_timings_there_is_a_table(self):
        options = ["--rows", "64", "--queries", "0", "--value-bits", "2,3"]
        self.sweep(*options)
        path = os.path.join(self.out, "timings.jsonl")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for cut in (text[:-30], ""):  # a kill may leave the last line incomplete
            with open(path, "w", encoding="utf-8") as file:
                file.write(cut)
            table, _ = self.sweep(*options, "--resume")
            rows = table_rows(table)
            self.assertEqual(len(rows), 2)
            self.assertEqual([row.get("value enc Mvec/s", "-") != "-" for row in rows], [cut != "", False])


class Equalisation(MeasuresTest):
    def test_against_numpy(self):
        print(f"seed {SEED}")
        capture = write_random_capture(self.path("c.kv.h5"), layers=2, kv_heads=2, sequence_lengths=(400,), seed=SEED)
        with h5py.File(capture, "r+") as file:  # channels of all sizes, and one that is always 0
            sizes = np.random.default_rng(SEED).lognormal(sigma=1.5, size=(2, 1, 2, 128))
            sizes[..., 5] = 0
            for layer in (0, 1):
                file[f"layers/{layer:03}/v"][...] = (file[f"layers/{layer:03}/v"][()] * sizes[layer]).astype(np.float16)
            values = [file[f"layers/{layer:03}/v"][()].astype(float).transpose(1, 0, 2) for layer in (0, 1)]
        _, lines = self.sweep("--source", f"capture:{capture}", "--key-mode", "none", "--value-mode", "group",
                              "--value-bits", "2,3,4,8", "--group-size", "16,32", "--equalise", "none,channel")
        self.assertEqual(len(lines), 16)
        for line in lines:
            point = line["configuration"]
            codec = lambda x: reference.group_codec(x, point["value-bits"], point["group-size"])
            if point.get("equalise") == "channel":
                self.assertEqual(line["equalisation_bytes"], 2 * 2 * 128 * 2)
            else:
                self.assertNotIn("equalise", point)
                self.assertNotIn("equalisation_bytes", line)
            errors = []
            for v in values:
                scale = np.ones((2, 1, 128))
                if point.get("equalise") == "channel":
                    scale = reference.half(np.sqrt((v * v).mean(1, keepdims=True)))
                    scale[scale == 0] = 1
                errors.append(reference.vector_errors(v, codec(v / scale) * scale))
            mse, cosine = np.mean(errors, 0)
            # Float32 moves a code here and there by one step, and a channel's scale by one half.
            self.assertAlmostEqual(line["metrics"]["value_relative_mse"]["mean"] / mse, 1, delta=1e-2)
            self.assertAlmostEqual(line["metrics"]["value_cosine"]["mean"], cosine, delta=1e-5 + 1e-2 * (1 - cosine))
            self.assertEqual(line["bytes_per_token"], 4 * (16 * point["value-bits"] + 4 * 128 // point["group-size"]))

    def test_points(self):
        # What is not equalised has the point, and the key, that it had before there was the axis.
        entries = self.plan("--value-mode", "group,rotated,fp16", "--key-mode", "mse", "--equalise", "none,channel")
        self.assertEqual([(entry["configuration"]["value-mode"], entry["configuration"].get("equalise"))
                          for entry in entries],
                         [("group", None), ("group", "channel"), ("rotated", None), ("fp16", None)])
        old = {"source": "gaussian", "d": 128, "rows": 4096, "queries": 256, "seed": 0, "backend": "host",
               "rotation": "rht", "key-mode": "mse", "key-bits": 3, "value-mode": "group", "value-bits": 3,
               "group-size": 32, "scale": "nc", "result_format": 2}
        canonical = json.dumps(old, sort_keys=True, separators=(",", ":"))
        self.assertEqual(entries[0]["key"], hashlib.sha256(canonical.encode()).hexdigest())
        self.assert_refused(["--equalise", "rows"], "equalise 'rows'", "none, channel")
        self.assert_refused(["--measure", "fused", "--value-mode", "group", "--equalise", "channel"],
                            "measure fused", "exclude = measure=fused & equalise=channel")

    def test_the_table_tells_them_apart(self):
        table, _ = self.sweep("--rows", "256", "--queries", "0", "--key-mode", "none", "--value-mode", "group",
                              "--equalise", "none,channel")
        self.assertEqual([(row["equalise"], row["channel bytes"]) for row in table_rows(table)],
                         [("-", "-"), ("channel", "256")])


class Alphas(MeasuresTest):
    def test_against_numpy(self):
        print(f"seed {SEED}")
        capture = write_random_capture(self.path("c.kv.h5"), sequence_lengths=(512,), seed=SEED)
        artefact = self.path("a.tq.h5")  # for its rotation and sketch, which are those of the seed 0
        TQ.succeed("calibrate", "--capture", capture, "--out", artefact, "--key-mode", "prod", "--key-bits", "3",
                   "--sketch", "gaussian")
        layers = reference.open_layers(capture, artefact)
        table = reference.sphere_table(128, 2)
        _, lines = self.sweep("--source", f"capture:{capture}", "--key-mode", "prod", "--key-bits", "3", "--sketch",
                              "gaussian", "--value-mode", "none", "--alpha", "0,0.3,0.80,1.6")
        self.assertEqual([line["configuration"]["alpha"] for line in lines], ["0", "0.3", "0.8", "1.6"])
        for line in lines:
            alpha = float(line["configuration"]["alpha"])
            self.assertEqual([line["alpha"], *(layer["alpha"] for layer in line["layers"])], [alpha] * 3)
            errors = [reference.vector_errors(c.k, reference.prod_codec(c.k, a.rotation, a.sketch, table, alpha))
                      for c, a in layers]
            mse, cosine = np.mean(errors, 0)
            self.assertAlmostEqual(line["metrics"]["key_relative_mse"]["mean"] / mse, 1, delta=1e-3)
            self.assertAlmostEqual(line["metrics"]["key_cosine"]["mean"], cosine, delta=1e-4)

    def test_the_alpha_in_use(self):
        _, lines = self.sweep("--source", "sample", "--key-mode", "prod,mse", "--alpha", "unbiased,mse,cos")
        unbiased, mse, cos, table_only = lines
        self.assertNotIn("alpha", table_only)
        self.assertEqual(unbiased["alpha"], (np.pi / 2) ** 0.5)
        for line in (mse, cos):
            alphas = [layer["alpha"] for layer in line["layers"]]
            self.assertEqual(len(set(alphas)), 4)
            self.assertAlmostEqual(line["alpha"], np.mean(alphas), delta=1e-12)
            self.assertLess(abs(line["alpha"] - 0.80), 0.05)
        # Given as a number, it is the same codec.
        options = ["--rows", "700", "--queries", "9", "--key-mode", "prod", "--value-mode", "none"]
        _, lines = self.sweep(*options, "--alpha", "mse,unbiased", out=self.path("targets"))
        for line in lines:
            _, [same] = self.sweep(*options, "--alpha", repr(line["alpha"]), out=self.path(repr(line["alpha"])))
            self.assertEqual(same["metrics"], line["metrics"])

    def test_values(self):
        self.assertEqual([entry["configuration"]["alpha"]
                          for entry in self.plan("--key-mode", "prod", "--alpha", "0.50,.5,5e-1,1.0,mse,0,2")],
                         ["0.5", "1", "mse", "0", "2"])
        self.assertEqual(len(self.plan("--key-mode", "mse", "--alpha", "0.5,mse,0.7")), 1)
        for text in ("-0.1", "2.1", "nan", "inf", "0.8x", "best"):
            self.assert_refused(["--key-mode", "prod", f"--alpha={text}"], f"alpha '{text}'", "0 to 2")
        self.assert_refused(["--measure", "fused", "--key-mode", "prod", "--alpha", "0.8"],
                            "exclude = measure=fused & alpha=0.8")


class StoredOnce(MeasuresTest):
    def test_bytes(self):
        table, lines = self.sweep("--rows", "64", "--queries", "0", "--d", "64,128", "--rotation", "qr,rht",
                                  "--key-mode", "mse,prod,q8_0", "--sketch", "gaussian,orthogonal", "--value-mode",
                                  "none")
        self.assertEqual(len(lines), 2 * (2 * 3 + 1))
        for line in lines:
            point = line["configuration"]
            d = point["d"]
            dense, hadamard = 4 * d * d, d // 8 + 2 * d
            self.assertEqual(line.get("rotation_bytes"), {"qr": dense, "rht": hadamard}.get(point.get("rotation")))
            self.assertEqual(line.get("sketch_bytes"),
                             {"gaussian": dense, "orthogonal": hadamard}.get(point.get("sketch")))
        self.assertEqual(hadamard, 272)
        self.assertEqual({row["rotation bytes"] for row in table_rows(table)}, {"16384", "136", "65536", "272", "-"})


class Rotations(MeasuresTest):
    def test_seed_table_of_rotations(self):
        _, lines = self.sweep("--config", os.path.join(CONFIGS, "rotation.ini"), "--set", "seed=0,1", "--set", "d=128",
                              "--set", "queries=0")
        self.assertEqual(len(lines), 2 * 2 * 3 * 2)
        for line in lines:
            point = line["configuration"]
            cosine = line["metrics"]["key_cosine"]["mean"]
            self.assertLess(abs(cosine - {2: 0.9402, 3: 0.9829, 4: 0.9953}[point["key-bits"]]), 0.001, line)
            self.assertEqual(line["rotation_bytes"], {"qr": 65536, "rht": 272}[point["rotation"]])


class Capacity(MeasuresTest):
    def test_seed_table(self):
        table, lines = self.sweep("--config", os.path.join(CONFIGS, "capacity.ini"), "--set", "memory=16797MB")
        rows = {}
        for line in lines:
            point = line["configuration"]
            self.assertEqual((point["measure"], point["heads"], point["memory-share"], point["memory"]),
                             ("capacity", 32, 60, 16797000000))
            self.assertEqual({"source", "seed", "rows", "sketch", "backend"} & set(point), set())
            rows[point["key-mode"], point.get("value-bits")] = line
        # Bytes a token and head, tokens in thousands, extension; the seed's bytes are padded. Of its 2130 k no memory
        # that gives its other rows makes more than 2128 k.
        for bits, size, thousands, extension in ((2, 132, 2386, 3.88), (3, 148, 2128, 3.46), (4, 164, 1920, 3.12)):
            line = rows["prod", bits]
            self.assertEqual(line["padded_bytes_per_token"], 32 * size)
            self.assertEqual(round(line["metrics"]["padded_max_tokens"] / 1000), thousands)
            self.assertEqual(round(line["padded_compression"], 2), extension)
            self.assertEqual(line["bytes_per_token"], 32 * (size - 32))
            self.assertEqual(round(line["metrics"]["fp16_max_tokens"] / 1000), 615)
        self.assertEqual(rows["fp16", None]["metrics"], dict.fromkeys(
            ("max_tokens", "padded_max_tokens", "fp16_max_tokens"), 615124))
        self.assertEqual(rows["fp16", None]["compression"], 1)
        of_table = table_rows(table)
        self.assertEqual(len(of_table), len(lines))
        self.assertEqual([(row["bytes"], row["padded"], row["max context"], row["vs FP16"]) for row in of_table[:3]],
                         [("100", "132", "2385937", "3.88x"), ("116", "148", "2127998", "3.46x"),
                          ("132", "164", "1920388", "3.12x")])

    def test_exact(self):
        sizes = {"16GiB": 2**34, "16384MiB": 2**34, "16GB": 16 * 10**9, "7": 7, "1TiB": 2**40, "999999KB": 999999000,
                 "1024TiB": 2**50}
        _, lines = self.sweep("--measure", "capacity", "--memory", ",".join(sizes), "--memory-share", "1,60,100",
                              "--heads", "1,7,1024", "--d", "96", "--key-mode", "prod,q8_0", "--value-mode", "group",
                              "--value-bits", "3")
        self.assertEqual(len(lines), 6 * 3 * 3 * 2)
        self.assertEqual({line["configuration"]["memory"] for line in lines}, set(sizes.values()))
        for line in lines:
            point = line["configuration"]
            values = 36 + 12
            keys, padding = (36 + 4, 24) if point["key-mode"] == "prod" else (102, 0)
            for name, size in (("max_tokens", keys + values), ("padded_max_tokens", keys + padding + values),
                               ("fp16_max_tokens", 384)):
                exact = Fraction(point["memory-share"], 100) * point["memory"] / (point["heads"] * size)
                self.assertEqual(line["metrics"][name], exact.numerator // exact.denominator)

    def test_axes_that_make_no_difference(self):
        everything = ["--source", "gaussian,sample", "--rows", "1,2", "--queries", "3,4", "--gqa", "1,2", "--seed", "0,1",
                      "--backend", "host,cuda", "--rotation", "rht,qr", "--sketch", "gaussian,orthogonal", "--alpha",
                      "mse,0.5", "--equalise", "none,channel", "--scale", "nc,ls"]
        self.assertEqual(len(self.plan("--measure", "capacity", "--key-mode", "prod,mse", "--value-mode",
                                       "group,rotated", *everything)), 4)
        self.assertEqual(len(self.plan("--memory", "1GB,2GB", "--memory-share", "50,60")), 1)

    def test_refusals(self):
        for text in ("0", "-1GiB", "1.5GB", "16gb", "GB", "2000TiB", "99999999999999999999", "16 GiB"):
            self.assert_refused(["--measure", "capacity", f"--memory={text}"], f"memory '{text}'", "16GiB")
        for text in ("0", "101", "60%"):
            self.assert_refused(["--measure", "capacity", "--memory-share", text], f"memory-share '{text}'")
        self.assert_refused(["--measure", "capacity", "--key-mode", "none"],
                            "exclude = measure=capacity & key-mode=none")
        self.assert_refused(["--measure", "capacity", "--value-mode", "group", "--group-size", "48"], "group size 48")
        self.assert_refused(["--measure", "memory"], "quality, fused, capacity")

    def test_beside_quality(self):
        table, lines = self.sweep("--measure", "quality,capacity", "--rows", "64", "--queries", "0")
        self.assertEqual(["metrics" in line for line in lines], [True, True])
        self.assertRegex(table, r"(?s)\A\+-: .*key cos.*\n\ntokens that .*max context")
        self.assertEqual(TQ.succeed("compare", self.out, self.out).code, 0)


if __name__ == "__main__":
    unittest.main()
