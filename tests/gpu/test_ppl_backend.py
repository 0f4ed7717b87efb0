"""`tq ppl` with --backend cuda against the host's numbers.

usage: test_ppl_backend.py TQ_BINARY

Exits 77 where there is no GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "experiments"))
from model_folder import random_llama  # noqa: E402

SKIPPED = 77
TQ = os.path.abspath(sys.argv[1])
del sys.argv[1]

CODECS = {
    "default": (),
    "seed": ("--key-mode", "prod", "--sketch", "gaussian", "--value-mode", "group"),
    "four bits": ("--key-bits", "4", "--value-bits", "4"),
    "two bits, no window": ("--key-bits", "2", "--value-bits", "2", "--recent-window", "0", "--first-tokens", "4"),
}


def ppl(folder, *options):
    process = subprocess.run([TQ, "ppl", "--model", os.path.join(folder, "model"), "--text",
                              os.path.join(folder, "text"), "--context", "256", "--json", *options],
                             capture_output=True, text=True, timeout=600, check=False)
    return process.returncode, process.stdout, process.stderr


class Backend(unittest.TestCase):
    def test_codecs(self):
        for name, options in CODECS.items():
            with self.subTest(name):
                host, cuda = (ppl(FOLDER, "--backend", backend, *options) for backend in ("host", "cuda"))
                self.assertEqual((host[0], cuda[0]), (0, 0), host[2] + cuda[2])
                host, cuda = json.loads(host[1]), json.loads(cuda[1])
                for key in ("windows", "bytes_per_token", "fp16_bytes_per_token"):
                    self.assertEqual(host[key], cuda[key])
                for part in ("all", "beyond_exact"):
                    # Queries and weights of binary16 move losses by about as much as a cache of binary16 does.
                    for key in ("nats", "fp16_nats"):
                        self.assertAlmostEqual(host[part][key]["mean"], cuda[part][key]["mean"], delta=5e-3)
                    kl = host[part]["kl"]["mean"]
                    self.assertGreater(kl, 1e-4)
                    self.assertAlmostEqual(kl, cuda[part]["kl"]["mean"], delta=1e-5 + 0.02 * kl)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tq-gpu-ppl-") as FOLDER:
        random_llama(os.path.join(FOLDER, "model"))
        np.random.default_rng(5).integers(256, size=600, dtype=np.uint8).tofile(os.path.join(FOLDER, "text"))
        code, _, error = ppl(FOLDER, "--backend", "cuda")
        if code == 4:
            print(f"skipped: {error.strip()}")
            sys.exit(SKIPPED)
        unittest.main()
