#!/usr/bin/python3
"""Reads with h5py and NumPy what test_capture_writer.cpp and test_frozen_captures.cpp wrote: check_written.py FOLDER."""

import os
import sys
import unittest

import h5py
import numpy as np

FOLDER = sys.argv.pop()
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
TENSORS = {"k": (0, 600, 2), "v": (1, 600, 2), "q": (2, 5, 4)}


def expected(layer, name, head_dim):
    """The formula of test_capture_writer.cpp."""
    number, rows, heads = TENSORS[name]
    row, head, i = np.ogrid[:rows, :heads, :head_dim]
    return ((7 * layer + 5 * number + 3 * row + 11 * head + i) % 255 - 127) / 64


def items(path):
    """Every attribute, with its type, and every dataset with its type, layout and filters."""
    found = {}

    def visit(name, entry):
        for key in entry.attrs:
            attribute = entry.attrs.get_id(key)
            found[f"{name} @{key}"] = (attribute.dtype.str, attribute.shape, np.asarray(entry.attrs[key]).tobytes())
        if isinstance(entry, h5py.Dataset):
            stored = entry.id.get_type()
            kind = stored.get_fields() + (stored.get_ebias(),) if stored.get_class() == h5py.h5t.FLOAT else stored.dtype
            found[name] = (kind, stored.get_order(), stored.get_size(), entry.shape, entry.maxshape, entry.chunks,
                           entry.shuffle, entry.compression_opts, entry.fletcher32, entry[()].tobytes())
        else:
            found[name] = "group"

    with h5py.File(path, "r") as file:
        visit("/", file)
        file.visititems(visit)
        return found, file.attrs["format_version"]


class Written(unittest.TestCase):
    def test_what_is_written_is_frozen(self):
        for storage in ("float16", "bfloat16", "float32", "float64"):
            written, version = items(os.path.join(FOLDER, f"golden_{storage}.kv.h5"))
            frozen = os.path.join(GOLDEN, f"capture_version_{version}_{storage}.kv.h5")
            expected, _ = items(frozen)
            differing = sorted(name for name in {*written, *expected} if written.get(name) != expected.get(name))
            self.assertFalse(
                differing,
                f"{frozen}: not what is written now. If what is written should change: raise the version, go on "
                "reading the earlier ones, and add the new file with TQ_GOLDEN=add (tests/support/golden.h)",
            )

    def check(self, name, size, convert=lambda dataset: dataset[:], level=4):
        with h5py.File(os.path.join(FOLDER, f"{name}.kv.h5"), "r") as file:
            attributes = dict(file.attrs)
            # Fixed-length strings come as bytes.
            self.assertEqual(bytes(attributes["format"]), b"kv-capture")
            self.assertEqual(attributes["format_version"], 1)
            self.assertEqual(attributes["num_layers"], 2)
            self.assertEqual(attributes["num_q_heads"], 4)
            self.assertEqual(attributes["num_kv_heads"], 2)
            self.assertNotIn("head_dim", attributes)
            self.assertEqual(attributes["rope_theta"], 1e4)
            for layer, head_dim in enumerate((16, 80)):
                for tensor in TENSORS:
                    dataset = file[f"layers/{layer:03}/{tensor}"]
                    self.assertEqual(dataset.id.get_type().get_size(), size)
                    self.assertEqual(dataset.maxshape, (None,) + dataset.shape[1:])
                    self.assertEqual(dataset.chunks, (256, 1, head_dim))
                    self.assertTrue(dataset.fletcher32)
                    self.assertEqual(dataset.shuffle, level > 0)
                    self.assertEqual(dataset.compression_opts, level or None)
                    np.testing.assert_array_equal(convert(dataset), expected(layer, tensor, head_dim))
            np.testing.assert_array_equal(file["tokens/position"], np.arange(600) % 300)
            np.testing.assert_array_equal(file["tokens/sequence_id"], np.arange(600) // 300)
            np.testing.assert_array_equal(file["tokens/q_position"], [1, 50, 299, 0, 299])
            self.assertEqual(file["tokens/q_position"].dtype, np.int32)

    def test_float16(self):
        self.check("float16", 2, lambda dataset: self.typed(dataset, np.float16))

    def test_float32(self):
        self.check("float32", 4, lambda dataset: self.typed(dataset, np.float32), level=9)

    def test_float64(self):
        self.check("float64", 8, lambda dataset: self.typed(dataset, np.float64), level=1)

    def test_uncompressed(self):
        self.check("plain", 2, lambda dataset: self.typed(dataset, np.float16), level=0)

    def test_bfloat16(self):
        self.check("bfloat16", 2, self.from_bfloat16)

    def typed(self, dataset, dtype):
        self.assertEqual(dataset.dtype, dtype)
        return dataset[:]

    def from_bfloat16(self, dataset):
        stored = dataset.id.get_type()
        self.assertEqual(stored.get_fields(), (15, 7, 8, 0, 7))
        self.assertEqual(stored.get_ebias(), 127)
        # HDF5's own conversion is the judge of the fields.
        values = np.empty(dataset.shape, dtype=np.float32)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=h5py.h5t.NATIVE_FLOAT)
        return values


if __name__ == "__main__":
    unittest.main()
