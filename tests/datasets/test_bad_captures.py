#!/usr/bin/python3
"""Bad captures on the command line: test_bad_captures.py TQ_BINARY FOLDER (where they are made)."""

import subprocess
import sys
import unittest

import bad_captures

FOLDER = sys.argv.pop()
TQ = sys.argv.pop()


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


if __name__ == "__main__":
    unittest.main()
