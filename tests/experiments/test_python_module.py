"""The Python module and the C library under it, on NumPy arrays, against an independent float64 implementation.

usage: test_python_module.py LIBTURBOQUANT TQ_BINARY
"""

import ctypes
import gc
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import h5py
import numpy as np

import codec_reference as reference
from tq_program import Program, write_random_capture

LIBRARY, TQ = os.path.abspath(sys.argv[1]), Program(sys.argv[2])
del sys.argv[1:3]
EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
PACKAGES = str(EXPERIMENTS / "python")
HEADER = EXPERIMENTS / "c_api" / "turboquant.h"
os.environ["TURBOQUANT_LAB_LIBRARY"] = LIBRARY
sys.path.insert(0, PACKAGES)

import turboquant_lab as tq  # noqa: E402: after its library has been named

# A coordinate so near a boundary may fall on either side in float32.
NEAR = 1e-6

KEYS = [dict(head_dim=128), dict(head_dim=64, bits=4, scale="norm"), dict(head_dim=80, bits=2, scale="ls", seed=7),
        dict(head_dim=128, mode="prod"), dict(head_dim=192, bits=4, mode="prod", alpha="mse", seed=2**64 - 1),
        dict(head_dim=64, bits=2, mode="prod", sketch="gaussian", rotation="qr", alpha=0.5),
        dict(head_dim=96, bits=5, mode="prod", sketch="gaussian", alpha="mse")]
VALUES = [dict(head_dim=128), dict(head_dim=96, bits=4, rotation="qr", scale="ls"),
          dict(head_dim=128, bits=2, mode="group"), dict(head_dim=80, bits=3, mode="group", group_size=16),
          dict(head_dim=64, bits=8, mode="group", group_size=64), dict(head_dim=64, bits=4, mode="group")]


