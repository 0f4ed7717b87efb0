"""Master copies that h5py has changed are refused with one line and exit code 3.

usage: test_artefact.py ARTEFACT_PROGRAM
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

PROGRAM = sys.argv.pop(1)


def replace(group, name, values, **options):
    attributes = dict(group[name].attrs)
    del group[name]
    group.create_dataset(name, data=values, **options).attrs.update(attributes)


GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "golden")


def items(file):
    """Type, shape and bytes of every dataset and attribute."""
    found = {}

    def visit(name, entry):
        if isinstance(entry, h5py.Dataset):
            found[name] = (entry.dtype.str, entry.shape, entry[()].tobytes())
        else:
            found[name] = "group"
        for key, value in entry.attrs.items():
            value = np.asarray(value)
            found[f"{name} @{key}"] = (value.dtype.str, value.shape, value.tobytes())

    visit("/", file)
    file.visititems(visit)
    return found


class HostileArtefactTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tq-artefact-")
        # The first one with all that the tests change.
        for seed in range(1000):
            subprocess.run([PROGRAM, "write", cls.folder, str(seed)], check=True)
            with h5py.File(cls.master()) as file:
                first = file["layers/000"]
                if (
                    len(first["value"])
                    and first["key/centroids"].ndim == 1
                    and first["key"].attrs["mode"] == b"prod"
                    and "scores" in first["metrics/key"]
                    and "sign_bits" in next(iter(file["rotations"].values()))
                ):
                    break
        else:
            raise AssertionError("no random artefact has all that the tests change")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def master(cls):
        return os.path.join(cls.folder, "master.tq.h5")

    def read(self, path):
        return subprocess.run([PROGRAM, "read", path], capture_output=True, text=True)

    def assert_refused(self, change, *words):
        path = os.path.join(self.folder, "changed.tq.h5")
        shutil.copy(self.master(), path)
        with h5py.File(path, "r+") as file:
            change(file)
        result = self.read(path)
        self.assertEqual(result.returncode, 3, result.stdout + result.stderr)
        self.assertTrue(result.stderr.startswith(path + ": "), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_the_master_itself_is_read(self):
        self.assertEqual(self.read(self.master()).stdout, "ok\n")

    def test_a_file_from_before_policies_is_read(self):
        old = os.path.join(os.path.dirname(os.path.abspath(__file__)), "version_1.tq.h5")
        self.assertEqual(self.read(old).stdout, "ok\n")

    def test_what_is_written_is_frozen(self):
        """Every item of the file, its type and its bytes; HDF5's own structures are the library's."""
        path = os.path.join(self.folder, "golden.tq.h5")
        subprocess.run([PROGRAM, "write-golden", path], check=True)
        with h5py.File(path) as file:
            written = items(file)
            version = file.attrs["format_version"]
        frozen = os.path.join(GOLDEN, f"artefact_version_{version}.tq.h5")
        with h5py.File(frozen) as file:
            expected = items(file)
        differing = sorted(name for name in {*written, *expected} if written.get(name) != expected.get(name))
        self.assertFalse(
            differing,
            f"{frozen}: not what is written now. If what is written should change: raise kArtefactVersion, go "
            "on reading the earlier versions, and add the new file with TQ_GOLDEN=add (tests/support/golden.h)",
        )

    def test_policy(self):
        def policy(recent, first):
            def change(file):
                for name, value in (("recent_window", recent), ("first_tokens", first)):
                    if name in file.attrs:
                        del file.attrs[name]
                    if value is not None:
                        file.attrs[name] = value

            return change

        self.assert_refused(policy(None, 4), "recent_window")
        self.assert_refused(policy(64, None), "first_tokens")
        self.assert_refused(policy(-1, 4), "recent_window")
        self.assert_refused(policy(2**40, 4), "recent_window")
        self.assert_refused(policy(64, 10**6), "digest")

    def test_root(self):
        self.assert_refused(lambda f: f.attrs.__setitem__("format", "kv-capture"), "not an artefact")
        self.assert_refused(lambda f: f.attrs.__delitem__("format"), "not an artefact")
        self.assert_refused(lambda f: f.attrs.__setitem__("format_version", 3), "format_version 3 is unknown")
        self.assert_refused(lambda f: f.attrs.__setitem__("note", "x"), "not part of the format")
        self.assert_refused(lambda f: f.create_group("extra"), "'extra' is not part of the format")
        self.assert_refused(lambda f: f.__delitem__("layers"), "'layers' is missing")
        self.assert_refused(lambda f: f.attrs.__setitem__("num_layers", 50), "missing")
        self.assert_refused(lambda f: f.attrs.__setitem__("num_layers", 2**40), "num_layers")
        self.assert_refused(lambda f: f.attrs.__setitem__("num_q_heads", "eight"), "num_q_heads")
        self.assert_refused(lambda f: f.attrs.__setitem__("key_basis", "rope"), "key_basis")
        self.assert_refused(lambda f: f.attrs.__setitem__("codec", "other"), "codec")

    def test_digest(self):
        self.assert_refused(lambda f: f.attrs.__setitem__("sha256", "0" * 64), "digest")
        self.assert_refused(lambda f: f["layers/000/value"].attrs.__setitem__("scale", "ls2"), "scale")

        def shift(file):
            for name in ("centroids", "centroids_f64"):
                data = file["layers/000/key"][name]
                data[0] = np.float32(data[0] * (1 + 1e-6))

        self.assert_refused(shift, "digest")

        def flip_sign(file):
            data = next(iter(file["rotations"].values()))["sign_bits"]
            data[0] ^= 1

        self.assert_refused(flip_sign, "digest")

    def test_tables_travel_together(self):
        parts = ("centroids", "boundaries", "qjl_scale")
        for name in parts + tuple(part + "_f64" for part in parts):
            self.assert_refused(lambda f: f["layers/000/key"].__delitem__(name), f"'{name}' is missing")
        self.assert_refused(lambda f: f["layers/000/key"].create_group("more"), "'more' is not part")

    def test_tables(self):
        key = "layers/000/key"

        def with_values(name, change):
            def apply(file):
                for own in (name, name + "_f64"):
                    replace(file[key], own, change(file[key][own][()]))

            return apply

        def set_first(value):
            def change(data):
                data[0] = value
                return data

            return change

        self.assert_refused(with_values("centroids", set_first(np.nan)), "element 0 is not finite")
        self.assert_refused(with_values("centroids", set_first(0.99)), "increasing")
        self.assert_refused(with_values("boundaries", set_first(-2)), "boundaries end at")
        self.assert_refused(with_values("centroids", lambda data: data[:-1]), "shape")
        self.assert_refused(with_values("boundaries", lambda data: data[:-1]), "shape")
        self.assert_refused(with_values("qjl_scale", lambda data: np.append(data, data)), "shape")
        self.assert_refused(with_values("qjl_scale", set_first(5)), "qjl_scale")
        self.assert_refused(with_values("centroids", lambda data: data.astype("f2")), "float")
        self.assert_refused(with_values("centroids", lambda data: data.reshape(1, 1, -1)), "shape")

        def only_single(file):
            file[key]["centroids"][0] = np.nextafter(file[key]["centroids"][0], np.float32(-1))

        self.assert_refused(only_single, "rounds to another float32")
        scale = key + "/qjl_scale"
        self.assert_refused(lambda f: f[scale].attrs.__setitem__("convention", "alpha/d"), "convention")
        self.assert_refused(lambda f: f[key].attrs.__setitem__("bits", 8), "shape")
        self.assert_refused(lambda f: f[key].attrs.__setitem__("bits", 99), "bits")
        self.assert_refused(lambda f: f[key].attrs.__setitem__("mode", "m\nse"), "unknown")
        self.assert_refused(lambda f: f[key].attrs.__setitem__("bits", np.float64(3)), "bits")
        self.assert_refused(lambda f: f["layers/000"].attrs.__setitem__("head_dim", 100000), "head_dim")

    def test_objects(self):
        def first(file, objects="rotations"):
            return next(iter(file[objects].values()))

        self.assert_refused(lambda f: first(f).attrs.__setitem__("kind", "fft"), "'fft' is unknown")
        self.assert_refused(lambda f: first(f).attrs.__setitem__("seed", "-1"), "seed")
        def repeat(file):
            permutation = first(file)["permutation"]
            permutation[0] = permutation[1]

        def rename(name):
            return lambda file: file["rotations"].move(next(iter(file["rotations"])), name)

        def empty_sketch(file):
            sketch = first(file, "sketches")
            del sketch[next(iter(sketch))]

        self.assert_refused(repeat, "twice")
        self.assert_refused(lambda f: replace(first(f), "sign_bits", np.zeros(3, "u1")), "shape")
        self.assert_refused(rename("48x"), "head dimension")
        self.assert_refused(rename("17"), "head dimension")
        self.assert_refused(rename("48"), "48")
        self.assert_refused(empty_sketch, "missing")

    def test_metrics(self):
        gate = "layers/000/metrics/key"
        self.assert_refused(lambda f: f[gate].attrs.__setitem__("kept", 200), "kept")
        self.assert_refused(lambda f: f[gate + "/scores"].__setitem__((0, 0, 0), np.nan), "not a number")
        self.assert_refused(lambda f: f[gate + "/scores"].__setitem__((0, 0, 2), np.inf), "infinite")
        self.assert_refused(lambda f: f[gate + "/scores"].attrs.__setitem__("metrics", "a, b"), "metrics")
        self.assert_refused(lambda f: f[gate + "/scores"].attrs.__delitem__("candidate_0"), "candidate_0")

    def test_storage(self):
        key = "layers/000/key"

        def soft(file):
            del file[key]["centroids"]
            file[key]["centroids"] = h5py.SoftLink("/layers/000/key/boundaries")

        def external(file):
            del file["layers"]
            file["layers"] = h5py.ExternalLink(self.master(), "/layers")

        def virtual(file):
            data = file[key]["centroids"][()]
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[:] = h5py.VirtualSource(self.master(), "/" + key + "/centroids", data.shape)
            del file[key]["centroids"]
            file[key].create_virtual_dataset("centroids", layout)

        self.assert_refused(soft, "soft link")
        self.assert_refused(external, "external link")
        self.assert_refused(virtual, "virtual")
        self.assert_refused(
            lambda f: replace(f[key], "centroids", f[key]["centroids"][()], compression="lzf"), "filter"
        )

        def huge(file):
            del file[key]["centroids"]
            file[key].create_dataset("centroids", (2**40,), "<f4", chunks=(2**20,), compression="gzip")

        self.assert_refused(huge)


if __name__ == "__main__":
    unittest.main()
