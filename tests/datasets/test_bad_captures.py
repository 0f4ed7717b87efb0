#!/usr/bin/python3
"""Bad captures on the command line: test_bad_captures.py TQ_BINARY FOLDER (where they are made)."""

import pathlib
import subprocess
import sys
import unittest

import bad_captures

FOLDER = sys.argv.pop()
TQ = sys.argv.pop()


# Metadata that HDF5 1.10.8 crashes on, or never comes to the end of.
CRASHES = sorted((pathlib.Path(__file__).parent / "hdf5_crashes").iterdir())


class BadCaptures(unittest.TestCase):
    def test_inspect_refuses(self):
        for path, _, texts in bad_captures.make_all(FOLDER):
            with self.subTest(path=path):
                done = subprocess.run([TQ, "inspect", path], capture_output=True, text=True, timeout=60,
                                      check=False)
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertTrue(done.stderr.startswith("tq: ") and done.stderr.endswith("\n"), done.stderr)
                for text in (path,) + texts:
                    self.assertIn(text, done.stderr)

    def test_what_crashes_hdf5_is_refused_alike(self):
        self.assertTrue(CRASHES)
        for command in (["inspect"], ["calibrate", "--out", FOLDER + "/none.tq.h5", "--capture"]):
            for path in CRASHES:
                with self.subTest(command=command, path=path):
                    done = subprocess.run([TQ, *command, path], capture_output=True, text=True, timeout=300, check=False)
                    self.assertEqual(done.returncode, 3, done.stderr)
                    self.assertEqual(done.stdout, "")
                    self.assertRegex(done.stderr, r"\Atq: [^\n]+\n\Z")
                    self.assertIn(str(path), done.stderr)
        self.assertFalse(pathlib.Path(FOLDER, "none.tq.h5").exists())


if __name__ == "__main__":
    unittest.main()
