#!/usr/bin/env python3
"""What simpler predictors make of a text, in nats a byte: an interpolated order-5 n-gram, and xz.

    baselines.py --training train.txt --heldout heldout.txt

Prints JSON: `ngram5`, the n-gram's mean loss with counts of the whole training text; `xz`, the held-out text compressed
alone by `xz -9`; `xz_prefixed`, by how much it lengthens the last 32 MiB of the training text, compressed the same way.

The n-gram interpolates contexts of 0 to 5 bytes as Witten and Bell do (IEEE Trans. Inf. Theory 37(4), 1991, method C):
with N(h) the count of context h, T(h) the number of distinct bytes seen after it, and h' the context less its first byte,
p(c | h) = (N(h c) + T(h) p(c | h')) / (N(h) + T(h)), and p = 1/256 before the empty context.
"""

import argparse
import json
import lzma
import math
import sys

import numpy as np

ORDER = 5
PREFIX_BYTES = 32 << 20


def ngram_losses(training, heldout):
    """-ln p of each byte of `heldout`, given those before it in `heldout` and the counts of `training`."""
    # For each position of the training text its byte and the ORDER after it as one number, the first the most
    # significant: sorted once, they are sorted by their first n bytes for every n.
    padded = np.frombuffer(training + bytes(ORDER), np.uint8)
    starting = np.zeros(len(training), np.uint64)
    for offset in range(ORDER + 1):
        starting = starting << np.uint64(8) | padded[offset:offset + len(training)]
    starting.sort()
    # And for each byte of the held-out text, that byte and those before it, itself the least significant.
    padded = np.frombuffer(bytes(ORDER) + heldout, np.uint8)
    ending = np.zeros(len(heldout), np.uint64)
    for offset in range(ORDER + 1):
        ending = ending << np.uint64(8) | padded[offset:offset + len(heldout)]

    probability = np.full(len(heldout), 1 / 256)
    for context in range(ORDER + 1):
        grams = starting >> np.uint64(8 * (ORDER - context))
        kind = np.cumsum(np.diff(grams, prepend=grams[0]) != 0)
        gram = ending & np.uint64(256**(context + 1) - 1)
        count = np.searchsorted(grams, gram, "right") - np.searchsorted(grams, gram)
        first = np.searchsorted(grams, gram & ~np.uint64(255))
        end = np.searchsorted(grams, gram | np.uint64(255), "right")
        seen = first < end
        kinds = 1 + kind[end[seen] - 1] - kind[first[seen]]
        probability[seen] = (count[seen] + kinds * probability[seen]) / ((end - first)[seen] + kinds)
    return -np.log(probability)


def xz_bytes(data):
    return len(lzma.compress(data, preset=9))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[2].strip())
    parser.add_argument("--training", required=True, help="the text that the n-gram counts and that stands before xz's")
    parser.add_argument("--heldout", required=True, help="the text that is predicted")
    arguments = parser.parse_args()
    try:
        with open(arguments.training, "rb") as training_file, open(arguments.heldout, "rb") as heldout_file:
            training, heldout = training_file.read(), heldout_file.read()
    except OSError as error:
        sys.exit(f"baselines: {error}")
    if not training or not heldout:
        sys.exit("baselines: both texts must hold something")
    nats = 8 * math.log(2) / len(heldout)
    prefix = training[-PREFIX_BYTES:]
    print(json.dumps({"ngram5": float(ngram_losses(training, heldout).mean()),
                      "xz": nats * xz_bytes(heldout),
                      "xz_prefixed": nats * (xz_bytes(prefix + heldout) - xz_bytes(prefix))}, indent=2))


if __name__ == "__main__":
    main()
