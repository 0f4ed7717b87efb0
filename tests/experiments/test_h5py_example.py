"""The README's example of writing a capture works, and the README quotes it to the letter.

usage: test_h5py_example.py TQ_BINARY README
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

from tq_program import Program

TQ, README = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "write_capture_example.py")


class H5pyExample(unittest.TestCase):
    def test_its_capture_is_accepted(self):
        with tempfile.TemporaryDirectory(prefix="tq-example-") as folder:
            subprocess.run([sys.executable, EXAMPLE], cwd=folder, check=True)
            self.assertEqual(os.listdir(folder), ["model.kv.h5"])
            capture = os.path.join(folder, "model.kv.h5")
            artefact = os.path.join(folder, "model.tq.h5")
            info = TQ.json("inspect", capture)
            self.assertEqual((info["model"], info["num_layers"], info["tokens"], info["query_tokens"]),
                             ("my-model", 2, 512, 512))
            # No warning: it has what calibration wants, queries after RoPE.
            self.assertEqual(TQ.succeed("calibrate", "--capture", capture, "--out", artefact).err, "")
            for codec in ([], ["--artefact", artefact]):
                overall = TQ.json("eval", "--capture", capture, *codec)["overall"]
                # Random vectors: the codec's own error, and a softmax that it changes little.
                self.assertAlmostEqual(overall["key_cosine"], 0.983, 2)
                self.assertTrue(0 < overall["softmax_kl"] < 0.1)

    def test_the_readme_quotes_it(self):
        if not os.path.exists(README):
            self.skipTest(f"{README} does not exist yet")
        with open(README, encoding="utf-8") as readme, open(EXAMPLE, encoding="utf-8") as example:
            text, code = readme.read(), example.read()
        if re.search(r"(?m)^@[A-Z_]+@$", text):
            self.skipTest(f"{README} is a draft with places still to be filled in")
        self.assertTrue(f"```python\n{code}```\n" in text, f"{README} does not quote {EXAMPLE}")


if __name__ == "__main__":
    unittest.main()
