"""`tq calibrate` and `tq eval` against the definitions in float64 NumPy (codec_reference.py).

usage: test_eval_against_numpy.py TQ_BINARY SAMPLE_CAPTURE
"""

import os

# More threads only wait for each other in matrix products of this size.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import shutil
import sys
import tempfile
import unittest

import h5py
import numpy as np

import codec_reference as reference
from codec_reference import FIT, HELD_OUT, METRICS
from tq_program import Program, write_random_capture

TQ, SAMPLE = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

# Means over hundreds of vectors. float32 rounding moves a coordinate over a cell's boundary now and then.
TOLERANCE = 1e-4
# Scores of candidates that the artefact does not hold: NumPy fits its own, whose last digits move some coordinate to
# the next cell, and in prod mode many of its vector's signs. One such token may carry much of the attention.
REFITTED_TOLERANCE = {"relative_mse": 1e-3, "cosine": 1e-3, "softmax_kl": 4e-2, "output_error": 3e-3}
TABLE_TOLERANCE = 1e-5  # of a centroid, absolute
CELL_TOLERANCE = 2e-4  # of a centroid against its cell's mean, which the histogram's bins of 2.4e-4 blur
ALPHA_TOLERANCE = 1e-4


class EvalAgainstNumpy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tq-numpy-")
        cls.worst = {}
        # Two of the sample's four layers: NumPy's time goes with their number.
        cls.small = os.path.join(cls.folder, "two_layers.kv.h5")
        with h5py.File(SAMPLE, "r") as sample, h5py.File(cls.small, "w") as small:
            small.attrs.update(sample.attrs)
            small.attrs["num_layers"] = 2
            sample.copy("tokens", small)
            for to, layer in enumerate((0, 2)):
                sample.copy(f"layers/{layer:03}", small, f"layers/{to:03}")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)
        for what, difference in cls.worst.items():
            print(f"largest difference of {what}: {difference:.2g}")

    def assert_close(self, found, expected, tolerance, what):
        difference = abs(found - expected) / max(abs(expected), 1e-6)
        group = what.split(":")[0]
        self.worst[group] = max(self.worst.get(group, 0), difference)
        self.assertLessEqual(difference, tolerance, f"{what}: {found} is not {expected}")

    def assert_near(self, found, expected, tolerance, what):
        difference = np.abs(found - expected).max()
        self.worst[what] = max(self.worst.get(what, 0), difference)
        self.assertLess(difference, tolerance, what)

    def calibrate(self, capture, *options):
        """Path of the artefact, and its layers beside the capture's."""
        path = os.path.join(self.folder, "fitted.tq.h5")
        TQ.succeed("calibrate", "--capture", capture, "--out", path, *options)
        return path, reference.open_layers(capture, path)

    def check(self, capture, *options, holdout="tail", per_head=False, alpha="mse"):
        path, layers = self.calibrate(capture, "--holdout", holdout, "--per", "head" if per_head else "layer",
                                      "--alpha", alpha, *options)
        self.check_eval(capture, path, layers)
        for index, (layer, stored) in enumerate(layers):
            with self.subTest(layer=index):
                held_out = layer.held_out(holdout)
                self.check_key_calibration(layer, stored, held_out, per_head, alpha)
                self.check_value_calibration(layer, stored, held_out, per_head)
        return layers

    def check_eval(self, capture, path, layers):
        report = TQ.json("eval", "--capture", capture, "--artefact", path)
        self.assertEqual(len(report["layers"]), len(layers))
        sums = {}
        for index, (layer, stored) in enumerate(layers):
            found = report["layers"][index]
            keys, values = stored.code_keys(layer.k), stored.code_values(layer.v)
            expected = {}
            expected["key_relative_mse"], expected["key_cosine"] = reference.vector_errors(layer.k, keys)
            expected["value_relative_mse"], expected["value_cosine"] = reference.vector_errors(layer.v, values)
            if layer.q is not None:
                expected.update(reference.attention_errors(layer, keys, values, np.ones(layer.tokens, bool)))
                queries = expected.pop("queries")
                flips = abs(found["top1_agreement"] - expected["top1_agreement"]) * queries
                self.assertLess(flips, 1.5, "top-1: more than one query differs")
                del expected["top1_agreement"]
            for name, value in expected.items():
                self.assert_close(found[name], value, TOLERANCE, f"eval {name}: layer {index}")
            if layer.q is None:
                for name in ("softmax_kl", "top1_agreement", "output_error", "inner_product_bias",
                             "inner_product_error"):
                    self.assertIsNone(found[name])
            for name in expected:
                sums[name] = sums.get(name, 0) + found[name] / len(layers)
        for name, mean in sums.items():
            self.assertAlmostEqual(report["overall"][name], mean, 12)

    # Calibration, one side of one layer.

    def fitted_tables(self, x, stored, fit, bits, per_head):
        """The default, and what NumPy fits to the layer or to each head."""
        start = reference.sphere_table(x.shape[-1], bits)
        y = x[:, fit] / reference.norms(x[:, fit]) @ stored.rotation.T
        fitted = []
        for sample in (y if per_head else [y]):
            table = reference.fitted_table(sample, x.shape[-1], start)
            self.assertLess(np.abs(reference.mean_of_cells(sample, table) - table.centroids).max(), CELL_TOLERANCE)
            fitted.append(table)
        return start, fitted

    def assert_tables(self, found, expected, what):
        self.assertEqual(len(found), len(expected))
        for a, b in zip(found, expected):
            self.assert_near(a.centroids, b.centroids, TABLE_TOLERANCE, what)
            self.assert_near(a.inner, (a.centroids[1:] + a.centroids[:-1]) / 2, 1e-7, "boundaries")

    def check_key_calibration(self, layer, stored, held_out, per_head, alpha):
        gate, fit = stored.gates["key"], ~held_out
        bits = stored.key["bits"] - (1 if stored.prod else 0)
        start, fitted = self.fitted_tables(layer.k, stored, fit, bits, per_head)
        kept = gate.names[gate.kept]
        candidates = {"default": ([start], [np.sqrt(np.pi / 2)] if stored.prod else [0.0])}
        if kept == "tuned":
            self.assert_tables(stored.key_tables, fitted, "fitted key table")
            fitted = stored.key_tables
        else:
            # A fitted alpha a head repeats the default's table for each.
            self.assert_tables(stored.key_tables, [start] * len(stored.alphas), "default key table")
        if stored.prod:
            heads = [[h] for h in range(layer.kv_heads)] if per_head else [list(range(layer.kv_heads))]
            for name, tables in (("default table, fitted alpha", [start]), ("tuned", fitted)):
                alphas = [self.fitted_alpha(layer, stored, fit, part, tables[i if len(tables) > 1 else 0], alpha)
                          for i, part in enumerate(heads)]
                candidates[name] = (tables, alphas)
                if kept == name:
                    self.assertEqual(len(stored.alphas), len(alphas))
                    for found, expected in zip(stored.alphas, alphas):
                        self.assert_close(found, expected, ALPHA_TOLERANCE, f"alpha ({alpha})")
                    candidates[name] = (tables, stored.alphas)
            if kept == "default":
                self.assertEqual(stored.alphas, np.float32(np.sqrt(np.pi / 2)))
        else:
            candidates["tuned"] = (fitted, [0.0])
        self.assertEqual(gate.names, list(candidates))
        for i, name in enumerate(gate.names):
            keys = stored.code_keys(layer.k, *candidates[name])
            refitted = name not in ("default", kept)
            self.check_scores(gate.scores[i], layer, keys, layer.v, layer.k, keys, held_out, refitted, False)
        self.check_gate(gate, "softmax_kl")

    def fitted_alpha(self, layer, stored, fit, heads, table, target):
        x = np.concatenate([layer.k[h][fit] for h in heads])
        rotation, sketch = stored.rotation, stored.sketch
        if target == "mse":
            return reference.least_squares_alpha(x, rotation, sketch, table)
        if target == "cos":
            # Mean cosine of n c + r and n c + a h on ever finer grids of a, from each row's inner products.
            r, g, n, c = reference.residuals(x, rotation, sketch, table)
            exact, base, h = n * c + r, n * c, reference.norms(r) * g / x.shape[-1]
            dot = lambda a, b: (a * b).sum(-1)
            best = 1
            for reach in (1, 1e-2, 1e-4):
                grid = best + np.linspace(-reach, reach, 401)[:, None]
                projections = dot(exact, base) + grid * dot(exact, h)
                squares = dot(base, base) + 2 * grid * dot(base, h) + grid**2 * dot(h, h)
                best = grid[(projections / np.sqrt(dot(exact, exact) * squares)).mean(-1).argmax(), 0]
            return best
        # score: least squares of <q, r^> on <q, r> over the pairs that attention forms.
        ab = bb = 0
        group = len(layer.q) // layer.kv_heads
        d = layer.head_dim
        for head in heads:
            x = layer.k[head][fit]
            r, g, n, c = reference.residuals(x, rotation, sketch, table)
            for queries in layer.q[head * group:(head + 1) * group]:
                y = queries @ rotation.T
                # What the stored norms lose stays in the exact score.
                a = y @ (n * c + r - reference.half(n) * c).T
                b = y @ (reference.half(reference.norms(r)) * g / d).T
                seen = layer.visible[:, fit]
                ab, bb = ab + (a * b)[seen].sum(), bb + (b * b)[seen].sum()
        return ab / bb

    def check_value_calibration(self, layer, stored, held_out, per_head):
        gate = stored.gates["value"]
        if stored.value["mode"] == "group":
            self.assertEqual(len(gate.scores), 0)
            return
        start, fitted = self.fitted_tables(layer.v, stored, ~held_out, stored.value["bits"], per_head)
        self.assertEqual(gate.names, ["default", "tuned"])
        self.assert_tables(stored.value_tables, fitted if gate.kept else [start], "value table")
        if gate.kept:
            fitted = stored.value_tables
        for i, tables in enumerate(([start], fitted)):
            values = stored.code_values(layer.v, tables)
            self.check_scores(gate.scores[i], layer, layer.k, values, layer.v, values, held_out,
                              i == 1 and not gate.kept, True)
        self.check_gate(gate, "output_error")

    def check_scores(self, scores, layer, keys, values, x, coded, held_out, refitted, of_values):
        for part, judged in ((FIT, ~held_out), (HELD_OUT, held_out)):
            found = dict(zip(METRICS, scores[part]))
            expected = dict(zip(METRICS, reference.vector_errors(x[:, judged], coded[:, judged])))
            if layer.q is not None:
                # Only the judged tokens are quantised.
                mixed_keys = np.where(judged[:, None], keys, layer.k)
                mixed_values = np.where(judged[:, None], values, layer.v)
                errors = reference.attention_errors(layer, mixed_keys, mixed_values, judged)
                if of_values:
                    expected["output_error"] = errors["output_error"]
                else:
                    expected["softmax_kl"] = errors["softmax_kl"]
                    flips = abs(found["top1_agreement"] - errors["top1_agreement"]) * errors["queries"]
                    self.assertLess(flips, 8.5 if refitted else 1.5, "top-1")
                    found.pop("top1_agreement")
            for name, value in found.items():
                if name in expected:
                    kind = "refitted" if refitted else "calibrated"
                    tolerance = REFITTED_TOLERANCE[name] if refitted else TOLERANCE
                    self.assert_close(value, expected[name], tolerance, f"{kind} {name}: part {part}")
                else:
                    self.assertTrue(np.isnan(value), f"{name} was not measured, but is {value}")

    def check_gate(self, gate, judge):
        held_out = dict(zip(METRICS, gate.scores[:, HELD_OUT].T))
        if np.isnan(held_out[judge]).all():
            expected = int(np.argmax(held_out["cosine"]))
            self.assertIn("cosine", gate.reason)
        else:
            expected = int(np.argmin(held_out[judge]))
        # argmin and argmax take the first of equals: the default stays unless another is strictly better.
        self.assertEqual(gate.kept, expected)

    # Codecs on the embedded sample, once on all of it.

    def test_mse_norm_and_rotated_values(self):
        self.check(self.small, "--key-bits", 3, "--scale", "norm", "--value-bits", 3)

    def test_mse_nc_and_group_values(self):
        self.check(self.small, "--key-bits", 4, "--value-mode", "group", "--value-bits", 3)

    def test_mse_ls_and_four_bit_values(self):
        self.check(self.small, "--key-bits", 2, "--scale", "ls", "--value-bits", 4)

    def test_prod_gaussian_and_small_groups(self):
        self.check(self.small, "--key-mode", "prod", "--sketch", "gaussian", "--value-mode", "group", "--value-bits", 2,
                   "--group-size", 16, "--seed", 5)

    def test_prod_orthogonal(self):
        layers = self.check(SAMPLE, "--key-mode", "prod", "--key-bits", 3)
        # The comparison with NumPy above covers fitted tables and alphas only where the gate kept some.
        self.assertTrue(any(stored.gates["key"].kept == 2 for _, stored in layers))
        self.assertTrue(any(stored.gates["value"].kept == 1 for _, stored in layers))

    def test_qr_rotation_with_tables_a_head(self):
        self.check(self.small, "--key-mode", "prod", "--key-bits", 4, "--rotation", "qr", "--value-bits", 2,
                   per_head=True, holdout="blocks")

    def test_alpha_for_the_cosine(self):
        self.check(self.small, "--key-mode", "prod", "--sketch", "gaussian", alpha="cos")

    def test_alpha_for_the_scores(self):
        self.check(self.small, "--key-mode", "prod", "--sketch", "gaussian", alpha="score")

    # Captures that differ from the sample in shape.

    def test_two_sequences_where_queries_see_only_their_own(self):
        # The first sequence ends inside the held-out half, and its queries see tokens of both halves; those of the
        # second see held-out tokens alone, so they do not count for the fit half. d = 96 is no power of two.
        capture = write_random_capture(os.path.join(self.folder, "two.kv.h5"), layers=1, q_heads=6, head_dim=96,
                                       sequence_lengths=(300, 100), queries=20, softmax_scale=0.2)
        self.check(capture, "--key-bits", 2, "--value-bits", 2)
        self.check(capture, "--key-mode", "prod", "--value-mode", "group", "--value-bits", 8, holdout="blocks")

    def test_without_queries_the_gate_uses_the_cosine(self):
        def drop_queries(file):
            for layer in file["layers"].values():
                del layer["q"]
            del file["tokens/q_position"]

        def before_rope(file):
            file.attrs["key_basis"] = "pre_rope"

        for spoil in (drop_queries, before_rope):
            with self.subTest(spoil.__name__):
                path = os.path.join(self.folder, "no_scores.kv.h5")
                shutil.copy(self.small, path)
                with h5py.File(path, "r+") as file:
                    spoil(file)
                self.check(path, "--key-mode", "prod")


if __name__ == "__main__":
    unittest.main()
