"""tq plot: the Pareto front against Python's own, valid pictures, and no part of a file when something is wrong.

usage: test_plot.py TQ_BINARY FUSED_RESULTS
"""

import collections
import json
import os
import shutil
import struct
import sys
import tempfile
import unittest
import xml.etree.ElementTree
import zlib

from tq_program import Program

TQ, FUSED = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:]

SWEEP = """[sweep]
d = 64
rows = 600
queries = 16
key-mode = mse, prod
key-bits = 2, 3, 4
alpha = mse
value-mode = rotated, group
value-bits = 2, 3, 4
group-size = 16, 32
seed = 0, 1
"""
METRICS = {"softmax_kl": "lower", "output_error": "lower", "value_relative_mse": "lower", "key_cosine": "higher",
           "top1_agreement": "higher", "inner_product_bias": "zero"}


def picture_size(png):
    """Of a PNG whose chunks are all there and whole."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, names = 8, []
    while at < len(png):
        (length,) = struct.unpack(">I", png[at:at + 4])
        name, body = png[at + 4:at + 8], png[at + 8:at + 8 + length]
        (checksum,) = struct.unpack(">I", png[at + 8 + length:at + 12 + length])
        assert checksum == zlib.crc32(name + body)
        names.append(name)
        at += 12 + length
    assert names[0] == b"IHDR" and names[-1] == b"IEND"
    return struct.unpack(">II", png[16:24])


@unittest.skipUnless(shutil.which("gnuplot"), "gnuplot (Debian: gnuplot-nox) is not installed")
class PlotTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sweeps = tempfile.mkdtemp(prefix="tq-plot-")
        config = os.path.join(cls.sweeps, "sweep.ini")
        with open(config, "w", encoding="utf-8") as file:
            file.write(SWEEP)
        cls.sweep = os.path.join(cls.sweeps, "sweep")
        TQ.succeed("sweep", "--config", config, "--out", cls.sweep)
        with open(os.path.join(cls.sweep, "results.jsonl"), encoding="utf-8") as file:
            cls.lines = [json.loads(line) for line in file]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.sweeps)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.sweeps)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, lines):
        """A sweep of these lines; its folder."""
        folder = tempfile.mkdtemp(dir=self.sweeps)
        with open(os.path.join(folder, "results.jsonl"), "w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
        return folder

    def expected_points(self, metric, x="bytes_per_token"):
        seeds = collections.defaultdict(list)
        for line in self.lines:
            name = json.dumps({axis: v for axis, v in line["configuration"].items() if axis != "seed"}, sort_keys=True)
            seeds[name].append((line[x], line["metrics"][metric]["mean"]))
        points = {}
        for name, values in seeds.items():
            self.assertEqual(len(values), 2)
            mean = sum(y for _, y in values) / len(values)
            points[name] = (values[0][0], abs(mean) if METRICS[metric] == "zero" else mean)
        return points

    @staticmethod
    def expected_front(points, higher):
        """Of all points, those that no other point is at least as good as in both and better in one."""
        sign = -1 if higher else 1
        unique = set(points)
        return sorted(p for p in unique
                      if not any(q != p and q[0] <= p[0] and sign * q[1] <= sign * p[1] for q in unique))

    def near(self, actual, expected):
        self.assertEqual(len(actual), len(expected))
        for (x, y), (expected_x, expected_y) in zip(actual, expected):
            self.assertEqual(x, expected_x)
            self.assertAlmostEqual(y, expected_y, delta=1e-12 * abs(expected_y))

    def test_front_is_that_of_an_independent_search(self):
        for metric, better in METRICS.items():
            for x, key in (("bytes", "bytes_per_token"), ("padded", "padded_bytes_per_token")):
                with self.subTest(metric=metric, x=x):
                    out = self.path("front.svg")
                    answer = TQ.json("plot", self.sweep, "--out", out, "--y", metric, "--x", x)
                    expected = self.expected_points(metric, key)
                    found = {json.dumps(p["configuration"], sort_keys=True): (p["x"], p["y"])
                             for p in answer["points"]}
                    self.assertEqual(found.keys(), expected.keys())
                    self.near([found[name] for name in expected], list(expected.values()))
                    front = [answer["points"][i] for i in answer["front"]]
                    self.near([(p["x"], p["y"]) for p in front],
                              self.expected_front(expected.values(), better == "higher"))
                    texts = self.svg_texts(out)
                    for number, point in enumerate(front, 1):
                        self.assertIn(point["label"], texts)
                        self.assertEqual(texts.count(str(number)), 2)  # beside the mark and in the list

    @staticmethod
    def svg_texts(path):
        root = xml.etree.ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]

    def test_svg_has_axes_with_units_and_a_key(self):
        out = self.path("plot.svg")
        text = TQ.succeed("plot", self.sweep, "--out", out, "--y", "softmax_kl").out
        self.assertIn(f"{out} is written", text)
        texts = self.svg_texts(out)
        self.assertTrue(any("bytes a token" in t for t in texts))
        self.assertTrue(any("softmax KL (nats)" in t for t in texts))
        for keys in ("mse", "prod"):
            for values in ("rotated", "group"):
                self.assertIn(f"keys {keys}, values {values}, and their front", texts)
        self.assertEqual(os.listdir(self.folder), ["plot.svg"])

    def test_baselines_are_one_group_and_a_codec_is_its_own(self):
        config, folder, out = self.path("modes.ini"), self.path("modes"), self.path("plot.svg")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[sweep]\nd=64\nrows=64\nqueries=8\nkey-mode=fp8,trellis\nvalue-mode=q4_0,minmax8,trellis\n")
        TQ.succeed("sweep", "--config", config, "--out", folder)
        TQ.succeed("plot", folder, "--out", out)
        texts = self.svg_texts(out)
        for group in ("baselines", "keys baseline, values trellis", "keys trellis, values baseline",
                      "keys trellis, values trellis"):
            self.assertEqual(sum(text.startswith(f"{group}, and their front") for text in texts), 1, (group, texts))

    def test_png(self):
        out = self.path("plot.png")
        TQ.succeed("plot", self.sweep, "--out", out)
        with open(out, "rb") as file:
            width, height = picture_size(file.read())
        self.assertGreater(width, 1000)
        self.assertGreater(height, 600)

    def test_same_results_same_plot(self):
        pictures = []
        for name in ("a.svg", "b.svg"):
            TQ.succeed("plot", self.sweep, "--out", self.path(name))
            with open(self.path(name), "rb") as file:
                pictures.append(file.read())
        self.assertEqual(*pictures)

    def test_one_row_and_rows_with_equal_or_zero_values(self):
        line = json.loads(json.dumps(self.lines[0]))
        for lines in ([line], [line, line | {"key": "1" * 64, "configuration": line["configuration"] | {"key-bits": 3}}]):
            answer = TQ.json("plot", self.write(lines), "--out", self.path("one.svg"))
            self.assertEqual((len(answer["points"]), len(answer["front"])), (len(lines), 1))
        line["metrics"]["output_error"]["mean"] = 0
        answer = TQ.json("plot", self.write([line]), "--out", self.path("zero.svg"))
        self.assertEqual(answer["points"][0]["y"], 0)

    def refused(self, code, *parts, arguments, environment=None):
        result = TQ.run("plot", *arguments, environment=environment)
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)
        self.assertEqual(os.listdir(self.folder), [])

    def test_without_gnuplot(self):
        out = self.path("plot.svg")
        for path in ("", tempfile.mkdtemp(dir=self.sweeps)):
            self.refused(4, "gnuplot is not installed", "gnuplot-nox", arguments=(self.sweep, "--out", out),
                         environment={"PATH": path})

    def test_gnuplot_that_fails_leaves_the_old_plot(self):
        programs = tempfile.mkdtemp(dir=self.sweeps)
        program = os.path.join(programs, "gnuplot")
        for script, part in (("echo '<svg'; echo 'line 3: no such terminal' >&2; exit 1", "line 3: no such terminal"),
                             ("exit 0", "gnuplot failed"), ("echo '<svg'; kill -9 $$", "gnuplot failed")):
            with self.subTest(script=script):
                with open(program, "w", encoding="utf-8") as file:
                    file.write(f"#!/bin/sh\n{script}\n")
                os.chmod(program, 0o755)
                self.refused(4, part, arguments=(self.sweep, "--out", self.path("plot.svg")),
                             environment={"PATH": programs})

    def test_wrong_options(self):
        out = self.path("plot.svg")
        self.refused(2, "neither .svg nor .png", arguments=(self.sweep, "--out", self.path("plot.pdf")))
        self.refused(2, "--out is missing", arguments=(self.sweep,))
        self.refused(2, "did you mean 'softmax_kl'", arguments=(self.sweep, "--out", out, "--y", "softmax-kl"))
        self.refused(2, "--x 'tokens'", arguments=(self.sweep, "--out", out, "--x", "tokens"))
        self.refused(2, "holds no sweep", arguments=(self.folder, "--out", out))
        self.refused(3, "nothing to plot", arguments=(FUSED, "--out", out))
        self.refused(2, "--only leaves no result", arguments=(self.sweep, "--out", out, "--only", "key-bits=7"))
        self.refused(4, "cannot write", arguments=(self.sweep, "--out", self.path("no/such/folder/plot.svg")))

    def test_several_inputs_need_a_choice(self):
        other = [line | {"key": line["key"][::-1], "configuration": line["configuration"] | {"source": "laplace"}}
                 for line in self.lines]
        both = self.write(self.lines + other)
        self.refused(2, "--only source=", arguments=(both, "--out", self.path("plot.svg")))
        answer = TQ.json("plot", both, "--out", self.path("plot.svg"), "--only", "source=gaussian", "--only",
                         "key-mode=mse")
        self.assertEqual({(p["configuration"]["source"], p["configuration"]["key-mode"]) for p in answer["points"]},
                         {("gaussian", "mse")})

    def test_text_of_a_stranger_is_only_text(self):
        evil = "x'; system 'touch GOT'\n`touch GOT` \"$(touch GOT)\" <&>"
        lines = [line | {"configuration": line["configuration"] | {"source": evil, "value-mode": evil}}
                 for line in self.lines]
        TQ.succeed("plot", self.write(lines), "--out", self.path("plot.svg"), cwd=self.folder)
        self.assertEqual(os.listdir(self.folder), ["plot.svg"])
        self.assertTrue(any("`touch GOT`" in text for text in self.svg_texts(self.path("plot.svg"))))


if __name__ == "__main__":
    unittest.main()
