#!/usr/bin/python3
"""What the small model is trained on and compared with: key-value documents, the choice of text, baselines."""

import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "datasets" / "tiny_lm"
sys.path.insert(0, str(FOLDER))

import baselines  # noqa: E402
import corpus  # noqa: E402
import retrieval_text  # noqa: E402

SEED = int(os.environ.get("TQ_TEST_SEED", random.SystemRandom().randrange(2**32)))
print(f"TQ_TEST_SEED={SEED}", file=sys.stderr)


class RetrievalText(unittest.TestCase):
    def check(self, text, queries):
        """Every `get` line is a query, and its answer was set once before, where `distance` says."""
        values, expected = {}, []
        for number, line in enumerate(text.splitlines(keepends=True)):
            word, key, value = line[:3], line[4:8], line[9:]
            self.assertEqual(len(line), 16)
            self.assertEqual((line[3], line[8], line[-1]), (" ", "=", "\n"))
            if word == "set":
                self.assertNotIn(key, values)
                values[key] = (value, 16 * number + 9)
            else:
                self.assertEqual(word, "get")
                self.assertEqual(values[key][0], value)
                expected.append({"answer_start": 16 * number + 9, "answer_length": 6,
                                 "distance": 16 * number + 9 - values[key][1]})
                values[key] = (None, None)  # asked once
        self.assertEqual(queries, expected)
        for query in queries:
            start, length, distance = query["answer_start"], query["answer_length"], query["distance"]
            self.assertEqual(text[start - distance:start - distance + length], text[start:start + length])

    def test_positions(self):
        generator = random.Random(SEED)
        for length in (32, 40, 256, 2048):
            for _ in range(20):
                text, queries = retrieval_text.document(generator, length)
                self.assertEqual(len(text), length // 16 * 16)
                self.check(text, queries)

    def test_distances_reach_through_the_document(self):
        generator = random.Random(SEED)
        distances = [query["distance"] for _ in range(64) for query in retrieval_text.document(generator, 2048)[1]]
        for low in range(0, 1792, 256):
            self.assertGreater(sum(low < distance <= low + 256 for distance in distances), 80, low)

    def test_training_rows_are_whole_documents(self):
        for index in range(20):
            row = retrieval_text.training_row(random.Random(f"{SEED} {index}"), 2049).decode()
            self.assertEqual(len(row), 2049)
            for line in row.split("\n")[:-1]:
                self.assertRegex(line, "^[sg]et [0-9a-f]{4}=[0-9a-f]{6}$")

    def test_file_is_the_same_everywhere(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "retrieval.jsonl")
            command = [sys.executable, FOLDER / "retrieval_text.py", "--documents", "3", "--length", "320", "--out", path]
            subprocess.run(command, check=True)
            data = path.read_bytes()
            self.assertEqual(os.listdir(folder), [path.name])
        self.assertEqual(data.decode(), retrieval_text.evaluation_file(3, 320, "evaluation"))
        self.assertEqual(hashlib.sha256(data).hexdigest(),
                         "51fe55eae006a1d52e6960ebca54a660cf07f9e337c1dacfc60a7ea55240f587")
        documents = [json.loads(line) for line in data.splitlines()]
        self.assertEqual(len(documents), 3)
        for document in documents:
            self.check(document["text"], document["queries"])

    def test_bad_sizes_are_refused(self):
        for option in (["--documents", "0"], ["--length", "31"], ["--length", "1048592"]):
            done = subprocess.run([sys.executable, FOLDER / "retrieval_text.py", "--out", "/nowhere/x", *option],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn("at least 1 and --length 32 to 1048576", done.stderr)


def slow_probability(training, context, byte):
    """Witten-Bell by counting: p(byte | context), the context at most 5 bytes; NULs follow the training text."""
    lower = slow_probability(training, context[1:], byte) if context else 1 / 256
    padded = training + bytes(5)
    after = [padded[i + len(context)] for i in range(len(training)) if padded[i:i + len(context)] == context]
    kinds = len(set(after))
    return (after.count(byte) + kinds * lower) / (len(after) + kinds) if after else lower


class Baselines(unittest.TestCase):
    def test_ngram_against_counting(self):
        generator = random.Random(SEED)
        training = bytes(generator.choice(b"abc") for _ in range(400))
        # The n-gram takes what stands before a text to be NUL, so both begin with some; 'z' was never seen.
        heldout = bytes(5) + bytes(generator.choice(b"abcz") for _ in range(60))
        losses = baselines.ngram_losses(training, heldout)
        for i in range(5, len(heldout)):
            expected = -math.log(slow_probability(training, heldout[i - 5:i], heldout[i]))
            self.assertAlmostEqual(losses[i], expected, places=12, msg=f"byte {i}")

    def test_ngram_is_a_distribution(self):
        generator = random.Random(SEED)
        training = bytes(generator.choice(b"ab\xff") for _ in range(300))
        for context in (b"abab\xff", b"qqqqb", b"\xff\xff\xff\xff\xff"):
            total = sum(math.exp(-baselines.ngram_losses(training, context + bytes([byte]))[-1]) for byte in range(256))
            self.assertAlmostEqual(total, 1, places=12)


def metadata(**fields):
    lines = [f"{name.replace('_', '-')}: {value}" for name, values in fields.items()
             for value in ([values] if isinstance(values, str) else values)]
    return importlib.metadata.email.message_from_string("\n".join(lines) + "\n\nDescription.\n")


class Licences(unittest.TestCase):
    def test_free(self):
        for fields in (dict(License_Expression="MIT"), dict(License_Expression="(BSD-3-Clause AND MIT) OR Apache-2.0"),
                       dict(License="BSD"), dict(License="Apache 2.0"),
                       dict(Classifier="License :: OSI Approved :: Python Software Foundation License"),
                       dict(License="see file", Classifier=["License :: OSI Approved", "Topic :: GPL",
                                                            "License :: OSI Approved :: MIT License"])):
            with self.subTest(fields=fields):
                self.assertIsNotNone(corpus.free_licence(metadata(**fields)))

    def test_not_free(self):
        for fields in ({}, dict(License_Expression="MPL-2.0 AND MIT"), dict(License="MIT OR GPL-2.0"),
                       dict(License_Expression="LicenseRef-NVIDIA-Proprietary"), dict(License="LGPL with MIT parts"),
                       dict(License="MIT", Classifier="License :: Other/Proprietary License"),
                       dict(Classifier="License :: OSI Approved :: GNU General Public License v2 (GPLv2)")):
            with self.subTest(fields=fields):
                self.assertIsNone(corpus.free_licence(metadata(**fields)))


class Corpus(unittest.TestCase):
    """collect() over packages made up for it."""

    def install(self, site, name, files, licence="MIT", with_licence_file=True):
        info = f"{name}-1.dist-info"
        files = {**files, f"{info}/METADATA": f"Name: {name}\nVersion: 1\nLicense-Expression: {licence}\n\n"
                                              f"What {name} does.\n".encode() + b"More of it.\n" * 60}
        if with_licence_file:
            files[f"{info}/LICENSE"] = f"Licence of {name}: ".encode() + b"a long line of terms. " * 20
        files[f"{info}/RECORD"] = b"".join(f"{path},,\n".encode() for path in files)
        for path, data in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(data)

    def code(self, name, number, lines=200):
        return f"# {name} {number}\n".encode() + b"".join(
            b"value = %d\n" % self.random.randrange(10**9) for _ in range(lines))

    def collect(self, folder, packages):
        """The corpus of `packages`: name -> (files, other arguments of install)."""
        site, library = pathlib.Path(folder, "site"), pathlib.Path(folder, "library")
        for path in ("a.py", "site-packages/not_mine.py", "b.txt"):
            (library / path).parent.mkdir(parents=True, exist_ok=True)
            (library / path).write_text(f"# standard {path}\n")
        for name, (files, options) in packages.items():
            self.install(site, name, files, **options)
        found = list(importlib.metadata.distributions(path=[str(site)]))
        self.assertEqual(len(found), len(packages))
        with mock.patch("importlib.metadata.distributions", lambda: found), \
                mock.patch("sysconfig.get_path", lambda _: str(library)):
            return corpus.collect(10**9, 30_000, lambda _: None)

    def setUp(self):
        self.random = random.Random(SEED)
        self.packages = {
            name: ({f"{name}/m{i}.py": self.code(name, i) for i in range(40)}, {}) for name in ("one", "two", "three")}

    def test_what_is_taken(self):
        same = self.code("same", 0)
        self.packages["odd"] = ({
            "odd/first.py": same, "odd/again.py": same, "odd/_vendor/one.py": self.code("vendored", 0),
            "odd/.agents/hidden.md": b"hidden\n", "odd/LICENSE.md": b"terms\n", "odd/latin.py": b"# caf\xe9\n",
            "odd/binary.py": b"# \0\n", "odd/table.py": b"x = '" + b"0" * 5000 + b"'\n", "odd/data.json": b"{}\n",
            "odd/guide.rst": b"A guide", "odd/large.py": self.code("large", 0, 80_000)}, {"with_licence_file": False})
        self.packages["copyleft"] = ({"copyleft/m.py": b"# copyleft\n"}, {"licence": "GPL-3.0-only"})
        with tempfile.TemporaryDirectory() as folder:
            text = self.collect(folder, self.packages).training
        self.assertEqual(text.count(same), 1)
        for part in (b"# standard a.py\n", b"A guide\n", b"What odd does.\n"):
            self.assertTrue(text.count(part) == 1, part)
        for part in (b"not_mine", b"b.txt", b"vendored", b"hidden", b"terms", b"caf", b"\0", b"0000000000", b"{}",
                     b"# large", b"copyleft", b"Name: "):
            self.assertFalse(part in text, part)

    def test_held_out_packages_are_not_trained_on(self):
        with tempfile.TemporaryDirectory() as folder:
            made = self.collect(folder, self.packages)
        held_out = {name for name, *_ in made.heldout_sources}
        self.assertEqual(len(held_out), 2)  # 20 KB of each
        for name, (files, _) in self.packages.items():
            self.assertEqual(f"Licence of {name}: " in made.heldout_licences, name in held_out)
            for data in files.values():
                self.assertEqual(data in made.training, name not in held_out)
        for name, _, _, size, names in made.heldout_sources:
            self.assertTrue(f"What {name} does.\n".encode() in made.heldout)
            parts = [self.packages[name][0][file] for file in names if file.endswith(".py")]
            self.assertTrue(b"".join(parts) in made.heldout)
            self.assertGreaterEqual(size, 20_000)
        self.assertEqual(sum(size for *_, size, _ in made.heldout_sources), len(made.heldout))
        self.assertEqual(sum(size for *_, size in made.training_sources), len(made.training))

    def test_copies_of_held_out_files_are_not_trained_on(self):
        with tempfile.TemporaryDirectory() as folder:
            held_out = {name for name, *_ in self.collect(folder, self.packages).heldout_sources}
        copies = {f"copies/{file}": data for name in held_out for file, data in self.packages[name][0].items()}
        self.packages["copies"] = (copies, {"with_licence_file": False})
        with tempfile.TemporaryDirectory() as folder:
            made = self.collect(folder, self.packages)
        self.assertEqual({name for name, *_ in made.heldout_sources}, held_out)
        for name, *_, names in made.heldout_sources:
            for file in names:
                if file.endswith(".py"):
                    self.assertFalse(self.packages[name][0][file] in made.training)

    def test_without_a_licence_file_nothing_is_held_out(self):
        for files, options in self.packages.values():
            options["with_licence_file"] = False
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.collect(folder, self.packages).heldout, b"")

    def test_order_does_not_depend_on_the_folder(self):
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            one = self.collect(first, self.packages)
            other = self.collect(second, dict(reversed(self.packages.items())))
        self.assertTrue((one.training, one.heldout) == (other.training, other.heldout))

    def test_overlap(self):
        self.assertEqual(corpus.same_lines(b"x" * 30 + b"\nshort\n", b"y\nshort\n" + b"x" * 30 + b"\n"), 30 / 37)


if __name__ == "__main__":
    unittest.main()
