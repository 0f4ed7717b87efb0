"""Every export against the master copy, read by h5py, json, NumPy and C and C++ compilers.

usage: test_export.py ARTEFACT_PROGRAM; TQ_TEST_SEED in the environment repeats a run.
"""

import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

PROGRAM = sys.argv.pop(1)
SEED = int(os.environ.get("TQ_TEST_SEED", random.SystemRandom().randrange(2**32))) % 2**63


def read_safetensors(path):
    """(metadata, {name: array}); checks the layout that the format's own reader insists on."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0 and data[8:9] == b"{"
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    metadata = header.pop("__metadata__")
    tensors, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        assert begin == covered, "a gap or an overlap"
        covered = end
        dtype = {"F32": "<f4", "I32": "<i4"}[entry["dtype"]]
        tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(entry["shape"])
    assert covered == len(body)
    return metadata, tensors


def text(attribute):
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)


def field(data):
    return struct.pack("<Q", len(data)) + data


def integer(value):
    return field(struct.pack("<q", value))


class Side:
    """Tables of the keys or the values of a layer, one row a table."""

    def __init__(self, group):
        self.names = [name for name in ("centroids", "boundaries", "qjl_scale") if name in group]
        self.rows = {name: np.atleast_2d(group[name][()]) for name in self.names}
        self.exact = {name: np.atleast_2d(group[name + "_f64"][()]) for name in self.names}
        if "qjl_scale" in group:  # one number a table
            for numbers in (self.rows, self.exact):
                numbers["qjl_scale"] = numbers["qjl_scale"].T
        self.tables = len(self.rows["centroids"])
        self.bits = int(self.rows["centroids"].shape[1]).bit_length() - 1


class ExportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"random artefacts of this run: TQ_TEST_SEED={SEED}", file=sys.stderr)
        cls.folder = tempfile.mkdtemp(prefix="tq-export-")
        cls.cases = []
        for seed in range(SEED, SEED + 6):
            folder = os.path.join(cls.folder, str(seed))
            os.mkdir(folder)
            subprocess.run([PROGRAM, "write", folder, str(seed)], check=True)
            cls.cases.append(folder)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def each(self):
        """(folder, open master) of every case."""
        for folder in self.cases:
            with self.subTest(folder=folder), h5py.File(os.path.join(folder, "master.tq.h5")) as master:
                yield folder, master

    def layers(self, master):
        """(index, group, keys, values or None)"""
        for index, name in enumerate(sorted(master["layers"])):
            self.assertEqual(name, f"{index:03}")
            layer = master["layers"][name]
            yield index, layer, Side(layer["key"]), Side(layer["value"]) if len(layer["value"]) else None

    def assert_bits(self, actual, expected):
        self.assertEqual(np.asarray(actual, np.float32).tobytes(), np.asarray(expected, np.float32).tobytes())

    def test_master(self):
        for _, master in self.each():
            self.assertEqual(text(master.attrs["format"]), "turboquant-artefact")
            self.assertEqual(master.attrs["format_version"], 2)
            for _, layer, keys, values in self.layers(master):
                mode, bits = text(layer["key"].attrs["mode"]), int(layer["key"].attrs["bits"])
                self.assertEqual(keys.bits, bits - (mode == "prod"))
                self.assertEqual(text(layer["key/qjl_scale"].attrs["convention"]), "alpha")
                for side in filter(None, (keys, values)):
                    self.assertEqual(side.rows["boundaries"].shape[1], 2**side.bits + 1)
                    for name in side.names:
                        self.assertEqual(side.rows[name].dtype, np.dtype("<f4"))
                        self.assertEqual(side.exact[name].dtype, np.dtype("<f8"))
                        self.assert_bits(side.exact[name], side.rows[name])
                for side in ("key", "value"):
                    metrics = layer["metrics"][side]
                    if "scores" in metrics:
                        self.assertEqual(metrics["scores"].shape[1:], (2, 5))
                        self.assertLess(metrics.attrs["kept"], len(metrics["scores"]))

    def test_digest(self):
        """The digest from its definition in calibration/digest.h."""

        def object_fields(group, head_dim):
            kind = text(group.attrs["kind"])
            out = field(kind.encode()) + integer(int(head_dim))
            if "matrix" in group:
                return out, [group["matrix"][()].astype("<f4").tobytes()]
            bits = np.unpackbits(group["sign_bits"][()], bitorder="little")
            signs = np.where(bits, -1, 1).astype("<f4")
            return out, [signs.tobytes(), group["permutation"][()].astype("<u2").tobytes()]

        for _, master in self.each():
            out = field(b"turboquant-artefact") + integer(1) + integer(int(master.attrs["num_q_heads"]))
            out += field(text(master.attrs["key_basis"]).encode())
            scale = master.attrs.get("softmax_scale")
            out += field(b"" if scale is None else struct.pack("<d", scale))
            for objects in ("rotations", "sketches"):
                out += integer(len(master[objects]))
                for head_dim in sorted(master[objects], key=int):
                    head, parts = object_fields(master[objects][head_dim], head_dim)
                    if objects == "rotations":  # signs, permutation, matrix, whichever are empty
                        parts = parts + [b""] if len(parts) == 2 else [b"", b""] + parts
                    out += head + b"".join(map(field, parts))
            out += integer(len(master["layers"]))
            for _, layer, keys, values in self.layers(master):
                out += integer(int(layer.attrs["head_dim"])) + integer(int(layer.attrs["num_kv_heads"]))
                for side in ("key", "value"):
                    attrs = layer[side].attrs
                    out += field(text(attrs["mode"]).encode()) + integer(int(attrs["bits"]))
                    if "group_size" in attrs:
                        out += integer(int(attrs["group_size"]))
                    else:
                        out += field(text(attrs["sketch" if "sketch" in attrs else "scale"]).encode())
                for side in (keys, values):
                    out += integer(side.tables if side else 0)
                    for row in range(side.tables if side else 0):
                        out += integer(side.bits)
                        for name in side.names:
                            out += field(side.rows[name][row].astype("<f4").tobytes())
            if "recent_window" in master.attrs:
                out += field(b"policy")
                out += integer(int(master.attrs["recent_window"])) + integer(int(master.attrs["first_tokens"]))
            self.assertEqual(text(master.attrs["sha256"]), hashlib.sha256(out).hexdigest())

    def test_upstream_json(self):
        for folder, master in self.each():
            for index, layer, keys, values in self.layers(master):
                d = int(layer.attrs["head_dim"])
                for side, below in ((keys, ""), (values, "value")):
                    for row in range(side.tables if side else 0):
                        own = os.path.join(folder, "upstream", f"layer_{index:03}", below)
                        if side.tables > 1:
                            own = os.path.join(own, f"head_{row:02}")
                        with open(os.path.join(own, f"codebook_d{d}_b{side.bits}.json")) as file:
                            book = json.load(file)
                        keys_of_upstream = "bits boundaries centroids d mse_per_coord mse_total".split()
                        self.assertEqual(sorted(book), keys_of_upstream)
                        self.assertEqual((book["d"], book["bits"]), (d, side.bits))
                        self.assertAlmostEqual(book["mse_per_coord"] * d, book["mse_total"], places=14)
                        self.assertEqual((book["boundaries"][0], book["boundaries"][-1]), (-1, 1))
                        for name in ("centroids", "boundaries"):  # all of float64
                            self.assertEqual(book[name], side.exact[name][row].tolist())
                        if side is keys:
                            with open(os.path.join(own, "qjl_scale.json")) as file:
                                scale = json.load(file)
                            self.assertEqual(
                                scale, {"qjl_scale": side.exact["qjl_scale"][row][0], "convention": "alpha"}
                            )

    def test_kv_json(self):
        for folder, master in self.each():
            with open(os.path.join(folder, "turboquant_kv.json")) as file:
                data = json.load(file)
            self.assertEqual(data["version"], 1)
            self.assertEqual(data["sigma_convention"], "1/sqrt(d)")
            self.assertEqual(data["artefact_sha256"], text(master.attrs["sha256"]))
            for name in ("recent_window", "first_tokens"):
                self.assertEqual(data.get(name), master.attrs.get(name))
            for name in ("recipe", "model_name", "transform_version", "codebook_version", "key_basis"):
                self.assertIn(name, data)
            for index, layer, keys, values in self.layers(master):
                own = data["layers"][f"model.layers.{index}.self_attn.attn"]
                d = int(layer.attrs["head_dim"])
                self.assertEqual(own.get("head_size", data.get("head_size")), d)
                rotation = own.get("rotation", data.get("rotation"))
                self.assertEqual(rotation["kind"], text(master[f"rotations/{d}"].attrs["kind"]))
                self.assertEqual(rotation["seed"], int(text(master[f"rotations/{d}"].attrs["seed"])))
                for side, name in ((keys, "key_codebook"), (values, "value_codebook")):
                    if not side:
                        self.assertEqual(own["value_group"]["group_size"], layer["value"].attrs["group_size"])
                        self.assertEqual(own["value_group"]["bits"], layer["value"].attrs["bits"])
                        continue
                    tables = own[name + "s"] if side.tables > 1 else [own[name]]
                    self.assertEqual(len(tables), side.tables)
                    for row, table in enumerate(tables):
                        self.assertEqual(table["bits"], side.bits)
                        for part in ("centroids", "boundaries"):
                            self.assertEqual(table[part], side.exact[part][row].tolist())
                        c, b = (np.array(table[part]) for part in ("centroids", "boundaries"))
                        midpoints = bool(np.allclose(b[1:-1], (c[1:] + c[:-1]) / 2, rtol=0, atol=1e-7))
                        self.assertEqual(table["boundaries_are_midpoints"], midpoints)
                        if side is keys:
                            self.assertEqual(table["qjl_scale"], side.exact["qjl_scale"][row][0])
                            self.assertEqual(table["qjl_scale_convention"], "alpha")
                            self.assertEqual(table["sign_of_zero"], -1)

    def test_safetensors(self):
        for folder, master in self.each():
            metadata, tensors = read_safetensors(os.path.join(folder, "tables.safetensors"))
            self.assertTrue(all(isinstance(value, str) for value in metadata.values()))
            self.assertEqual(metadata["artefact_sha256"], text(master.attrs["sha256"]))
            for name in ("recent_window", "first_tokens"):
                self.assertEqual(metadata.get(name), str(master.attrs[name]) if name in master.attrs else None)
            for index, layer, keys, values in self.layers(master):
                for side, letter in ((keys, "k"), (values, "v")):
                    for name in side.names if side else []:
                        tensor = tensors.pop(f"layers.{index}.{letter}.{name}")
                        rows = side.rows[name]
                        if name == "qjl_scale" or side.tables == 1:
                            rows = rows.ravel()
                        self.assertEqual(tensor.shape, rows.shape)
                        self.assert_bits(tensor, rows)
            for name, groups in (("rotation", master["rotations"]), ("sketch", master["sketches"])):
                for d, group in groups.items():
                    if "matrix" in group:
                        self.assert_bits(tensors.pop(f"{name}.{d}.matrix"), group["matrix"][()])
                        continue
                    bits = np.unpackbits(group["sign_bits"][()], bitorder="little")
                    self.assert_bits(tensors.pop(f"{name}.{d}.signs"), np.where(bits, -1, 1))
                    permutation = tensors.pop(f"{name}.{d}.permutation")
                    np.testing.assert_array_equal(permutation, group["permutation"][()])
            self.assertEqual(tensors, {})

    def test_c_header(self):
        """Compiled as C99 and C++17, warnings as errors, the arrays print the bits of the master's."""
        compilers = [
            ["gcc", "-xc", "-std=c99"],
            ["g++", "-xc++", "-std=c++17"],
        ]
        self.assertTrue(any(shutil.which(compiler[0]) for compiler in compilers))
        for folder, master in self.each():
            with open(os.path.join(folder, "tables.h")) as file:
                header = file.read()
            expected = {}
            for index, _, keys, values in self.layers(master):
                for side, word in ((keys, "key"), (values, "value")):
                    for row in range(side.tables if side else 0):
                        head = f"_head_{row:02}" if side.tables > 1 else ""
                        base = f"tq_layer_{index:03}{head}_{word}"
                        for name in side.names:
                            own = f"{base}_{name}" if name == "qjl_scale" else f"{base}_b{side.bits}_{name}"
                            expected[own] = side.rows[name][row]
            declared = re.findall(r"^static const float (\w+)", header, re.MULTILINE)
            self.assertEqual(sorted(declared), sorted(expected))
            prints = "\n".join(
                f'  print("{name}", {"&" if name.endswith("qjl_scale") else ""}{name}, {len(values)});'
                for name, values in expected.items()
            )
            source = (
                '#include <stdio.h>\n#include <string.h>\n#include "tables.h"\n#include "tables.h"\n'
                "static void print(const char* name, const float* values, int count) {\n"
                "  int i; unsigned bits;\n"
                '  printf("%s", name);\n'
                '  for (i = 0; i < count; ++i) { memcpy(&bits, values + i, 4); printf(" %08x", bits); }\n'
                '  printf("\\n");\n}\n'
                f"int main(void) {{\n{prints}\n  return 0;\n}}\n"
            )
            path = os.path.join(folder, "main.c")
            with open(path, "w") as file:
                file.write(source)
            wanted = {
                name: [f"{word:08x}" for word in np.asarray(values, "<f4").view("<u4")]
                for name, values in expected.items()
            }
            for compiler in filter(lambda entry: shutil.which(entry[0]), compilers):
                binary = os.path.join(folder, "main")
                subprocess.run(
                    compiler + ["-Wall", "-Wextra", "-pedantic", "-Werror", "-o", binary, path], check=True
                )
                output = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
                printed = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
                self.assertEqual(printed, wanted)


if __name__ == "__main__":
    unittest.main()