def seed_from_environment():
    seed = int(os.environ.get("TQ_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
    print(f"TQ_TEST_SEED={seed}", file=sys.stderr)
    return seed


RANDOM = np.random.default_rng(seed_from_environment())


def normal(*shape):
    return RANDOM.standard_normal(shape, dtype=np.float32)


def unpack(packed, bits):
    """Codes laid end to end, least significant bit first."""
    stream = np.unpackbits(packed, axis=-1, bitorder="little")
    codes = stream.reshape(*packed.shape[:-1], -1, bits)
    return (codes << np.arange(bits)).sum(-1)


class Expected:
    """A codec from its definition: its parameters, and the matrices and tables that the codec shows."""

    def __init__(self, codec, bits=3, mode="", scale="nc", group_size=32, head=0, **_):
        self.codec, self.bits, self.mode, self.scale, self.group_size = codec, bits, mode, scale, group_size
        self.table_bits = bits - (mode == "prod")
        if mode != "group":
            self.rotation = codec.rotation.astype(float)
            centroids, boundaries, self.alpha = codec.tables(head)
            self.table = reference.Table(centroids, boundaries)
        if mode == "prod":
            self.sketch = codec.sketch.astype(float)

    def coded(self, x):
        x = x.astype(float)
        if self.mode == "group":
            return reference.group_codec(x, self.bits, self.group_size)
        if self.mode == "prod":
            return reference.prod_codec(x, self.rotation, self.sketch, self.table, self.alpha)
        return reference.rotated_codec(x, self.rotation, self.table, self.scale)

    def from_codes(self, encoded):
        """What the stored codes and scalars stand for."""
        codes = unpack(encoded.codes, self.table_bits)
        if self.mode == "group":
            groups = codes.reshape(*codes.shape[:-1], -1, self.group_size)
            values = encoded.zeros.astype(float)[..., None] + encoded.scales.astype(float)[..., None] * groups
            return values.reshape(codes.shape)
        rotated = encoded.scales.astype(float)[..., None] * self.table.centroids[codes]
        if self.mode == "prod":
            signs = 2.0 * unpack(encoded.signs, 1) - 1
            weight = self.alpha / codes.shape[-1] * encoded.residual_norms.astype(float)
            rotated = rotated + weight[..., None] * (signs @ self.sketch)
        return rotated @ self.rotation

    def near_boundary(self, x):
        """Rows that hold a coordinate whose code is a matter of rounding."""
        if self.mode == "group":
            groups = x.astype(float).reshape(*x.shape[:-1], -1, self.group_size)
            zero = reference.half(groups.min(-1, keepdims=True))
            exact = (groups.max(-1, keepdims=True) - groups.min(-1, keepdims=True)) / (2**self.bits - 1)
            step = reference.half(exact)
            at = (groups - zero) / np.where(step > 0, step, 1)
            near = np.abs(at - np.floor(at) - 0.5) < 1e-4
            return (near | (reference.half(exact * (1 - NEAR)) != reference.half(exact * (1 + NEAR)))).any((-1, -2))
        y = x.astype(float) / reference.norms(x.astype(float)) @ self.rotation.T
        near = (np.abs(y[..., None] - self.table.inner) < NEAR).any((-1, -2))
        if self.mode == "prod":
            r = reference.residuals(x.astype(float), self.rotation, self.sketch, self.table)[0]
            z = r / reference.norms(r) @ self.sketch.T
            near |= (np.abs(z) < 1e-5).any(-1)
        return near


def softmax_attention(q, keys, values, scale):
    """q: heads x d; keys, values: KV heads x tokens x d, float64. Output and log-sum-exp."""
    group = len(q) // len(keys)
    out, sums = np.empty(q.shape), np.empty(len(q))
    for head, query in enumerate(q.astype(float)):
        scores = scale * keys[head // group] @ query
        sums[head] = np.logaddexp.reduce(scores)
        out[head] = np.exp(scores - sums[head]) @ values[head // group]
    return out, sums


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


class HostCodecs(unittest.TestCase):
    def cases(self):
        for options in KEYS:
            yield tq.KeyCodec(**options), options
        for options in VALUES:
            yield tq.ValueCodec(**options), {"mode": "", **options}

    def test_objects(self):
        for codec, options in self.cases():
            with self.subTest(codec=codec):
                self.assertEqual(codec.heads, 1)
                if options.get("mode") == "group":
                    self.assertRaises(tq.UsageError, codec.tables)
                    self.assertRaises(tq.UsageError, lambda: codec.rotation)
                    continue
                rotation, (centroids, boundaries, alpha) = codec.rotation.astype(float), codec.tables()
                np.testing.assert_allclose(rotation @ rotation.T, np.eye(codec.head_dim), atol=2e-6)
                expected = reference.sphere_table(codec.head_dim, len(centroids).bit_length() - 1)
                np.testing.assert_allclose(centroids, expected.centroids, atol=1e-7)
                np.testing.assert_allclose(boundaries[1:-1], expected.inner, atol=1e-7)
                if options.get("mode") != "prod":
                    self.assertEqual(alpha, 0)
                    self.assertRaises(tq.UsageError, lambda: codec.sketch)

    def test_alpha(self):
        d = 64
        self.assertAlmostEqual(tq.KeyCodec(d, mode="prod").tables()[2], np.sqrt(np.pi / 2))
        self.assertAlmostEqual(tq.KeyCodec(d, mode="prod", alpha="mse").tables()[2], 0.80101, places=5)
        gaussian = tq.KeyCodec(d, mode="prod", sketch="gaussian", alpha="mse")
        self.assertAlmostEqual(gaussian.tables()[2], 0.49050, places=5)
        orthogonal = tq.KeyCodec(d, mode="prod").sketch.astype(float)
        np.testing.assert_allclose(orthogonal @ orthogonal.T, d * np.eye(d), atol=1e-4)

    def test_encode_and_decode(self):
        for codec, options in self.cases():
            expected, d = Expected(codec, **options), codec.head_dim
            for shape in ((1, d), (67, d), (3, 130, d)):
                with self.subTest(codec=codec, shape=shape):
                    x = normal(*shape) * np.exp(normal(*shape[:-1], 1))
                    encoded = codec.encode(x)
                    self.assertEqual(encoded.nbytes, codec.bytes_per_token * x.size // d)
                    decoded = codec.decode(encoded)
                    self.assertEqual((decoded.shape, decoded.dtype), (x.shape, np.float32))
                    self.assertLess(relative_error(decoded, expected.from_codes(encoded)), 2e-6)
                    wanted, sure = expected.coded(x), ~expected.near_boundary(x)
                    if not sure.any():
                        self.assertEqual(x.size, d)
                        continue
                    errors = reference.norms(decoded - wanted) / reference.norms(wanted)
                    self.assertLess(errors[sure].max(), 2e-3)  # a binary16 scale may round the other way

    def test_zero_and_no_vectors(self):
        for codec, _ in self.cases():
            with self.subTest(codec=codec):
                d = codec.head_dim
                np.testing.assert_array_equal(codec.decode(codec.encode(np.zeros((3, d), np.float32))), 0)
                self.assertEqual(codec.decode(codec.encode(np.zeros((0, d), np.float32))).shape, (0, d))
                self.assertEqual(codec.decode(codec.encode(np.zeros((2, 0, d), np.float32))).shape, (2, 0, d))

    def test_into_given_arrays(self):
        codec, x = tq.KeyCodec(64, mode="prod"), normal(5, 64)
        first = codec.encode(x)
        second = codec.encode(x * 0)
        self.assertIs(codec.encode(x, out=second), second)
        np.testing.assert_array_equal(first.codes, second.codes)
        np.testing.assert_array_equal(first.residual_norms, second.residual_norms)
        out = np.full_like(x, np.nan)
        self.assertIs(codec.decode(first, out=out), out)
        np.testing.assert_array_equal(out, codec.decode(first))

    def test_scores_and_attention(self):
        for keys, values in ((0, 0), (2, 3), (3, 2), (5, 5), (6, 1)):
            key_codec, value_codec = tq.KeyCodec(**KEYS[keys]), tq.ValueCodec(**{**VALUES[values],
                                                                                 "head_dim": KEYS[keys]["head_dim"]})
            d = key_codec.head_dim
            for heads, group, rows in ((1, 1, 1), (2, 4, 300), (3, 1, 65)):
                with self.subTest(keys=key_codec, values=value_codec, rows=rows):
                    encoded = key_codec.encode(normal(heads, rows, d)), value_codec.encode(normal(heads, rows, d))
                    k, v = (codec.decode(part).astype(float) for codec, part in zip((key_codec, value_codec), encoded))
                    q = normal(heads * group, d)
                    wanted = np.concatenate([q[h * group:(h + 1) * group].astype(float) @ k[h].T
                                             for h in range(heads)])
                    found = key_codec.scores(q, encoded[0])
                    self.assertLess(np.abs(found - wanted).max(), 2e-6 * np.abs(q).sum(-1).max())
                    out, lse = tq.attend(q, key_codec, encoded[0], value_codec, encoded[1], return_lse=True)
                    wanted, sums = softmax_attention(q, k, v, 1 / np.sqrt(d))
                    self.assertLess(relative_error(out, wanted), 1e-5)
                    np.testing.assert_allclose(lse, sums, atol=1e-5)

    def test_attention_of_one_head_and_of_nothing(self):
        key_codec, value_codec, x = tq.KeyCodec(64), tq.ValueCodec(64), normal(40, 64)
        one = tq.attend(x[:3], key_codec, key_codec.encode(x), value_codec, value_codec.encode(x), softmax_scale=0.5)
        self.assertEqual(one.shape, (3, 64))
        none = key_codec.encode(x[:0]), value_codec.encode(x[:0])
        out, lse = tq.attend(x[:3], key_codec, none[0], value_codec, none[1], return_lse=True)
        np.testing.assert_array_equal(out, 0)
        np.testing.assert_array_equal(lse, -np.inf)
        # A NaN stays with its own query.
        broken = x[:3].copy()
        broken[1, 5] = np.nan
        found = tq.attend(broken, key_codec, key_codec.encode(x), value_codec, value_codec.encode(x),
                          softmax_scale=0.5)
        np.testing.assert_array_equal(found[[0, 2]], one[[0, 2]])
        self.assertTrue(np.isnan(found[1]).all())


class Caches(unittest.TestCase):
    def test_against_the_definition(self):
        d, heads, group = 64, 2, 3
        for key, value, recent, sinks in ((dict(bits=4), dict(bits=4), 16, 2),
                                          (dict(mode="prod", bits=3), dict(mode="group", bits=3), 0, 0)):
            key_codec, value_codec = tq.KeyCodec(d, **key), tq.ValueCodec(d, **value)
            cache = tq.KvCache(tq.Layer(heads, key_codec, value_codec), recent=recent, sinks=sinks, batch=2)
            k, v, q = normal(2, 150, heads, d), normal(2, 150, heads, d), normal(2, heads * group, d)
            cache.append_batch(k[:, :70].copy(), v[:, :70].copy())
            for sequence in range(2):
                cache.append(k[sequence, 70:], v[sequence, 70:], sequence=sequence)
            out, lse = cache.attend(q, return_lse=True)
            for sequence in range(2):
                self.assertEqual(cache.tokens(sequence=sequence), 150)
                quantised = cache.quantised(sequence=sequence)
                self.assertEqual(quantised, 150 - recent - sinks)
                part = slice(sinks, sinks + quantised)
                held = []
                for x, codec in ((k, key_codec), (v, value_codec)):
                    rows = x[sequence].astype(np.float16).astype(np.float32).transpose(1, 0, 2).copy()
                    rows[:, part] = codec.decode(codec.encode(np.ascontiguousarray(rows[:, part])))
                    held.append(rows.astype(float))
                wanted, sums = softmax_attention(q[sequence], *held, 1 / np.sqrt(d))
                self.assertLess(relative_error(out[sequence], wanted), 1e-5)
                np.testing.assert_allclose(lse[sequence], sums, atol=1e-5)
                scores = cache.scores(q[sequence], sequence=sequence)
                for head, query in enumerate(q[sequence].astype(float)):
                    np.testing.assert_allclose(scores[head], held[0][head // group][part] @ query, atol=1e-4)
            used = cache.bytes_used()
            self.assertEqual(used.codes + used.scalars, 2 * heads * (150 - recent - sinks) *
                             (key_codec.bytes_per_token + value_codec.bytes_per_token))
            self.assertEqual(used.exact, 2 * heads * (recent + sinks) * 4 * d)
            self.assertGreaterEqual(used.allocated, used.total)
            self.assertAlmostEqual(cache.compression, 2 * heads * 150 * 4 * d / used.total)

    def test_a_schedule_of_layers(self):
        cache = tq.KvCache([tq.Layer(2, head_dim=64), tq.Layer(1, tq.KeyCodec(128), tq.ValueCodec(128))], recent=4)
        k = normal(9, 2, 64)
        cache.prefill(k, k, layer=0)
        cache.append(normal(9, 1, 128), normal(9, 1, 128), layer=1)
        self.assertEqual((cache.quantised(0), cache.quantised(1)), (0, 5))
        self.assertEqual(cache.scores(normal(2, 64), layer=0).shape, (2, 0))
        exact = k.astype(np.float16).astype(float).transpose(1, 0, 2)
        q = normal(4, 64)
        self.assertLess(relative_error(cache.attend(q), softmax_attention(q, exact, exact, 1 / 8)[0]), 1e-5)
        with self.assertRaisesRegex(tq.UsageError, "holds 9 tokens|not empty"):
            cache.prefill(k, k, layer=0)

    def test_empty(self):
        cache = tq.KvCache(tq.Layer(1, tq.KeyCodec(64), tq.ValueCodec(64)))
        self.assertEqual(cache.compression, 1)
        out, lse = cache.attend(normal(1, 64), return_lse=True)
        np.testing.assert_array_equal(out, 0)
        np.testing.assert_array_equal(lse, -np.inf)


class Artefacts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        capture = write_random_capture(os.path.join(cls.folder.name, "capture.kv.h5"), sequence_lengths=(512,))
        cls.paths = {}
        for name, options in {"prod": ["--key-mode", "prod", "--value-mode", "group", "--per", "head", "--seed", "11"],
                              "mse": ["--key-bits", "4", "--rotation", "qr", "--seed", "12"]}.items():
            cls.paths[name] = os.path.join(cls.folder.name, name + ".tq.h5")
            TQ.succeed("calibrate", "--capture", capture, "--out", cls.paths[name], *options)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_codecs(self):
        x = normal(2, 200, 128)
        for name, path in self.paths.items():
            with h5py.File(path, "r") as file:
                layers = [reference.StoredLayer(file, index) for index in range(2)]
            for index, layer in enumerate(layers):
                with self.subTest(artefact=name, layer=index):
                    key_codec = tq.KeyCodec.from_artefact(path, index)
                    value_codec = tq.ValueCodec.from_artefact(pathlib.Path(path), index)
                    np.testing.assert_allclose(key_codec.rotation, layer.rotation, atol=2e-6)
                    for codec, wanted in ((key_codec, layer.code_keys(x.astype(float))),
                                          (value_codec, layer.code_values(x.astype(float)))):
                        found = codec.decode(codec.encode(x))
                        errors = reference.norms(found - wanted) / reference.norms(wanted)
                        self.assertLess(np.quantile(errors, 0.95), 2e-3)  # few lie at a boundary

    def test_seed_is_the_programs(self):
        np.testing.assert_array_equal(tq.KeyCodec(128, bits=4, rotation="qr", seed=12).rotation,
                                      tq.KeyCodec.from_artefact(self.paths["mse"], 0).rotation)
        ours, theirs = tq.KeyCodec(128, mode="prod", seed=11), tq.KeyCodec.from_artefact(self.paths["prod"], 1)
        np.testing.assert_array_equal(ours.rotation, theirs.rotation)
        np.testing.assert_array_equal(ours.sketch, theirs.sketch)

    def test_cache(self):
        path, k, q = self.paths["mse"], normal(100, 2, 128), normal(4, 128)
        cache = tq.KvCache.from_artefact(path, recent=8)
        self.assertEqual((cache.layers, cache.batch), (2, 1))
        layer = tq.Layer(2, tq.KeyCodec.from_artefact(path, 1), tq.ValueCodec.from_artefact(path, 1))
        other = tq.KvCache(layer, recent=8)
        cache.append(k, k, layer=1)
        other.append(k, k)
        np.testing.assert_array_equal(cache.attend(q, layer=1), other.attend(q))

    def test_a_cache_keeps_what_the_artefact_says(self):
        path, k, q = os.path.join(self.folder.name, "kept.tq.h5"), normal(100, 2, 128), normal(4, 128)
        capture = os.path.join(self.folder.name, "capture.kv.h5")
        TQ.run("schedule", "--capture", capture, "--budget", 400, "--out", path, "--recent-window", 16,
               "--first-tokens", 3)
        attended = {}
        for name, options, quantised in (("artefact's", {}, 81), ("same", dict(recent=16, sinks=3), 81),
                                         ("window", dict(recent=8), 89), ("sinks", dict(sinks=0), 84)):
            cache = tq.KvCache.from_artefact(path, **options)
            cache.append(k, k)
            self.assertEqual(cache.quantised(), quantised, name)
            attended[name] = cache.attend(q)
        np.testing.assert_array_equal(attended["artefact's"], attended["same"])
        without = tq.KvCache.from_artefact(self.paths["mse"])
        self.assertEqual((without.recent, without.sinks), (128, 0))
        library, made = ctypes.CDLL(LIBRARY), ctypes.c_void_p()
        self.assertEqual(library.tq_cache_from_artefact(os.fsencode(path), None, 1, None, None, ctypes.byref(made)), 0)
        library.tq_cache_destroy(made)
        self.assertEqual(library.tq_artefact_policy(os.fsencode(path), None), 2)

    def test_a_codec_with_tables_by_head(self):
        codec = tq.KeyCodec.from_artefact(self.paths["prod"], 0)
        if codec.heads == 1:
            self.skipTest("calibration kept one table for all heads")
        self.assertEqual(codec.heads, 2)
        for wrong in (normal(5, 128), normal(3, 5, 128)):
            with self.assertRaisesRegex(ValueError, "2 heads"):
                codec.encode(wrong)
        with self.assertRaisesRegex(tq.UsageError, "head is 2"):
            codec.tables(2)

    def test_bad_files(self):
        path = self.paths["prod"]
        with self.assertRaisesRegex(tq.UsageError, "no layer 2; it has 2"):
            tq.KeyCodec.from_artefact(path, 2)
        with self.assertRaises(tq.Error) as caught:
            tq.KeyCodec.from_artefact(path + ".absent", 0)
        self.assertIn("absent", str(caught.exception))
        damaged = os.path.join(self.folder.name, "damaged.tq.h5")
        shutil.copy(path, damaged)
        with h5py.File(damaged, "r+") as file:
            file["layers/000/key/centroids"][...] *= 1.01
        for make in (lambda: tq.KeyCodec.from_artefact(damaged, 0), lambda: tq.KvCache.from_artefact(damaged)):
            with self.assertRaisesRegex(tq.InputError, "damaged.tq.h5"):
                make()
        text = os.path.join(self.folder.name, "text.tq.h5")
        pathlib.Path(text).write_text("not HDF5")
        self.assertRaises(tq.InputError, tq.ValueCodec.from_artefact, text, 0)


class Errors(unittest.TestCase):
    def fails(self, error, pattern, call, *arguments, **options):
        with self.assertRaisesRegex(error, pattern) as caught:
            call(*arguments, **options)
        self.assertNotIn("\n", str(caught.exception))

    def test_options(self):
        for error, pattern, make, options in (
                (tq.UsageError, "mse, prod|prod", tq.KeyCodec, dict(head_dim=64, mode="fast")),
                (tq.UsageError, "bits", tq.KeyCodec, dict(head_dim=64, bits=9)),
                (tq.UsageError, "bits", tq.ValueCodec, dict(head_dim=64, bits=5, mode="group")),
                (tq.UsageError, "head_dim", tq.KeyCodec, dict(head_dim=65)),
                (tq.UsageError, "group", tq.ValueCodec, dict(head_dim=80, mode="group")),
                (tq.UsageError, "alpha is 3", tq.KeyCodec, dict(head_dim=64, mode="prod", alpha=3)),
                (ValueError, "alpha", tq.KeyCodec, dict(head_dim=64, mode="prod", alpha="best")),
                (ValueError, "alpha", tq.KeyCodec, dict(head_dim=64, mode="prod", alpha=float("nan"))),
                (ValueError, "seed", tq.KeyCodec, dict(head_dim=64, seed=-1)),
                (ValueError, "bits", tq.KeyCodec, dict(head_dim=64, bits=2**32 + 3)),
                (TypeError, "integer", tq.KeyCodec, dict(head_dim=64.0)),
                (TypeError, "mode must be a string", tq.KeyCodec, dict(head_dim=64, mode=None))):
            with self.subTest(options=options):
                self.fails(error, pattern, make, **options)

    def test_arrays(self):
        codec = tq.KeyCodec(64)
        x = normal(6, 64)
        encoded = codec.encode(x)
        read_only = np.empty_like(x)
        read_only.flags.writeable = False
        for error, pattern, call in (
                (TypeError, "float64, must be float32: x.astype", lambda: codec.encode(x.astype(float))),
                (TypeError, "float16", lambda: codec.encode(x.astype(np.float16))),
                (TypeError, "byte order", lambda: codec.encode(x.astype(">f4"))),
                (TypeError, "must be a NumPy array", lambda: codec.encode(x.tolist())),
                (ValueError, r"\(rows, 64\)", lambda: codec.encode(x[0])),
                (ValueError, r"must be \(any, 64\)", lambda: codec.encode(normal(6, 65))),
                (ValueError, "ascontiguousarray", lambda: codec.encode(normal(64, 6).T)),
                (ValueError, "ascontiguousarray", lambda: codec.encode(x[::2])),
                (TypeError, "must be Encoded", lambda: codec.decode(x)),
                (ValueError, "encoded.signs is missing", lambda: tq.KeyCodec(64, mode="prod", bits=4).decode(encoded)),
                (ValueError, "encoded.codes has shape", lambda: tq.KeyCodec(64, bits=4).decode(encoded)),
                (ValueError, "encoded.scales has shape",
                 lambda: codec.decode(tq.Encoded(encoded.codes, encoded.scales[:5].copy()))),
                (TypeError, "encoded.codes is float32", lambda: codec.decode(tq.Encoded(x, encoded.scales))),
                (ValueError, "out has shape", lambda: codec.decode(encoded, out=np.empty((5, 64), np.float32))),
                (ValueError, "out is read-only", lambda: codec.decode(encoded, out=read_only)),
                (TypeError, "float32", lambda: codec.decode(encoded, dtype="float16")),
                (ValueError, "must be a multiple of the 4",
                 lambda: codec.scores(x, codec.encode(normal(4, 2, 64)))),
                (TypeError, "attend takes", lambda: tq.attend(x, codec, encoded, codec, encoded)),
                (ValueError, "head_dim 64, values 128",
                 lambda: tq.attend(x, codec, encoded, tq.ValueCodec(128), encoded))):
            with self.subTest(pattern=pattern):
                self.fails(error, pattern, call)

    def test_caches(self):
        codecs = tq.KeyCodec(64), tq.ValueCodec(64)
        cache = tq.KvCache(tq.Layer(2, *codecs), batch=2)
        k = normal(3, 2, 64)
        for error, pattern, call in (
                (ValueError, r"must be \(any, 2, 64\)", lambda: cache.append(normal(3, 1, 64), k)),
                (ValueError, "v has shape", lambda: cache.append(k, k[:2])),
                (TypeError, "k is float64", lambda: cache.append(k.astype(float), k)),
                (ValueError, "layer is 1", lambda: cache.append(k, k, layer=1)),
                (ValueError, "sequence is 2", lambda: cache.append(k, k, sequence=2)),
                (ValueError, r"must be \(2, any, 64\)", lambda: cache.attend(normal(2, 64))),
                (tq.UsageError, "3 query heads|multiple", lambda: cache.attend(normal(2, 3, 64))),
                (tq.UsageError, "recent", lambda: tq.KvCache(tq.Layer(2, *codecs), recent=-1)),
                (tq.UsageError, "layer", lambda: tq.KvCache([])),
                (tq.UsageError, "neither", lambda: tq.KvCache(tq.Layer(2, codecs[0]))),
                (TypeError, "keys must be a KeyCodec", lambda: tq.KvCache(tq.Layer(2, *codecs[::-1]))),
                (ValueError, "needs head_dim", lambda: tq.KvCache(tq.Layer(2))),
                (ValueError, "device", lambda: tq.KvCache(tq.Layer(2, *codecs), device="tpu"))):
            with self.subTest(pattern=pattern):
                self.fails(error, pattern, call)
        self.assertEqual(cache.tokens(), 0)

    def test_no_gpu(self):
        found, reason = tq.gpu_available()
        if found:
            self.skipTest("there is a GPU")
        self.assertTrue(reason)
        self.fails(tq.MachineError, "GPU|driver", tq.KvCache, tq.Layer(2, head_dim=64), device="cuda")

    def test_no_library(self):
        environment = {**os.environ, "TURBOQUANT_LAB_LIBRARY": "/nowhere/lib.so", "PYTHONPATH": PACKAGES}
        result = subprocess.run([sys.executable, "-c", "import turboquant_lab"], env=environment, capture_output=True)
        self.assertIn(b"ImportError: libturboquant.so is not at /nowhere/lib.so", result.stderr)


class Ownership(unittest.TestCase):
    def test_closed(self):
        codec = tq.KeyCodec(64)
        encoded = codec.encode(normal(3, 64))
        codec.close()
        codec.close()
        for call in (lambda: codec.encode(normal(3, 64)), lambda: codec.decode(encoded), codec.tables,
                     lambda: codec.rotation, lambda: codec.scores(normal(1, 64), encoded),
                     lambda: tq.KvCache(tq.Layer(1, codec, tq.ValueCodec(64)))):
            with self.assertRaisesRegex(ValueError, "KeyCodec is closed"):
                call()
        self.assertIn("closed", repr(codec))
        cache = tq.KvCache(tq.Layer(1, head_dim=64))
        cache.close()
        with self.assertRaisesRegex(ValueError, "KvCache is closed"):
            cache.tokens()

    def test_a_cache_outlives_its_codecs(self):
        codecs = [tq.KeyCodec(64), tq.ValueCodec(64)]
        cache = tq.KvCache(tq.Layer(1, *codecs), recent=0)
        k = normal(100, 1, 64)
        cache.append(k, k)
        before = cache.attend(k[0])
        codecs[0].close()
        del codecs
        gc.collect()
        np.testing.assert_array_equal(cache.attend(k[0]), before)

    def test_nothing_leaks(self):
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096

        def work():
            for _ in range(80):
                tq.KeyCodec(256, rotation="qr").close()  # 512 KiB each
        work()
        before = resident()
        work()
        self.assertLess(resident() - before, 24 << 20)

    def test_close_while_another_thread_works(self):
        x = normal(20000, 64)
        for _ in range(20):
            codec, failures = tq.KeyCodec(64), []
            started = threading.Event()

            def work(codec=codec, failures=failures, started=started):
                started.set()
                try:
                    while True:
                        codec.encode(x)
                except ValueError as error:
                    failures.append(str(error))
            thread = threading.Thread(target=work)
            thread.start()
            started.wait()
            codec.close()
            thread.join(60)
            self.assertEqual(failures, ["this KeyCodec is closed"])


class Threads(unittest.TestCase):
    def in_threads(self, count, work):
        failures = []

        def guarded(index):
            try:
                work(index)
            except BaseException as error:  # noqa: B902: told in the main thread
                failures.append(error)
        threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            self.assertFalse(thread.is_alive())
        if failures:
            raise failures[0]

    def test_one_codec(self):
        codec, x = tq.KeyCodec(128, mode="prod"), normal(8, 500, 128)
        wanted = [codec.encode(part) for part in x]

        def work(index):
            for _ in range(10):
                found = codec.encode(x[index])
                np.testing.assert_array_equal(found.codes, wanted[index].codes)
                np.testing.assert_array_equal(found.signs, wanted[index].signs)
        self.in_threads(len(x), work)

    def test_errors_are_each_threads_own(self):
        def work(index):
            for _ in range(200):
                with self.assertRaisesRegex(tq.UsageError, f"alpha is {3 + index},"):
                    tq.KeyCodec(64, mode="prod", alpha=3 + index)
        self.in_threads(4, work)

    def test_one_cache(self):
        cache = tq.KvCache(tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64)), recent=8, batch=4)
        k, q = normal(4, 300, 2, 64), normal(4, 2, 64)

        def work(sequence):
            for token in range(300):
                cache.append(k[sequence, token:token + 1], k[sequence, token:token + 1], sequence=sequence)
                if token % 50 == 0:
                    self.assertTrue(np.isfinite(cache.attend(q)[sequence]).all())
        self.in_threads(4, work)
        other = tq.KvCache(tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64)), recent=8, batch=4)
        other.append_batch(k, k)
        np.testing.assert_array_equal(cache.attend(q), other.attend(q))


    def test_one_sequence(self):
        cache = tq.KvCache(tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64)), recent=8)
        k = np.repeat(normal(1, 2, 64), 300, axis=0)  # long enough for calls to meet

        def work(index):
            for _ in range(20):
                cache.append(k, k)
                if index == 0:
                    self.assertTrue(np.isfinite(cache.attend(k[0])).all())
        self.in_threads(4, work)
        self.assertEqual(cache.tokens(), 4 * 20 * len(k))
        other = tq.KvCache(tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64)), recent=8)
        for _ in range(4 * 20):
            other.append(k, k)
        np.testing.assert_array_equal(cache.attend(k[0]), other.attend(k[0]))


