"""tq tune without a GPU: what it would try, what it refuses, and that nothing is written.

usage: test_tune.py TQ_BINARY
"""

import os
import re
import sys
import tempfile
import unittest

from tq_program import Program

TQ = Program(sys.argv[1])
del sys.argv[1:]

NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}  # also where there is one


class TuneTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tq-tune-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.environment = NO_GPU | {"XDG_CACHE_HOME": os.path.join(self.folder, "cache")}

    def refused(self, code, arguments, *parts):
        result = TQ.run("tune", *arguments, environment=self.environment)
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, result.err)
        self.assertEqual(os.listdir(self.folder), [])

    def candidates(self, *options):
        """Kernel and shape to the text of the candidates."""
        out = TQ.succeed("tune", "--dry-run", *options, environment=self.environment).out
        rows = re.findall(r"(?m)^((?:attend|scores) .*?heads\d+) +(\(.*?\) G \d+ d \d+) +\d+x\d+  +(\d.*)$", out)
        return {(kernel, shape): tried.split() for kernel, shape, tried in rows}

    def test_no_gpu(self):
        for arguments in ([], ["--show"], ["--json", os.path.join(self.folder, "tune.json")]):
            self.refused(4, arguments, "no ", "need one")

    def test_dry_run(self):
        found = self.candidates("--shape", "8,8,32768", "1,8,131072", "--key-bits", 4, "--value-bits", 4)
        shapes = ["(8, 8, 32768) G 8 d 128", "(1, 8, 131072) G 8 d 128"]
        kernels = ["attend d128 mse4-norm / d128 rotated4 heads8", "scores d128 mse4-norm heads8"]
        self.assertEqual(set(found), {(kernel, shape) for kernel in kernels for shape in shapes})
        for shape in shapes:
            # What 227 KB hold: tables, and for every warp so many tiles of keys, or of keys and values.
            self.assertEqual(found[kernels[0], shape], ["4x1", "4x2", "4x3", "8x1", "8x2", "12x1", "16x1"])
            self.assertEqual(found[kernels[1], shape],
                             ["4x1", "4x2", "4x3", "8x1", "8x2", "8x3", "12x1", "12x2", "12x3", "16x1", "16x2"])
        self.assertEqual(os.listdir(self.folder), [])

    def test_defaults(self):
        found = self.candidates()
        self.assertEqual(len(found), 6 * 4 * 2)
        self.assertEqual(len({shape for _, shape in found}), 6)
        for codec in ("mse4-norm / d128 rotated4", "mse3-norm / d128 rotated3", "mse2-norm / d128 rotated2",
                      "prod3-orthogonal / d128 group3-gs32"):
            self.assertTrue(any(codec in kernel for kernel, _ in found), codec)

    def test_options_reach_the_kernels(self):
        ((attend, shape), _), ((scores, _), _) = self.candidates(
            "--shape", "1,2,4096", "--dim", 64, "--group", 16, "--key-mode", "prod", "--key-bits", 4, "--sketch",
            "gaussian", "--value-mode", "group", "--value-bits", 2, "--group-size", 16, "--rotation", "qr").items()
        self.assertEqual(shape, "(1, 2, 4096) G 16 d 64")
        self.assertEqual(attend, "attend d64 prod4-gaussian-qr / d64 group2-gs16 heads16")
        self.assertEqual(scores, "scores d64 prod4-gaussian-qr heads16")

    def test_arguments(self):
        for shape in ("8,8", "8,8,", "8,8,32768,1", "8,8,32768x", "a,8,32768", "8;8;32768", ""):
            self.refused(2, ["--shape", shape], "B,H,N")
        for shape in ("0,8,4096", "1,0,4096", "1,33,4096", "1,8,1023", "5000,8,4096", "1,8,-4096"):
            self.refused(2, ["--shape", shape], shape, "can be tuned")
        for group in (0, 17):
            self.refused(2, ["--group", group], "--group", str(group))
        self.refused(2, ["--dim", 100], "head_dim 100")
        self.refused(2, ["--key-bits", 8], "up to 4 bits")
        self.refused(2, ["--alpha", "cos"], "--alpha")
        self.refused(2, ["--dry-run", "--show"], "--dry-run", "--show")
        for option in ("--dry-run", "--show"):
            self.refused(2, [option, "--json", os.path.join(self.folder, "x")], "--json")


if __name__ == "__main__":
    unittest.main()
