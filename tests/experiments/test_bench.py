"""tq bench without a GPU, and what tq compare and tq plot make of its files.

usage: test_bench.py TQ_BINARY
"""

import json
import os
import shutil
import sys
import tempfile
import unittest
import xml.etree.ElementTree

from bench_json import PROBE, failed_row, row, write_bench
from tq_program import Program

TQ = Program(sys.argv[1])
del sys.argv[1:]

NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}  # also where there is one


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tq-bench-")
        self.addCleanup(folder.cleanup)
        self.path = lambda name: os.path.join(folder.name, name)

    def refused(self, code, arguments, *parts, **options):
        result = TQ.run(*arguments, **options)
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)


class BenchTest(Files):
    def test_no_gpu(self):
        out = self.path("bench.json")
        self.refused(4, ["bench", "--json", out], "no ", "need one", environment=NO_GPU)
        self.assertFalse(os.path.exists(out))

    def test_arguments(self):
        self.refused(2, ["bench", "--only", "atend"], "'atend'", "'attend'")
        self.refused(2, ["bench", "--only", "wht,"], "''")
        self.refused(2, ["bench", "--only", ""], "''")
        self.refused(2, ["bench", "--seed", "many"], "seed")
        text = TQ.succeed("bench", "--help").out
        for family in ("wht", "encode", "score", "attend", "append", "prefill", "first", "size", "capacity"):
            self.assertIn(f"{family} (", " ".join(text.split()))
        self.assertIn("example: tq bench", text)


class CompareTest(Files):
    def compare(self, code, a, b):
        """The JSON answer; also checks that the text's exit code is the same."""
        paths = write_bench(self.path("a.json"), a), write_bench(self.path("b.json"), b)
        result = TQ.run("compare", *paths, "--json")
        self.assertEqual(result.code, code, result.err)
        text = TQ.run("compare", *paths)
        self.assertEqual(text.code, code)
        self.text = text.out
        return json.loads(result.out)

    def test_rows_are_matched_by_name_whatever_their_order(self):
        a = [row("x", 10), row("y", 20), row("z", 30)]
        answer = self.compare(0, a, a[::-1])
        self.assertEqual((answer["in_both"], answer["changed"]), (3, []))
        answer = self.compare(1, a, [row("z", 30), row("x", 20), row("y", 20)])
        (change,) = answer["changed"]
        self.assertEqual((change["name"], change["verdict"]), ("x", "slower"))
        self.assertEqual((change["a"]["median_us"], change["b"]["median_us"]), (10, 20))
        self.assertIn("2.000", self.text)

    def test_directions(self):
        for median, code, verdict in ((11, 1, "slower"), (9, 0, "faster")):
            (change,) = self.compare(code, [row("x", 10)], [row("x", median)])["changed"]
            self.assertEqual(change["verdict"], verdict)
            self.assertIn(f"{median / 10:.3f}", self.text)

    def test_spreads_that_overlap_are_no_difference(self):
        for spread, code in ((0.10, 0), (0.02, 1)):
            answer = self.compare(code, [row("x", 10, spread)], [row("x", 11, spread)])
            self.assertEqual(len(answer["changed"]), code)

    def test_two_percent_are_no_difference_however_narrow_the_spread(self):
        for median, code in ((10.19, 0), (10.21, 1), (9.81, 0)):
            answer = self.compare(code, [row("x", 10, 1e-4)], [row("x", median, 1e-4)])
            self.assertEqual(len(answer["changed"]), code)

    def test_wrong_results(self):
        (change,) = self.compare(1, [row("x", 10), row("y", 10)], [failed_row("x"), row("y", 10)])["changed"]
        self.assertEqual((change["verdict"], change["b"]), ("wrong", None))
        self.assertIn("FAILED", self.text)
        (change,) = self.compare(0, [failed_row("x")], [row("x", 10)])["changed"]
        self.assertEqual(change["verdict"], "right")
        self.assertEqual(self.compare(0, [failed_row("x")], [failed_row("x")])["changed"], [])

    def test_rows_of_one_file_only(self):
        answer = self.compare(0, [row("x", 1), row("old", 1)], [row("new", 1), row("x", 1)])
        self.assertEqual((answer["in_both"], answer["only_in_a"], answer["only_in_b"]), (1, ["old"], ["new"]))
        self.assertIn("only in A:\n  old\n", self.text)
        self.assertIn("only in B:\n  new\n", self.text)

    def test_two_devices_are_named(self):
        a = write_bench(self.path("a.json"), [row("x", 10)])
        b = write_bench(self.path("b.json"), [row("x", 10)], device="GPU Y")
        self.assertIn("Two devices", TQ.succeed("compare", a, b).out)

    def test_what_is_no_bench(self):
        a = write_bench(self.path("a.json"), [row("x", 10)])
        b = self.path("b.json")
        for rows, *parts in (([row("y", 10)], "no row in common"), ([row("x", 10), row("x", 11)], "second row 'x'"),
                             ([row("x", -1)], "rows[0].median_us"), ([row("x", 10) | {"median_us": "10"}], "rows[0].median_us"),
                             ([{"name": "x"}], "rows[0]", "median_us"), ([{}], "name"), (3, "rows")):
            with self.subTest(rows=rows):
                write_bench(b, rows)
                self.refused(3, ["compare", a, b], *parts)
        with open(b, "w", encoding="utf-8") as file:
            file.write('{"device": ')
        self.refused(3, ["compare", a, b], b)
        self.refused(2, ["compare", a, os.path.dirname(a)], "is a file")


