"""Separate runs that share a job: tq calibrate and tq sweep with --shard, and tq merge; and several captures as one.

    test_shards.py TQ_BINARY SAMPLE.kv.h5
"""

import hashlib
import os
import shutil
import sys
import tempfile
import unittest

import h5py
import numpy as np

from tq_program import Program, write_random_capture

TQ = Program(sys.argv.pop(1))
SAMPLE = os.path.abspath(sys.argv.pop(1))
# So that artefacts differ in nothing: their time is part of them.
TIME = {"SOURCE_DATE_EPOCH": "1700000000"}
SWEEP = "[sweep]\nsource=gaussian\nrows=512\nkey-mode=mse,prod\nkey-bits=2,3\nvalue-mode=group\nseed=0,1\n"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def digest_of(path):
    return hashlib.sha256(read(path)).hexdigest()


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def refused(self, code, pattern, *arguments):
        """One line, the code, and nothing new in the folder."""
        before = sorted(os.listdir(self.folder))
        result = TQ.run(*arguments, environment=TIME)
        self.assertEqual(result.code, code, result.err)
        self.assertRegex(result.err, rf"\Atq: [^\n]*{pattern}[^\n]*\n\Z")
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class Calibration(Folder):
    def calibrate(self, out, *options, captures=(SAMPLE,)):
        given = [word for capture in captures for word in ("--capture", capture)]
        TQ.succeed("calibrate", *given, "--out", self.path(out), *options, environment=TIME)
        return self.path(out)

    def shards(self, count, *options, **more):
        return [self.calibrate(f"{count}-{i}.h5", "--shard", f"{i}/{count}", *options, **more)
                for i in range(1, count + 1)]

    def test_the_bytes_of_one_run(self):
        for options in ((), ("--key-mode", "prod", "--alpha", "cos", "--per", "head", "--holdout", "blocks")):
            whole = read(self.calibrate("whole.h5", *options))
            for count in (1, 2, 3):
                with self.subTest(options=options, shards=count):
                    merged = self.path("merged.h5")
                    # In another order than they were made in.
                    TQ.succeed("merge", *reversed(self.shards(count, *options)), "--out", merged)
                    self.assertEqual(read(merged), whole)

    def test_layers_of_different_head_dims(self):
        capture = self.path("mixed.kv.h5")
        write_random_capture(capture, layers=3)
        other = write_random_capture(self.path("other.kv.h5"), layers=3, head_dim=64)
        with h5py.File(capture, "r+") as file, h5py.File(other) as narrow:
            del file.attrs["head_dim"]
            for name in ("k", "v", "q"):
                del file[f"layers/001/{name}"]
                file[f"layers/001/{name}"] = narrow[f"layers/001/{name}"][...]
        whole = read(self.calibrate("whole.h5", captures=(capture,)))
        # No shard has both kinds of layers.
        TQ.succeed("merge", *self.shards(3, captures=(capture,)), "--out", self.path("merged.h5"))
        self.assertEqual(read(self.path("merged.h5")), whole)

    def test_what_cannot_be_merged(self):
        one, two, three = self.shards(3)
        out = ("--out", self.path("out.h5"))
        self.refused(3, "shard 2 is missing", "merge", one, three, *out)
        self.refused(3, "is shard 1, and so is", "merge", one, two, three, one, *out)
        self.refused(3, "not a shard", "merge", SAMPLE, *out)
        other = self.calibrate("other.h5", "--shard", "2/3", "--seed", "1")
        self.refused(3, "of another calibration: options", "merge", one, other, three, *out)
        capture = write_random_capture(self.path("other.kv.h5"), layers=4, kv_heads=1, q_heads=2)
        other = self.calibrate("other.h5", "--shard", "2/3", captures=(capture,))
        self.refused(3, "of another calibration: capture", "merge", one, other, three, *out)
        self.refused(3, "tq merge", "eval", "--capture", SAMPLE, "--artefact", one)
        self.refused(2, "no shards", "merge", *out)
        self.refused(2, "--out", "merge", one, two, three)
        self.refused(2, "is the file that is read", "merge", one, two, three, "--out", one)

    def test_damaged_shards(self):
        one, two = self.shards(2)
        out = ("--out", self.path("out.h5"))

        def with_attribute(name, value):
            damaged = self.path("damaged.h5")
            shutil.copy(two, damaged)
            with h5py.File(damaged, "r+") as file:
                file.attrs[name] = value
            return damaged

        with_attribute("shard", 2)
        for name, value in (("shard", 3), ("shard", -1), ("shards", 2 ** 40), ("layers_of_all_shards", 0),
                            ("layers_of_all_shards", 9), ("sha256", "0" * 64), ("extra", 1)):
            with self.subTest(name=name, value=value):
                self.refused(3, "damaged.h5", "merge", one, with_attribute(name, value), *out)
        with open(self.path("damaged.h5"), "wb") as file:
            file.write(read(two)[:-1000])
        self.refused(3, "damaged.h5", "merge", one, self.path("damaged.h5"), *out)

    def test_bad_shard_options(self):
        out = ("--capture", SAMPLE, "--out", self.path("out.h5"))
        for text in ("0/2", "3/2", "1", "1/", "/2", "a/b", "1/2x", "-1/2"):
            with self.subTest(text=text):
                self.refused(2, "--shard", "calibrate", *out, f"--shard={text}")
        self.refused(2, "4 layers", "calibrate", *out, "--shard", "1/5")

    def test_a_time_that_is_none(self):
        result = TQ.run("calibrate", "--capture", SAMPLE, "--out", self.path("out.h5"),
                        environment={"SOURCE_DATE_EPOCH": "yesterday"})
        self.assertEqual((result.code, os.listdir(self.folder)), (2, []))


