"""tq report: the Markdown's numbers against NumPy's from the result lines, published figures, and nothing left when
something is wrong.

usage: test_report.py TQ_BINARY FUSED_RESULTS CONFIG_FOLDER
"""

import glob
import json
import os
import re
import shutil
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import numpy as np

from sweep_folder import read_lines, run_sweep, write_lines
from tq_program import Program, write_random_capture

TQ, FUSED, CONFIGS = Program(sys.argv[1]), sys.argv[2], sys.argv[3]
del sys.argv[1:]

SWEEP = """[sweep]
d = 64
rows = 500
queries = 0
key-mode = none
value-mode = rotated, group, fp16
value-bits = 2, 3
seed = 0, 1, 2
"""
T_95 = {2: 12.706204736432095, 3: 4.302652729911275}  # Student's quantile of 97.5 % for so many seeds
FIGURE = {"where": {"value-mode": "group", "value-bits": 2}, "metric": "value_cosine", "value": 0.9, "tolerance": 0.2,
          "source": "a table"}


def tables(markdown):
    """Every table of a report under the last heading before it: lists of {column: cell}."""
    found, heading, header = {}, "", None
    for line in markdown.split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            header = None
            continue
        cells = [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if header is None:
            header, found[heading] = cells, []
        elif set(line) != set("|-"):
            assert len(cells) == len(header), line
            found[heading].append(dict(zip(header, cells)))
    return found


class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sweeps = tempfile.mkdtemp(prefix="tq-report-")
        cls.sweep = run_sweep(TQ, SWEEP, os.path.join(cls.sweeps, "sweep"))
        cls.lines = read_lines(cls.sweep)
        cls.capture = os.path.join(cls.sweeps, "capture")
        TQ.succeed("sweep", "--source", "capture:" + write_random_capture(os.path.join(cls.sweeps, "x.kv.h5"), head_dim=64),
                   "--key-bits", "2,3", "--value-bits", "2,3", "--out", cls.capture)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.sweeps)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.sweeps)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, lines, **files):
        """A sweep of these lines, with more files; its folder."""
        folder = write_lines(tempfile.mkdtemp(dir=self.sweeps), lines)
        for name, text in files.items():
            with open(os.path.join(folder, name.replace("_", ".")), "w", encoding="utf-8") as file:
                file.write(text)
        return folder

    def rows(self):
        """Of the sweep: (value mode, bits) to all lines of its seeds."""
        rows = {}
        for line in self.lines:
            configuration = line["configuration"]
            rows.setdefault((configuration["value-mode"], str(configuration.get("value-bits", "-"))), []).append(line)
        return rows

    @staticmethod
    def interval(lines, metric):
        means = np.array([line["metrics"][metric]["mean"] for line in lines])
        return means.mean(), T_95[len(means)] * means.std(ddof=1) / np.sqrt(len(means))

    def near(self, cell, mean, half_width):
        """Both numbers of a cell, to the last digit that is shown."""
        shown_mean, shown_width = cell.split(" ± ")
        for shown, value in ((shown_mean, mean), (shown_width, half_width)):
            mantissa, _, exponent = shown.partition("e")
            digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
            self.assertAlmostEqual(float(shown), value, delta=0.51 * digit, msg=cell)
        self.assertNotEqual(float(shown_width), 0)

    def test_tables_hold_the_means_and_intervals(self):
        found = tables(TQ.succeed("report", self.sweep).out)
        table = found["All 5 configurations"]
        rows = self.rows()
        self.assertEqual({(row["value-mode"], row["value-bits"]) for row in table}, set(rows))
        for row in table:
            lines = rows[row["value-mode"], row["value-bits"]]
            self.assertEqual(len(lines), 3)
            self.near(row["relative MSE of values"], *self.interval(lines, "value_relative_mse"))
            if row["value-mode"] != "fp16":  # a cosine of 1 has no digits left
                self.near(row["cosine of values"], *self.interval(lines, "value_cosine"))
            self.assertEqual(float(row["bytes a token"]), lines[0]["bytes_per_token"])
            self.assertEqual(row["compression against FP16"], f"{lines[0]['compression']:.2f}x")

    def test_front_is_that_of_an_independent_search(self):
        front = tables(TQ.succeed("report", self.sweep).out)["Pareto front: bytes a token against relative MSE of values"]
        points = {key: (lines[0]["bytes_per_token"], self.interval(lines, "value_relative_mse")[0])
                  for key, lines in self.rows().items()}
        expected = sorted(p for p in points.values() if not any(q != p and q[0] <= p[0] and q[1] <= p[1]
                                                                for q in points.values()))
        self.assertEqual([row[""] for row in front], [str(i + 1) for i in range(len(expected))])
        for row, (x, y) in zip(front, expected, strict=True):
            self.assertEqual(float(row["bytes a token"]), x)
            self.assertAlmostEqual(float(row["relative MSE of values"].split(" ± ")[0]), y, delta=0.01 * y)

    def test_manifest(self):
        with open(os.path.join(self.capture, "manifest.json"), encoding="utf-8") as file:
            (run,) = json.load(file)["runs"]
        text = TQ.succeed("report", self.capture).out
        (row,) = tables(text)["What was measured"]
        self.assertEqual((row["revision"], row["begun (UTC)"], row["measured"]),
                         (run["git_revision"], run["utc_start"], str(run["measured"])))
        self.assertIn(run["cpu"], row["machine"])
        self.assertIn("\n    " + run["command_line"] + "\n", text)
        self.assertIn(run["inputs"][0]["sha256"], text)
        self.assertEqual(set(run["inputs"][0]), {"source", "sha256"})
        self.assertIn("no manifest", TQ.succeed("report", self.write(self.lines)).out)

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot (Debian: gnuplot-nox) is not installed")
    def test_plots_lie_beside_the_report(self):
        out = self.path("results.md")
        TQ.succeed("report", self.capture, "--out", out)
        with open(out, encoding="utf-8") as file:
            text = file.read()
        links = re.findall(r"!\[.*\]\((.*)\)", text)
        self.assertEqual(links, ["results-pareto-1.svg", "results-layers-1.svg"])
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(links + ["results.md"]))
        for link in links:
            self.assertEqual(xml.etree.ElementTree.parse(self.path(link)).getroot().tag,
                             "{http://www.w3.org/2000/svg}svg")
        plain = TQ.succeed("report", self.capture).out
        self.assertEqual(re.sub(r"\n!\[.*\n", "", text), plain)

    def test_without_gnuplot_no_plots(self):
        out = self.path("results.md")
        result = TQ.succeed("report", self.sweep, "--out", out, environment={"PATH": ""})
        self.assertIn("without plots", result.err)
        self.assertEqual(result.err.count("\n"), 1)
        self.assertEqual(os.listdir(self.folder), ["results.md"])
        with open(out, encoding="utf-8") as file:
            self.assertEqual(file.read(), TQ.succeed("report", self.sweep).out)

    def test_one_section_an_input_and_side(self):
        other = [line | {"key": line["key"][::-1], "configuration": line["configuration"] | {"source": "laplace"}}
                 for line in self.lines]
        keys = self.lines[0] | {"key": "f" * 64, "metrics": {"key_relative_mse": {"mean": 0.1, "half_width": 0.01}},
                                "configuration": self.lines[0]["configuration"] | {"key-mode": "mse", "value-mode": "none"}}
        text = TQ.succeed("report", self.write(self.lines + other + [keys])).out
        self.assertCountEqual([line for line in text.split("\n") if line.startswith("## source")],
                              [f"## source {source}, d 64, rows 500, queries 0, {side} alone"
                               for source, side in (("gaussian", "keys"), ("gaussian", "values"), ("laplace", "values"))])
        self.assertIn("Pareto front: bytes a token against relative MSE of keys", tables(text))

    def test_fused_rows(self):
        table = tables(TQ.succeed("report", FUSED).out)["All 75 configurations"]
        lines = read_lines(FUSED)
        shown = sorted((row["d"], row["rows"], row["heads"], row["gqa"], row["value-bits"], row["group-size"],
                        float(row["relative error of the output"])) for row in table)
        expected = sorted((*(str(line["configuration"][axis]) for axis in ("d", "rows", "heads", "gqa", "value-bits", "group-size")),
                           float(f"{line['metrics']['relative_error']:.6g}")) for line in lines)
        self.assertEqual(shown, expected)

    def test_speeds(self):
        timings = [{"key": line["key"], "run": 0, "seconds": 1,
                    "values": {"vectors": 3e6, "encode_seconds": 1 + i % 3, "decode_seconds": 0.5}}
                   for i, line in enumerate(self.lines) if line["configuration"]["value-mode"] == "group"]
        seconds = {t["key"]: t["values"]["encode_seconds"] for t in timings}
        text = "cut\n[]\n{\"key\":3}\n" + "".join(json.dumps(t) + "\n" for t in timings) + '{"key":"'
        table = tables(TQ.succeed("report", self.write(self.lines, timings_jsonl=text)).out)["All 5 configurations"]
        for row in table:
            if row["value-mode"] != "group":
                self.assertEqual(row["values encode, M vectors/s"], "-")
                continue
            speeds = np.array([3 / seconds[line["key"]] for line in self.rows()["group", row["value-bits"]]])
            self.near(row["values encode, M vectors/s"], speeds.mean(), T_95[3] * speeds.std(ddof=1) / np.sqrt(3))
            self.assertEqual(row["values decode, M vectors/s"], "6")

    def published(self, figures, code, folder=None):
        """The table of published figures."""
        path = os.path.join(self.sweeps, "published.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(figures, file)
        result = TQ.run("report", folder or self.sweep, "--published", path)
        self.assertEqual(result.code, code, result.err)
        self.err = result.err
        return tables(result.out)["Against published figures"]

    def test_published_figures(self):
        mean, half_width = self.interval(self.rows()["group", "2"], "value_cosine")
        for shift, tolerance, code, verdict in ((0.0009, 0.001, 0, "within"), (-0.0009, 0.001, 0, "within"),
                                                (0.0011, 0.001, 1, "**differs**"), (-0.0011, 0.001, 1, "**differs**")):
            with self.subTest(shift=shift):
                figure = FIGURE | {"value": mean + shift, "tolerance": tolerance}
                (row,) = self.published([figure], code)
                self.assertEqual(row["verdict"].replace("\\", ""), verdict)
                self.near(row["ours"], mean, half_width)
                self.assertAlmostEqual(float(row["difference"]), -shift, delta=1e-5)
                self.assertEqual(row["configuration"], "value-mode=group value-bits=2")
                self.assertEqual((row["source"], row["note"]), ("a table", ""))
                self.assertEqual(bool(self.err), code == 1)
        figure = FIGURE | {"value": 0.5, "tolerance": 0.001, "note": "another | experiment"}
        (row,) = self.published([figure], 0)
        self.assertEqual((row["verdict"], row["note"]), ("differs, see note", "another | experiment"))

    def test_published_bytes_and_relative_tolerance(self):
        fp16 = FIGURE | {"where": {"d": 64, "value-bits": None}, "metric": "bytes_per_token", "value": 128, "tolerance": 0}
        self.assertEqual(self.published([fp16], 0)[0]["configuration"], "d=64")
        size = self.rows()["group", "2"][0]["bytes_per_token"]
        figure = FIGURE | {"metric": "bytes_per_token", "value": size, "tolerance": 0}
        self.assertEqual(self.published([figure], 0)[0]["verdict"], "within")
        self.published([figure | {"value": size + 1}], 1)
        relative = {name: value for name, value in figure.items() if name != "tolerance"} | {"value": 1.02 * size}
        self.published([relative | {"relative_tolerance": 0.021}], 0)
        self.published([relative | {"relative_tolerance": 0.019}], 1)

    def test_published_figures_that_are_not_measured(self):
        for figure in (FIGURE | {"where": {"value-mode": "group", "value-bits": 8}}, FIGURE | {"metric": "softmax_kl"},
                       FIGURE | {"metric": "softmax_kl", "note": "no excuse"}):
            with self.subTest(figure=figure):
                rows = self.published([FIGURE, figure], 1)
                self.assertEqual([row["verdict"] for row in rows], ["within", "**not measured**"])
                self.assertIn("0 differ without a note, 1 were not measured", self.err)

    def refused(self, code, *parts, arguments):
        result = TQ.run("report", *arguments)
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)
        self.assertEqual(os.listdir(self.folder), [])

    def test_bad_published_files(self):
        path = os.path.join(self.sweeps, "bad.json")

        def without(name):
            return {key: value for key, value in FIGURE.items() if key != name}
        bad = {"is no JSON": "[{", "is no array": "{}", "no array of figures": "[]", "figure 1 is no object": "[3]"}
        for part, figure in (("did you mean 'tolerance'", FIGURE | {"tolerence": 1}), ("'where' is no", without("where")),
                             ("'where'", FIGURE | {"where": {}}), ("did you mean 'value-bits'", FIGURE | {"where": {"value-bit": 2}}),
                             ("'d' is neither", FIGURE | {"where": {"d": True}}), ("'metric' is no text", without("metric")),
                             ("'value' is no number", FIGURE | {"value": "0.9"}), ("'value' is no number", without("value")),
                             ("either 'tolerance' or", without("tolerance")),
                             ("either 'tolerance' or ", FIGURE | {"relative_tolerance": 1}),
                             ("tolerance is negative", FIGURE | {"tolerance": -1}), ("'source' is no text", without("source")),
                             ("'note' is no text", FIGURE | {"note": ""}),
                             ("(d=64) is of 5 configurations there; name one of its rotation, value-mode, ",
                              FIGURE | {"where": {"d": 64}}),
                             ("no figure is of a configuration", FIGURE | {"where": {"d": 4}})):
            bad[part] = json.dumps([figure])
        for part, text in bad.items():
            with self.subTest(part=part):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                self.refused(3, path, part, arguments=(self.sweep, "--out", self.path("x.md"), "--published", path))
        self.refused(2, "cannot be read", arguments=(self.sweep, "--published", "/no/such/file"))

    def test_committed_files_are_read(self):
        """Figures of other sweeps than this one: whole, but of nothing here."""
        files = glob.glob(os.path.join(CONFIGS, "*.published.json"))
        self.assertGreaterEqual(len(files), 3)
        for path in files:
            with self.subTest(path=path):
                self.refused(3, "no figure is of a configuration", arguments=(self.sweep, "--published", path))

    def test_bad_folders_and_options(self):
        out = self.path("x.md")
        self.refused(2, "holds no sweep", arguments=(self.folder, "--out", out))
        self.refused(2, "--dir is missing", arguments=("--out", out))
        self.refused(2, "does not end in .md", arguments=(self.sweep, "--out", self.path("x.txt")))
        self.refused(3, "holds no results", arguments=(self.write([]), "--out", out))
        self.refused(3, "is no manifest", arguments=(self.write(self.lines, manifest_json="[]"), "--out", out))
        self.refused(4, "cannot write", arguments=(self.sweep, "--out", self.path("no/such/folder/x.md")))
        damaged = json.loads(json.dumps(self.lines))
        damaged[1]["metrics"]["value_cosine"] = "much"
        self.refused(3, "value_cosine", arguments=(self.write(damaged), "--out", out))

    def test_text_of_a_stranger_is_only_text(self):
        evil = "<script>x</script> | [a](b) `c`\n# heading"
        lines = [line | {"configuration": line["configuration"] | {"source": evil, "value-mode": evil + line["key"][:9]}}
                 for line in self.lines]
        text = TQ.succeed("report", self.write(lines)).out
        self.assertNotIn("<script>", text)
        self.assertNotIn("[a](b)", text)
        self.assertFalse(re.search(r"^# heading", text, re.M))
        self.assertEqual(len(tables(text)["All 15 configurations"]), len(lines))


if __name__ == "__main__":
    unittest.main()