@unittest.skipUnless(shutil.which("gnuplot"), "gnuplot (Debian: gnuplot-nox) is not installed")
class PlotTest(Files):
    def rows(self):
        rows = [row(f"attend {codec} {tokens}", tokens * bytes_ / 2.5e6 + 6, codec=codec, bytes=float(tokens * bytes_))
                for codec, bytes_ in (("binary16", 4096), ("mse4-nc / rotated4-nc", 1056))
                for tokens in (4096, 16384, 131072)]
        rows.append(row("score", 100, codec="mse3-nc", bytes=2e8, family="score"))
        rows.append(row("wht", 100, bytes=1e9, family="wht"))  # no part of the plot
        rows.append(row("attend alone", 12))  # nor what has no bytes
        rows.append(failed_row("attend wrong"))
        return rows

    def test_roofline(self):
        file, out = write_bench(self.path("bench.json"), self.rows()), self.path("plot.svg")
        answer = TQ.json("plot", file, "--out", out)
        self.assertEqual([series["label"] for series in answer["series"]],
                         ["attend binary16", "attend mse4-nc / rotated4-nc", "score mse3-nc"])
        self.assertEqual([(p["x"], p["y"]) for p in answer["series"][2]["points"]], [(200, 100)])
        self.assertEqual([len(series["points"]) for series in answer["series"]], [3, 3, 1])
        self.assertAlmostEqual(answer["probe_bytes_per_us"], PROBE["bytes"] / PROBE["median_us"], delta=1e-3)
        texts = ["".join(text.itertext()).strip() for text in
                 xml.etree.ElementTree.parse(out).getroot().iter("{http://www.w3.org/2000/svg}text")]
        for text in ("MB that must move", "read probe, 3.07 TB/s", "attend binary16", "GPU X, revision abc"):
            self.assertIn(text, texts)
        text = TQ.succeed("plot", file, "--out", out).out
        # 200 MB at the probe's rate take 65.2 us
        self.assertRegex(text, r"score mse3-nc +200\.00 +100\.00 +2\.00 +65\.2 %")

    def test_size(self):
        sizes = [(1, 4096, 128, 9), (1, 256, 128, 8), (1, 65536, 128, 20), (8, 4096, 128, 30), (8, 16384, 64, 40)]
        rows = [row(f"size {codec} {size}", time * factor, codec=codec, family="size", bytes=1.0, kv_heads=8, group=8,
                    batch=size[0], tokens=size[1], d=size[2])
                for codec, factor in (("binary16", 2), ("mse4-nc", 1)) for *size, time in sizes]
        file, out = write_bench(self.path("bench.json"), [*rows, *self.rows()]), self.path("plot.svg")
        answer = TQ.json("plot", file, "--out", out, "--kind", "size")
        self.assertEqual([series["label"] for series in answer["series"]], ["binary16", "mse4-nc"])
        self.assertEqual([(p["x"], p["y"]) for p in answer["series"][1]["points"]], [(256, 8), (4096, 9), (65536, 20)])
        self.assertEqual([(p["x"], p["y"]) for p in TQ.json("plot", file, "--out", out, "--kind", "size", "--x", "batch")
                          ["series"][0]["points"]], [(1, 18), (8, 60)])
        text = TQ.succeed("plot", file, "--out", out, "--kind", "size").out
        self.assertRegex(text, r"mse4-nc +256 +8\.00\n +4096 +9\.00")
        texts = ["".join(text.itertext()).strip() for text in
                 xml.etree.ElementTree.parse(out).getroot().iter("{http://www.w3.org/2000/svg}text")]
        for text in ("tokens", "microseconds: lower is better", "mse4-nc", "GPU X, revision abc: batch 1, d 128"):
            self.assertIn(text, texts)

    def test_refusals(self):
        file, out = write_bench(self.path("bench.json"), self.rows()), self.path("plot.svg")
        for option, value in (("--kind", "pareto"), ("--x", "bytes"), ("--y", "softmax_kl"), ("--only", "seed=1")):
            self.refused(2, ["plot", file, "--out", out, option, value], option)
        self.refused(2, ["plot", file, "--out", out, "--kind", "size", "--x", "bytes"], "tokens, batch, d")
        self.refused(2, ["plot", file, "--out", out, "--kind", "size", "--only", "d=64"], "--only")
        self.refused(3, ["plot", file, "--out", out, "--kind", "size"], "no row of size", "--only size")
        self.refused(2, ["plot", os.path.dirname(file), "--out", out, "--kind", "size"], "tq bench --json")
        self.refused(2, ["plot", file, "--out", self.path("plot.pdf")], ".svg")
        self.refused(3, ["plot", write_bench(self.path("w.json"), [row("w", 1, family="wht", bytes=1.0)]), "--out", out],
                     "nothing to plot")
        with open(file, "w", encoding="utf-8") as stream:
            json.dump({"device": "d", "revision": "r", "rows": self.rows()}, stream)
        self.refused(3, ["plot", file, "--out", out], "read probe")
        self.assertFalse(os.path.exists(out))


if __name__ == "__main__":
    unittest.main()
