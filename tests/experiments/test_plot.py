"""tq plot: the Pareto front against Python's own, valid pictures, and no part of a file when something is wrong.

usage: test_plot.py TQ_BINARY FUSED_RESULTS
"""

import collections
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import unittest
import xml.etree.ElementTree
import zlib

from sweep_folder import read_lines, run_sweep, write_lines
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
        cls.sweep = run_sweep(TQ, SWEEP, os.path.join(cls.sweeps, "sweep"))
        cls.lines = read_lines(cls.sweep)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.sweeps)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.sweeps)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, lines):
        """A sweep of these lines; its folder."""
        return write_lines(tempfile.mkdtemp(dir=self.sweeps), lines)

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

    def commands(self, *arguments):
        """What gnuplot is given to draw."""
        programs = tempfile.mkdtemp(dir=self.sweeps)
        program, script = os.path.join(programs, "gnuplot"), os.path.join(programs, "script")
        with open(program, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n/bin/cat > '{script}'\necho '<svg/>'\n")
        os.chmod(program, 0o755)
        TQ.succeed("plot", *arguments, "--out", self.path("commands.svg"), environment={"PATH": programs})
        with open(script, encoding="utf-8") as file:
            return file.read()

    @staticmethod
    def blocks(script):
        """The data blocks by name, as rows of numbers."""
        return {name: [[float(cell) for cell in row.split()] for row in rows.splitlines()]
                for name, rows in re.findall(r"^\$(\w+) << EOD\n(.*?)EOD$", script, re.M | re.S)}

    def test_error_bars_are_the_intervals(self):
        lines = json.loads(json.dumps(self.lines))
        for line in lines:  # seeds that differ by a known amount
            line["metrics"]["output_error"]["mean"] = line["bytes_per_token"] * (1 + 0.02 * line["configuration"]["seed"])
        folder = self.write(lines)
        drawn = [row for name, rows in self.blocks(self.commands(folder)).items() if name.startswith("bars") for row in rows]
        self.assertTrue(drawn)
        for x, low, high in drawn:
            self.assertAlmostEqual((low + high) / 2, 1.01 * x, delta=1e-9 * x)
            # Student's quantile with one degree of freedom times the standard error of two values
            self.assertAlmostEqual(high - low, 2 * 12.706204736432095 * 0.01 * x, delta=1e-9 * x)
        for line in lines:
            line["metrics"]["output_error"]["mean"] = line["bytes_per_token"] * (1 + 1e-6 * line["configuration"]["seed"])
        self.assertNotIn("$bars", self.commands(self.write(lines)))

    def one_side(self, bits=(1, 2, 3, 4)):
        """Values alone are quantised: bits and two bytes a vector."""
        lines = []
        for b in bits:
            line = json.loads(json.dumps(self.lines[0]))
            line["key"] = f"{b}" * 64
            line["configuration"] = {"source": "gaussian", "d": 64, "key-mode": "none", "value-mode": "rotated", "value-bits": b}
            line.update(bytes_per_token=8 * b + 2, padded_bytes_per_token=8 * b + 2, fp16_bytes_per_token=128)
            mse = 2.5 * 4.0 ** -b
            line["metrics"] = {"value_relative_mse": {"mean": mse, "half_width": None},
                               "value_cosine": {"mean": (1 - mse / 3) ** 0.5, "half_width": None}}
            lines.append(line)
        return lines

    def test_rate_distortion_bound(self):
        folder = self.write(self.one_side())
        for metric in ("value_relative_mse", "value_cosine"):
            with self.subTest(metric=metric):
                bound = self.blocks(self.commands(folder, "--y", metric))["bound"]
                self.assertGreater(len(bound), 100)
                for x, y, _ in bound:
                    left = 4.0 ** (-8 * x / 64)
                    self.assertAlmostEqual(y, left if metric == "value_relative_mse" else (1 - left) ** 0.5, delta=1e-9)
                self.assertEqual((bound[0][0], round(bound[-1][0], 9)), (10, 34))
        TQ.succeed("plot", folder, "--out", self.path("plot.svg"))
        self.assertTrue(any("rate-distortion bound" in text for text in self.svg_texts(self.path("plot.svg"))))
        # Of both sides, and of attention, nothing is known.
        self.assertNotIn("$bound", self.commands(self.sweep, "--y", "value_relative_mse"))

    def test_numbers_of_close_points_keep_apart(self):
        lines = self.one_side(range(1, 9))
        for i, line in enumerate(lines):  # all within a few pixels
            line["bytes_per_token"] = 1000 + i
            line["metrics"]["value_relative_mse"]["mean"] = 0.5 - 1e-3 * i
        far = json.loads(json.dumps(lines[0])) | {"key": "f" * 64, "bytes_per_token": 100}
        far["configuration"]["value-bits"] = 9
        far["metrics"]["value_relative_mse"]["mean"] = 2
        folder = self.write(lines + [far])
        script = self.commands(folder)
        places = {int(number): (float(x), float(y)) for number, x, y in
                  re.findall(r"^set label '(\d+)' at screen ([\d.]+), screen ([\d.]+) center front$", script, re.M)}
        self.assertEqual(set(places), set(range(1, 10)))
        width, height = map(float, re.search(r"size (\d+),(\d+)", script).groups())
        for a in places:
            for b in places:
                if a < b:
                    apart = abs(places[a][0] - places[b][0]) * width, abs(places[a][1] - places[b][1]) * height
                    self.assertTrue(apart[0] >= 8 or apart[1] >= 13, (a, b, apart))
        self.assertIn("nohead", script)  # a line from those far off to their points

    def layered(self):
        """Two configurations of two seeds of a capture with three layers."""
        lines = []
        for bits in (2, 3):
            for seed in (0, 1):
                kl = {"mean": 2.0 ** -bits, "half_width": 0.01}
                layers = [{"layer": layer, "head_dim": 64, "bytes_per_token": 10, "metrics": {
                    "softmax_kl": {"mean": (layer + 1) * (1 + seed) * 2.0 ** -bits, "half_width": 0.01},
                    "top1_agreement": {"mean": 1 - 0.1 * (layer + 1) / bits, "half_width": 0.05}}} for layer in (0, 1, 5)]
                lines.append({"key": f"{bits}{seed}" * 32, "configuration": {"source": "x", "seed": seed, "key-mode": "mse",
                                                                           "key-bits": bits, "value-mode": "none"},
                              "bytes_per_token": 10 * bits, "metrics": {"softmax_kl": kl}, "layers": layers})
        return lines

    def test_layers(self):
        folder, out = self.write(self.layered()), self.path("layers.svg")
        answer = TQ.json("plot", folder, "--kind", "layers", "--out", out)
        self.assertEqual(answer["y"], "softmax_kl")
        self.assertEqual([series["label"] for series in answer["series"]],
                         ["keys mse 2, values exact", "keys mse 3, values exact"])
        for bits, series in zip((2, 3), answer["series"], strict=True):
            self.assertEqual([bar["layer"] for bar in series["bars"]], [0, 1, 5])
            for bar in series["bars"]:
                step = (bar["layer"] + 1) * 2.0 ** -bits
                self.assertAlmostEqual(bar["y"], 1.5 * step, delta=1e-12)
                self.assertAlmostEqual(bar["half_width"], 12.706204736432095 * 0.5 * step, delta=1e-9)
        texts = self.svg_texts(out)
        for text in ("layer", "0", "1", "5", "softmax KL (nats): lower is better", "keys mse 3, values exact"):
            self.assertIn(text, texts)
        script = self.commands(folder, "--kind", "layers")
        self.assertEqual([row[1] for row in self.blocks(script)["series1"]], [bar["y"] for bar in answer["series"][1]["bars"]])
        self.assertRegex(script, r"set yrange \[0:")
        self.assertIn("with boxes", script)
        self.assertIn("$bars0", script)

    def test_layers_of_what_is_better_the_higher_are_drawn_as_loss(self):
        answer = TQ.json("plot", self.write(self.layered()), "--kind", "layers", "--out", self.path("x.svg"), "--y",
                         "top1_agreement", "--only", "key-bits=2")
        (series,) = answer["series"]
        for bar in series["bars"]:
            self.assertAlmostEqual(bar["y"], 0.05 * (bar["layer"] + 1), delta=1e-12)
            self.assertEqual(bar["half_width"], 0.05)
        self.assertTrue(any(text.startswith("1 - top-1 agreement") for text in self.svg_texts(self.path("x.svg"))))

    def alphas(self):
        """KL as a parabola about another alpha for every sketch; targets beside numbers, as text or as such."""
        lines = []
        for sketch, best in (("gaussian", 0.5), ("orthogonal", 0.8)):
            for seed in (0, 1):
                for alpha in ("unbiased", "mse", "0.4", "1.2", 0.8):
                    used = {"unbiased": 1.2533, "mse": best + 0.01 * seed}.get(alpha) or float(alpha)
                    lines.append({"key": f"{len(lines):064}", "configuration": {
                        "source": "x", "seed": seed, "key-mode": "prod", "key-bits": 3, "sketch": sketch, "alpha": alpha,
                        "value-mode": "none"}, "alpha": used, "bytes_per_token": 52,
                        "metrics": {"softmax_kl": {"mean": 1 + (used - best) ** 2, "half_width": 0.1}}})
        return lines

    def test_alpha(self):
        lines = self.alphas()
        lines.append(json.loads(json.dumps(lines[0])) | {"key": "e" * 64})  # keys without a sketch are no curve
        lines[-1]["configuration"] = {"source": "x", "seed": 0, "key-mode": "mse", "key-bits": 3, "value-mode": "none"}
        folder, out = self.write(lines), self.path("alpha.svg")
        answer = TQ.json("plot", folder, "--kind", "alpha", "--out", out)
        self.assertEqual([curve["label"] for curve in answer["curves"]],
                         ["keys prod 3 gaussian, values exact", "keys prod 3 orthogonal, values exact"])
        for curve, best in zip(answer["curves"], (0.5, 0.8), strict=True):
            self.assertEqual([point["x"] for point in curve["points"]], [0.4, 0.8, 1.2])
            targets = {target["target"]: target for target in curve["targets"]}
            self.assertAlmostEqual(targets["mse"]["x"], best + 0.005, delta=1e-12)
            self.assertAlmostEqual(targets["unbiased"]["x"], 1.2533, delta=1e-12)
            for point in curve["points"] + [targets["unbiased"]]:
                self.assertAlmostEqual(point["y"], 1 + (point["x"] - best) ** 2, delta=1e-12)
        texts = self.svg_texts(out)
        for text in ("mse", "unbiased"):
            self.assertEqual(texts.count(text), 2)
        for part in ("alpha, ", "softmax KL (nats)", "keys prod 3 orthogonal", "what a target chooses"):
            self.assertTrue(any(part in text for text in texts), part)
        blocks = self.blocks(self.commands(folder, "--kind", "alpha"))
        self.assertEqual(sorted(row[0] for row in blocks["line0"]), [row[0] for row in blocks["line0"]])
        self.assertEqual((len(blocks["line0"]), len(blocks["points0"]), len(blocks["targets"])), (5, 3, 4))

    def test_targets_at_the_same_alpha_share_a_label(self):
        lines = self.alphas()
        mse = {(c["sketch"], c["seed"]): line for line in lines for c in [line["configuration"]] if c["alpha"] == "mse"}
        for line in lines:
            configuration = line["configuration"]
            if configuration["alpha"] == "unbiased" and configuration["sketch"] == "gaussian":
                same = mse["gaussian", configuration["seed"]]
                line.update(alpha=same["alpha"], metrics=same["metrics"])
        TQ.succeed("plot", self.write(lines), "--kind", "alpha", "--out", self.path("x.svg"))
        texts = self.svg_texts(self.path("x.svg"))
        self.assertEqual([texts.count(text) for text in ("mse, unbiased", "mse", "unbiased")], [1, 1, 1])

    def test_kinds_that_the_results_do_not_have(self):
        out = self.path("x.svg")
        self.refused(3, "no result has layers", arguments=(self.sweep, "--kind", "layers", "--out", out))
        self.refused(2, "no alpha there is a number", "--alpha", arguments=(self.sweep, "--kind", "alpha", "--out", out))
        self.refused(3, "no result has an alpha", arguments=(self.write(self.one_side()), "--kind", "alpha", "--out", out))
        self.refused(2, "--kind 'bars'", arguments=(self.sweep, "--kind", "bars", "--out", out))
        self.refused(2, "--x is for", arguments=(self.sweep, "--kind", "alpha", "--x", "bytes", "--out", out))
        many = [line | {"key": f"{bits:064}", "configuration": line["configuration"] | {"key-bits": bits}}
                for bits in range(1, 10) for line in self.layered()[:1]]
        self.refused(2, "9 configurations are more than the 8", "by key-bits",
                     arguments=(self.write(many), "--kind", "layers", "--out", out))
        TQ.succeed("plot", self.write(many[:8]), "--kind", "layers", "--out", out)

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
