"""On the embedded sample, the codecs rank as they do on the whole capture that it was cut from, and lose as much.

usage: test_sample_order.py TQ_BINARY SAMPLE_CAPTURE
"""

import sys
import unittest

from tq_program import Program

TQ, SAMPLE = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

# Softmax KL in nats on the whole capture, keys of 3 bits where nothing else is said; worst first. The first is what
# upstream ships.
MEASURED = {
    "prod 3 gaussian unbiased": (0.171, ("--key-mode", "prod", "--sketch", "gaussian", "--alpha", "unbiased")),
    "prod 3 gaussian fitted": (0.077, ("--key-mode", "prod", "--sketch", "gaussian", "--alpha", "mse")),
    "prod 3 orthogonal fitted": (0.044, ("--key-mode", "prod", "--sketch", "orthogonal", "--alpha", "mse")),
    "mse 3 norm": (0.038, ("--scale", "norm")),
    "mse 3 nc": (0.032, ("--scale", "nc")),
    "mse 4 nc": (0.0084, ("--scale", "nc", "--key-bits", "4")),
}
TOLERANCE = 0.15  # the sample is half the tokens of half the layers
SEEDS = (0, 1, 2)  # a single rotation moves the KL by some 5 %


class SampleOrder(unittest.TestCase):
    def test_order_and_size(self):
        means = {}
        for name, (expected, options) in MEASURED.items():
            reports = [TQ.json("eval", "--capture", SAMPLE, "--seed", seed, *options) for seed in SEEDS]
            kls = [report["overall"]["softmax_kl"] for report in reports]
            means[name] = sum(kls) / len(kls)
            print(f"{name:26} {means[name]:.4f} ({means[name] / expected - 1:+.1%}), seeds:",
                  " ".join(f"{kl:.4f}" for kl in kls))
        for name, (expected, _) in MEASURED.items():
            with self.subTest(name):
                self.assertLess(abs(means[name] / expected - 1), TOLERANCE)
        self.assertEqual(sorted(means, key=means.get, reverse=True), list(MEASURED))


if __name__ == "__main__":
    unittest.main()
