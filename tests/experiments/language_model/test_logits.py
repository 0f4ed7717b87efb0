"""Logits of the forward pass against those of transformers, in float32.

usage: test_logits.py LOGITS_PROGRAM FOLDER    a folder that random_models.py wrote
       test_logits.py LOGITS_PROGRAM --fresh   models of a new seed, made by the interpreter that TQ_HF_PYTHON names,
                                               else this one; exits 77 where that has no torch and transformers
"""

import os
import random
import subprocess
import sys
import tempfile
import unittest

import numpy as np

PROGRAM, FOLDER = sys.argv[1], sys.argv[2]
FRESH = FOLDER == "--fresh"
PYTHON = os.environ.get("TQ_HF_PYTHON", sys.executable)
del sys.argv[1:]

TOLERANCE = 1e-4


def logits_of(model, cache):
    result = subprocess.run([PROGRAM, model, os.path.join(model, "tokens.u32"), cache], stdout=subprocess.PIPE,
                            check=True, timeout=300)
    return np.frombuffer(result.stdout, "<f4")


class Logits(unittest.TestCase):
    def setUp(self):
        self.models = sorted(entry.path for entry in os.scandir(FOLDER) if entry.is_dir())
        self.assertGreaterEqual(len(self.models), 3)

    def test_float32(self):
        for model in self.models:
            with self.subTest(model):
                wanted = np.fromfile(os.path.join(model, "logits.f32"), "<f4")
                logits = logits_of(model, "float32")
                self.assertEqual(logits.shape, wanted.shape)
                self.assertGreater(np.std(wanted), 1)  # else the tolerance would say nothing
                self.assertLess(np.max(np.abs(logits - wanted)), TOLERANCE)

    def test_binary16_cache_is_near(self):
        for model in self.models:
            with self.subTest(model):
                wanted = np.fromfile(os.path.join(model, "logits.f32"), "<f4")
                difference = np.max(np.abs(logits_of(model, "binary16") - wanted))
                self.assertLess(difference, 0.1)
                self.assertGreater(difference, 0)


if __name__ == "__main__":
    if FRESH:
        if subprocess.run([PYTHON, "-c", "import torch, transformers"], stderr=subprocess.DEVNULL).returncode != 0:
            print("skipped: no torch and transformers; TQ_HF_PYTHON may name an interpreter that has them")
            sys.exit(77)
        seed = int(os.environ.get("TQ_TEST_SEED") or random.randrange(10**6))
        print(f"seed: TQ_TEST_SEED={seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="tq-logits-") as FOLDER:
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "random_models.py")
            subprocess.run([PYTHON, script, FOLDER, str(seed)], check=True, stdout=subprocess.DEVNULL,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})
            unittest.main()
    else:
        unittest.main()
