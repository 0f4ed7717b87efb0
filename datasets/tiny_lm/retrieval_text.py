#!/usr/bin/env python3
"""Documents of key-value pairs that are asked for later: text that a model can predict only by looking back.

    retrieval_text.py --documents 64 --length 2048 --seed evaluation --out retrieval.jsonl

A document is lines of 16 bytes, ASCII. `set` gives a key its value and `get` repeats both, so the six bytes after
`get 7f3a=` are copied from the one earlier place that has that key; all else in a document is random:

    set 7f3a=51c09b
    set 02de=77f1e0
    get 7f3a=51c09b

Keys are distinct and asked for at most once. Lines near the start mostly set, lines near the end mostly get, so the
distances from a value to its copy run from one line to nearly the whole document.

The file holds one document a line, as JSON:

    {"text": "set 7f3a=51c09b\\n...", "queries": [{"answer_start": 41, "answer_length": 6, "distance": 32}, ...]}

`answer_start` is the offset in `text`, in bytes, of the copied value; `distance` is how many bytes earlier the value was
set: text[start - distance : start - distance + length] == text[start : start + length].
"""

import argparse
import json
import os
import random
import sys

KEY_DIGITS = 4
VALUE_DIGITS = 6
LINE = len("set =\n") + KEY_DIGITS + VALUE_DIGITS


def below(generator, n):
    """A number from 0 to n - 1. Of Python's generator only random() is promised to stay the same for a seed."""
    return int(generator.random() * n)


def document(generator, length):
    """Lines of `length` bytes in all (the rest of a division by 16 left out), and the queries in them."""
    lines, queries = [], []
    used, unasked = set(), []
    count = length // LINE
    for number in range(count):
        if unasked and generator.random() * count < number:
            chosen = below(generator, len(unasked))
            unasked[chosen], unasked[-1] = unasked[-1], unasked[chosen]
            pair, where = unasked.pop()
            lines.append(f"get {pair}\n")
            queries.append({"answer_start": number * LINE + LINE - 1 - VALUE_DIGITS, "answer_length": VALUE_DIGITS,
                            "distance": (number - where) * LINE})
        else:
            while (key := below(generator, 16**KEY_DIGITS)) in used:
                pass
            used.add(key)
            pair = f"{key:0{KEY_DIGITS}x}={below(generator, 16**VALUE_DIGITS):0{VALUE_DIGITS}x}"
            unasked.append((pair, number))
            lines.append(f"set {pair}\n")
    return "".join(lines), queries


def training_row(generator, length):
    """`length` bytes of whole documents one after another, of 8 lines up to all of it, short ones as likely as long."""
    row, size = [], 0
    while size < length:
        longest = (length + LINE - 1) // LINE
        shortest = min(8, longest)
        text, _ = document(generator, LINE * int(shortest * (longest / shortest)**generator.random()))
        row.append(text)
        size += len(text)
    return "".join(row)[:length].encode()


def evaluation_file(documents, length, seed):
    """The whole file's text."""
    generator = random.Random(seed)
    made = (document(generator, length) for _ in range(documents))
    return "".join(json.dumps({"text": text, "queries": queries}) + "\n" for text, queries in made)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[2].strip())
    parser.add_argument("--documents", type=int, default=64, help="how many (64)")
    parser.add_argument("--length", type=int, default=2048, help="bytes of each (2048)")
    parser.add_argument("--seed", default="evaluation", help="any text (evaluation)")
    parser.add_argument("--out", required=True, help="the file to write")
    arguments = parser.parse_args()
    if arguments.documents < 1 or not 2 * LINE <= arguments.length <= LINE * 16**KEY_DIGITS:
        parser.error(f"--documents must be at least 1 and --length {2 * LINE} to {LINE * 16**KEY_DIGITS}")
    temporary = f"{arguments.out}.partial"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(evaluation_file(arguments.documents, arguments.length, arguments.seed))
        os.replace(temporary, arguments.out)
    except OSError as error:
        sys.exit(f"retrieval_text: {error}")


if __name__ == "__main__":
    main()
