"""The main job end to end: the demo, and exports that come back as they left.

usage: test_round_trip.py TQ_BINARY SAMPLE_CAPTURE
"""

import json
import os
import re
import shutil
import sys
import tempfile
import unittest

import h5py
import numpy as np

from tq_program import Program

TQ, SAMPLE = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

CODECS = {
    "prod": ["--key-mode", "prod", "--value-mode", "group"],
    "gaussian": ["--key-mode", "prod", "--key-bits", "4", "--sketch", "gaussian", "--rotation", "qr",
                 "--value-bits", "2"],
    "mse": ["--key-bits", "4", "--scale", "ls"],
    "heads": ["--key-mode", "prod", "--per", "head"],
}
FORMATS = ("upstream-json", "kv-json", "safetensors", "c-header")


def files_of(path):
    """{relative name: content} of a file or folder."""
    if os.path.isfile(path):
        names = [""]
    else:
        names = [os.path.relpath(os.path.join(folder, name), path)
                 for folder, _, names in os.walk(path) for name in names]
    contents = {}
    for name in names:
        with open(os.path.join(path, name) if name else path, "rb") as file:
            contents[name] = file.read()
    return contents


def tables_of(artefact):
    """Everything that decodes a cache, with float32 values as engines see them."""
    found = {}
    with h5py.File(artefact, "r") as file:
        def visit(name, item):
            if isinstance(item, h5py.Dataset) and "/metrics/" not in name and not name.endswith("_f64"):
                found[name] = item[()]
            for key, value in item.attrs.items():
                if name.split("/")[0] in ("layers", "rotations", "sketches") and "/metrics/" not in name:
                    found[name, key] = value
        file.visititems(visit)
    return found


class RoundTrip(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tq-round-trip-")
        cls.artefacts = {}
        for name, options in CODECS.items():
            cls.artefacts[name] = cls.path(f"{name}.tq.h5")
            TQ.succeed("calibrate", "--capture", SAMPLE, "--out", cls.artefacts[name], *options)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def assert_same_tables(self, a, b):
        self.assertEqual(a.keys(), b.keys())
        for name in a:
            self.assertTrue(np.array_equal(a[name], b[name]), name)

    def test_demo(self):
        out = self.path("demo")
        text = TQ.succeed("demo", "--out", out, cwd=self.folder).out
        self.assertEqual(sorted(os.listdir(out)), ["sample.safetensors", "sample.tq.h5", "sample_tables.h",
                                                   "turboquant_kv.json", "upstream-json"])
        self.assertEqual(sorted(os.listdir(os.path.join(out, "upstream-json"))),
                         [f"layer_{i:03}" for i in range(4)] + ["turboquant_export.json"])
        for name in os.listdir(out):
            self.assertIn(name, text)
            TQ.succeed("lint", os.path.join(out, name))
        self.assertIn("no problems", text)
        # Again into the same folder: nothing else gathers there.
        before = sorted(files_of(out))
        TQ.succeed("demo", "--out", out)
        self.assertEqual(sorted(files_of(out)), before)

    def test_export_import_export(self):
        for codec, artefact in self.artefacts.items():
            evaluated = TQ.json("eval", "--capture", SAMPLE, "--artefact", artefact)
            for format_name in FORMATS:
                with self.subTest(codec=codec, format=format_name):
                    first, back, second = (self.path(f"{codec}.{format_name}.{step}") for step in "123")
                    TQ.succeed("export", "--artefact", artefact, "--format", format_name, "--out", first)
                    TQ.succeed("import", first, "--out", back)
                    self.assert_same_tables(tables_of(artefact), tables_of(back))
                    TQ.succeed("export", "--artefact", back, "--format", format_name, "--out", second)
                    self.assertEqual(files_of(first), files_of(second))
                    self.assertEqual(TQ.json("eval", "--capture", SAMPLE, "--artefact", back), evaluated)
                    for path in (artefact, first, back):
                        TQ.succeed("lint", path)

    def test_c_header(self):
        path = self.path("tables.h")
        artefact = self.artefacts["gaussian"]
        TQ.succeed("export", "--artefact", artefact, "--format", "c-header", "--out", path)
        TQ.succeed("lint", path)
        with open(path, encoding="utf-8") as file:
            literals = {np.float32(float.fromhex(word)) for word in re.findall(r"-?0x[0-9a-f.]+p[+-]?\d+", file.read())}
        for name, values in tables_of(artefact).items():
            if str(name).endswith("centroids"):
                self.assertLessEqual(set(values.ravel()), literals, name)

    def test_lint_of_spoiled_tables(self):
        def lint(name, change):
            book = TQ.json("codebook", "--dim", 128, "--bits", 3)
            change(book)
            path = self.path(f"codebook_d{book['d']}_b{book['bits']}.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(book, file)
            result = TQ.run("lint", path)
            with self.subTest(name):
                self.assertEqual(result.err, "")
                self.assertEqual(result.code, 0 if name == "good" else 1, result.out)
                problems = [f for f in json.loads(TQ.run("lint", path, "--json").out) if f["severity"] == "problem"]
                self.assertEqual(bool(problems), name != "good")

        def stopped_early(book):
            # What one published file holds: 7e-6 short of the optimum.
            book["centroids"][-1], book["centroids"][0] = 0.188390613802, -0.188390613802
            book["boundaries"][1:-1] = np.convolve(book["centroids"], [0.5, 0.5], "valid").tolist()

        def coarse(book):
            # Evenly spaced, and honest about its error.
            book["centroids"] = np.linspace(-0.35, 0.35, 8).tolist()
            book["boundaries"][1:-1] = np.convolve(book["centroids"], [0.5, 0.5], "valid").tolist()
            y = np.linspace(-1, 1, 200001)
            density = (1 - y**2) ** ((128 - 3) / 2)
            errors = np.min(np.abs(y[:, None] - book["centroids"]), axis=1) ** 2
            book["mse_per_coord"] = errors @ density / density.sum()
            book["mse_total"] = 128 * book["mse_per_coord"]

        def misstated(book):
            book["mse_total"] /= 2

        lint("good", lambda book: None)
        lint("stopped early", stopped_early)
        lint("coarse", coarse)
        lint("misstated", misstated)


if __name__ == "__main__":
    unittest.main()
