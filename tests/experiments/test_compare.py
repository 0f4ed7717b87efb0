"""tq compare: what differs beyond its uncertainty, which way, and what it says of folders that hold no sweep.

usage: test_compare.py TQ_BINARY FUSED_RESULTS
"""

import json
import math
import os
import shutil
import sys
import tempfile
import unittest

from sweep_folder import read_lines, run_sweep, write_lines
from tq_program import Program

TQ, FUSED = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:]

SWEEP = """[sweep]
d = 64
rows = 600
queries = 16
key-mode = mse, prod
key-bits = 2, 3
alpha = mse
value-bits = 2, 4
"""
ROWS = 8


class CompareTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sweeps = tempfile.mkdtemp(prefix="tq-compare-")
        cls.a = run_sweep(TQ, SWEEP, os.path.join(cls.sweeps, "a"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.sweeps)

    def setUp(self):
        self.b = tempfile.mkdtemp(dir=self.sweeps)

    def lines(self, folder=None):
        return read_lines(folder or self.a)

    def write(self, lines, tail=""):
        """Lines, or texts, as the sweep in B."""
        write_lines(self.b, lines, tail)

    def compare(self, code, a=None):
        """The JSON answer; also checks that the text's exit code is the same."""
        result = TQ.run("compare", a or self.a, self.b, "--json")
        self.assertEqual(result.code, code, result.err)
        text = TQ.run("compare", a or self.a, self.b)
        self.assertEqual(text.code, code)
        self.text = text.out
        return json.loads(result.out)

    def doctored(self, metric, move, code, index=3):
        """The one difference when `move` changes a metric of one row."""
        lines = self.lines()
        move(lines[index]["metrics"][metric])
        self.write(lines)
        answer = self.compare(code)
        self.assertEqual([row["key"] for row in answer["changed"]], [lines[index]["key"]])
        (difference,) = answer["changed"][0]["differences"]
        self.assertEqual(difference["metric"], metric)
        self.assertIn(metric, self.text)
        return difference

    def test_a_sweep_against_itself(self):
        self.write(self.lines())
        answer = self.compare(0)
        self.assertEqual((answer["in_both"], answer["worse"], answer["better"]), (ROWS, 0, 0))
        self.assertEqual((answer["changed"], answer["only_in_a"], answer["only_in_b"]), ([], [], []))
        self.assertEqual(self.text, "8 configurations in both, 0 only in A, 0 only in B; 0 of those in both differ: "
                                    "0 metrics worse in B, 0 better\n")

    def test_directions(self):
        for metric, sign in (("key_relative_mse", 1), ("key_cosine", -1), ("softmax_kl", 1), ("top1_agreement", -1),
                             ("value_relative_mse", 1), ("value_cosine", -1), ("output_error", 1),
                             ("inner_product_variance", 1), ("inner_product_error", 1)):
            for harm, code, verdict in ((1, 1, "worse"), (-1, 0, "better")):
                with self.subTest(metric=metric, verdict=verdict):
                    def move(value, step=harm * sign):
                        value["mean"] += step * 3 * value["half_width"]
                    self.assertEqual(self.doctored(metric, move, code)["verdict"], verdict)

    def test_half_widths_are_respected(self):
        for times, differs in ((1.40, False), (1.43, True)):  # of the root of two
            with self.subTest(times=times):
                lines = self.lines()
                value = lines[0]["metrics"]["softmax_kl"]
                value["mean"] += times * value["half_width"]
                self.write(lines)
                answer = self.compare(1 if differs else 0)
                self.assertEqual(len(answer["changed"]), int(differs))
        allowed = answer["changed"][0]["differences"][0]["allowed"]
        self.assertAlmostEqual(allowed, math.sqrt(2) * value["half_width"], delta=1e-9 * allowed)

    def test_a_half_width_of_one_side_counts(self):
        lines = self.lines()
        value = lines[0]["metrics"]["softmax_kl"]
        half_width = value["half_width"]
        value.update(mean=value["mean"] + 1.2 * half_width, half_width=None)
        self.write(lines)
        self.assertEqual(self.compare(1)["changed"][0]["differences"][0]["allowed"], half_width)

    def test_bias_is_better_nearer_zero(self):
        def set_bias(lines, mean):
            lines[2]["metrics"]["inner_product_bias"] = {"mean": mean, "half_width": 0.001}
        for a, b, code, verdict in ((-0.01, -0.05, 1, "worse"), (0.01, -0.05, 1, "worse"), (-0.05, 0.01, 0, "better"),
                                    (-0.03, 0.03, 0, "differs")):
            with self.subTest(a=a, b=b):
                lines = self.lines()
                set_bias(lines, a)
                self.write(lines)
                first = self.b
                self.b = tempfile.mkdtemp(dir=self.sweeps)
                set_bias(lines, b)
                self.write(lines)
                self.assertEqual(self.compare(code, a=first)["changed"][0]["differences"][0]["verdict"], verdict)

    def test_bytes_and_compression(self):
        lines = self.lines()
        lines[1]["bytes_per_token"] += 1
        lines[2]["compression"] *= 1.01
        self.write(lines)
        answer = self.compare(1)
        found = {row["key"]: [(d["metric"], d["verdict"]) for d in row["differences"]] for row in answer["changed"]}
        self.assertEqual(found, {lines[1]["key"]: [("bytes_per_token", "worse")],
                                 lines[2]["key"]: [("compression", "better")]})

    def test_layers_that_differ_where_the_mean_does_not(self):
        lines = self.lines()[:1]
        for layer in range(3):
            metrics = json.loads(json.dumps(lines[0]["metrics"]))
            lines[0].setdefault("layers", []).append({"layer": layer, "metrics": metrics})
        self.write(lines)
        first = self.b
        self.b = tempfile.mkdtemp(dir=self.sweeps)
        for layer, step in zip(lines[0]["layers"], (3, -3, 1)):
            value = layer["metrics"]["softmax_kl"]
            value["mean"] += step * value["half_width"]
        self.write(lines)
        (row,) = self.compare(1, a=first)["changed"]
        self.assertEqual([(d["metric"], d["layer"], d["verdict"]) for d in row["differences"]],
                         [("softmax_kl", 0, "worse"), ("softmax_kl", 1, "better")])
        self.assertIn("softmax_kl, layer 1", self.text)
        value = lines[0]["metrics"]["softmax_kl"]  # of all layers: one line says it
        value["mean"] += 3 * value["half_width"]
        self.write(lines)
        (row,) = self.compare(1, a=first)["changed"]
        self.assertEqual([(d["metric"], d["layer"]) for d in row["differences"]], [("softmax_kl", None)])

    def test_what_is_no_longer_measured_is_worse(self):
        def lose(value):
            value["mean"] = None
        difference = self.doctored("softmax_kl", lose, 1)
        self.assertIsNone(difference["b"])

    def test_rows_of_one_sweep_only(self):
        lines = self.lines()
        strange = json.loads(json.dumps(lines[0]))
        strange["key"] = "0" * 64
        strange["configuration"]["seed"] = 77
        self.write(lines[2:] + [strange])
        answer = self.compare(0)
        self.assertEqual(answer["in_both"], ROWS - 2)
        self.assertEqual({row["key"] for row in answer["only_in_a"]}, {line["key"] for line in lines[:2]})
        self.assertEqual([row["key"] for row in answer["only_in_b"]], ["0" * 64])
        self.assertIn("only in A:", self.text)
        self.assertIn("seed=77", self.text)

    def test_plain_numbers_of_fused_rows(self):
        lines = self.lines(FUSED)
        for factor, code in ((1 + 5e-7, 0), (1 + 2e-6, 1), (1 - 2e-6, 0)):
            with self.subTest(factor=factor):
                changed = json.loads(json.dumps(lines))
                changed[0]["metrics"]["relative_error"] *= factor
                self.write(changed)
                self.assertEqual(len(self.compare(code, a=FUSED)["changed"]), int(abs(factor - 1) > 1e-6))
        lines[4]["pass"] = False
        lines[5]["metrics"]["max_error"] = None
        self.write(lines)
        answer = self.compare(1, a=FUSED)
        self.assertEqual({(d["metric"], d["verdict"]) for row in answer["changed"] for d in row["differences"]},
                         {("pass", "worse"), ("max_error", "worse")})

    def test_a_cut_last_line_is_left_out(self):
        lines = self.lines()
        self.write(lines[:-1], tail=json.dumps(lines[-1], separators=(",", ":"))[:200])
        answer = self.compare(0)
        self.assertEqual([row["key"] for row in answer["only_in_a"]], [lines[-1]["key"]])

    def refused(self, code, *parts, arguments=None):
        result = TQ.run("compare", *(arguments or (self.a, self.b)))
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)

    def test_damaged_lines(self):
        lines = self.lines()
        text = [json.dumps(line, separators=(",", ":")) for line in lines]
        self.write(text[:4] + [text[4][:300]] + text[5:])
        self.refused(3, "results.jsonl: line 5")
        for value in ("much", {"mean": "much", "half_width": 1}, {"mean": 1}, {"mean": 1, "half_width": -1}, [1], True):
            with self.subTest(value=value):
                lines[2]["metrics"]["softmax_kl"] = value
                self.write(lines)
                self.refused(3, "results.jsonl", lines[2]["key"][:12], "softmax_kl")
        for damage in ({"configuration": 3}, {"metrics": []}, {"bytes_per_token": "many"}, {"pass": 1},
                       {"configuration": {"seed": [1]}}):
            with self.subTest(damage=damage):
                self.write([self.lines()[0] | damage])
                self.refused(3, "results.jsonl", next(iter(damage)))

    def test_what_holds_no_sweep(self):
        self.refused(2, self.b, "holds no sweep")
        self.refused(2, "holds no sweep", arguments=(self.a, "/no/such/folder"))
        self.refused(2, "--b is missing", arguments=(self.a,))
        self.write(self.lines(FUSED))
        self.refused(3, "no configuration in common")


if __name__ == "__main__":
    unittest.main()