class Corpus(Folder):
    """Several captures as one."""

    def capture(self, name, *arguments, **options):
        return write_random_capture(self.path(name), *arguments, layers=3, **options)

    def joined(self, first, second):
        """One file with the rows of both, whose sequences do not meet."""
        joined = self.path("joined.kv.h5")
        with h5py.File(first) as a, h5py.File(second) as b, h5py.File(joined, "w") as out:
            for name, value in a.attrs.items():
                out.attrs[name] = value

            def copy(name, item):
                if isinstance(item, h5py.Dataset):
                    more = b[name][...] + (1000 if "sequence" in name else 0)
                    out[name] = np.concatenate([item[...], more.astype(item.dtype)])

            a.visititems(copy)
        return joined

    def tables(self, *captures):
        given = [word for capture in captures for word in ("--capture", capture)]
        return TQ.json("calibrate", *given, "--out", self.path("out.h5"), "--key-mode", "prod", "--alpha", "score")

    def provenance(self):
        """Names and digests of the captures of the artefact."""
        with h5py.File(self.path("out.h5")) as file:
            attributes = file["provenance"].attrs
            return attributes["capture_name"].decode(), attributes["capture_sha256"].decode()

    def test_is_one_capture_of_all_rows(self):
        first = self.capture("first.kv.h5", sequence_lengths=(700, 501), seed=3)
        second = self.capture("second.kv.h5", sequence_lengths=(300, 900), seed=4)
        expected = self.tables(self.joined(first, second))
        self.assertEqual(self.tables(first, second), expected)
        self.assertNotEqual(self.tables(first), expected)
        self.assertEqual(self.provenance(), ("first.kv.h5", digest_of(first)))
        self.tables(first, second)
        self.assertEqual(self.provenance(), ("first.kv.h5, second.kv.h5", f"{digest_of(first)}, {digest_of(second)}"))

    def test_files_that_do_not_belong_together(self):
        first = self.capture("first.kv.h5")
        out = ("--out", self.path("out.h5"))
        for options, pattern in ((dict(head_dim=64), "head_dim 64"), (dict(kv_heads=4), "num_kv_heads 4"),
                                 (dict(q_heads=2), "num_q_heads 2"), (dict(key_basis="pre_rope"), "key_basis"),
                                 (dict(model="another"), "model another")):
            with self.subTest(options=options):
                other = self.capture("other.kv.h5", **options)
                self.refused(3, f"other.kv.h5: .*{pattern}", "calibrate", "--capture", first, "--capture", other, *out)
        other = write_random_capture(self.path("other.kv.h5"), layers=2)
        self.refused(3, "num_layers 2 where the first has 3", "calibrate", "--capture", first, "--capture", other, *out)
        self.refused(2, "stands twice", "calibrate", "--capture", first, "--capture", first, *out)
        self.refused(2, "is the file that is read", "calibrate", "--capture", first, "--capture", other, "--out", other)


class Sweep(Folder):
    def setUp(self):
        super().setUp()
        with open(self.path("sweep.ini"), "w", encoding="utf-8") as file:
            file.write(SWEEP)

    def sweep(self, out, *options):
        TQ.succeed("sweep", "--config", self.path("sweep.ini"), "--out", self.path(out), *options)
        return self.path(out)

    def test_the_results_of_one_run(self):
        whole = read(os.path.join(self.sweep("whole"), "results.jsonl"))
        for count in (2, 3):
            shards = [self.sweep(f"{count}-{i}", "--shard", f"{i}/{count}") for i in range(count, 0, -1)]
            merged = self.path(f"merged-{count}")
            TQ.succeed("merge", *shards, "--out", merged)
            self.assertEqual(read(os.path.join(merged, "results.jsonl")), whole)
            self.assertEqual(sorted(os.listdir(merged)), ["manifest.json", "results.jsonl", "timings.jsonl"])
            self.assertEqual(len(read(os.path.join(merged, "timings.jsonl")).splitlines()), 8)
            # A sweep like any other.
            TQ.succeed("report", merged, "--out", self.path("report.md"))
            resumed = TQ.succeed("sweep", "--config", self.path("sweep.ini"), "--out", merged, "--resume")
            self.assertIn("8 of 8 configurations are done", resumed.err)

    def test_what_cannot_be_merged(self):
        one, two = self.sweep("one", "--shard", "1/2"), self.sweep("two", "--shard", "2/2")
        whole = self.sweep("whole")
        out = ("--out", self.path("out"))
        self.refused(3, "shard 2 is missing", "merge", one, *out)
        self.refused(3, "is shard 1, and so is", "merge", one, one, two, *out)
        self.refused(3, "no shard of a sweep", "merge", one, whole, *out)
        self.refused(2, "not empty", "merge", one, two, "--out", whole)
        other = self.sweep("other", "--shard", "2/2", "--set", "rows=256")
        self.refused(3, "of another sweep", "merge", one, other, *out)
        results = os.path.join(two, "results.jsonl")
        lines = read(results).splitlines(keepends=True)
        with open(results, "wb") as file:
            file.writelines(lines[:-1])
        self.refused(3, "finish it with --resume", "merge", one, two, *out)
        with open(results, "wb") as file:
            file.writelines(reversed(lines))
        self.refused(3, "not those of the planned sweep", "merge", one, two, *out)
        self.refused(2, "8 configurations", "sweep", "--config", self.path("sweep.ini"), *out, "--shard", "9/9")


if __name__ == "__main__":
    unittest.main()