class Library(unittest.TestCase):
    def test_exports_the_header_and_nothing_else(self):
        symbols = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], check=True, capture_output=True, text=True)
        exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
        declared = set(re.findall(r"^TQ_API[^(]*?\b(tq_\w+)\(", HEADER.read_text(), re.MULTILINE))
        self.assertGreater(len(declared), 20)
        self.assertEqual(exported, declared)

    def test_the_header_is_c(self):
        compiler = shutil.which("cc")
        if compiler is None:
            self.skipTest("no C compiler")
        subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", "c",
                        str(HEADER)], check=True)

    def test_wrong_calls(self):
        library = ctypes.CDLL(LIBRARY)
        library.tq_last_error.restype = ctypes.c_char_p
        made = ctypes.c_void_p()
        for code, call in ((2, lambda: library.tq_codec_create(0, None, ctypes.byref(made))),
                           (2, lambda: library.tq_codec_describe(None, None)),
                           (2, lambda: library.tq_encode(None, None, 1, 1, None)),
                           (2, lambda: library.tq_cache_tokens(None, 0, 0, None)),
                           (2, lambda: library.tq_codec_from_artefact(None, 0, 0, ctypes.byref(made)))):
            self.assertEqual(call(), code)
            self.assertIn(b"null", library.tq_last_error())
        for kind in ("codec", "cache", "gpu"):
            getattr(library, f"tq_{kind}_destroy")(None)

    def test_missing_arrays_and_absurd_sizes(self):
        codec = tq.KeyCodec(64)
        library, handle = ctypes.CDLL(LIBRARY), codec.handle()._as_parameter_
        library.tq_last_error.restype = ctypes.c_char_p
        x, size = normal(1, 64), ctypes.c_size_t
        pointer = ctypes.c_void_p(x.ctypes.data)
        nothing = ctypes.byref((ctypes.c_void_p * 5)())
        self.assertEqual(library.tq_encode(handle, pointer, size(1), size(1), nothing), 2)
        self.assertIn(b"codes is null", library.tq_last_error())
        for heads, rows in ((1, 2**63), (2**33, 2**33)):
            self.assertEqual(library.tq_encode(handle, pointer, size(heads), size(rows), None), 2)
            self.assertIn(b"memory", library.tq_last_error())


if __name__ == "__main__":
    unittest.main()
