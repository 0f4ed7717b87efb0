"""tq retrieval: answers counted as NumPy counts them from logits, and files that are refused.

usage: test_retrieval.py TQ_BINARY LOGITS_PROGRAM
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from model_folder import ModelFolder, float32, random_llama
from tq_program import Program

TQ, LOGITS_PROGRAM = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:]

LETTERS = b"abcdefgh"


def letter_model(path):
    """Finds a letter most probable nearly always: the (tied) embedding of all other bytes is 0."""
    folder = ModelFolder(random_llama(path + "-all", positions=640), path)
    name = "model.embed_tokens.weight"
    dtype, shape, content = folder.tensors[name]
    weight = np.frombuffer(content, "<f4").reshape(shape).copy()
    weight[[byte for byte in range(256) if byte not in LETTERS]] = 0
    folder.tensors[name] = float32(weight)
    return folder.save()


def random_document(random, length, queries):
    text = bytes(random.choice(list(LETTERS), length).astype(np.uint8))
    found = []
    while len(found) < queries:
        begin, size = int(random.integers(2, length - 3)), int(random.integers(1, 3))
        distances = [d for d in range(1, begin + 1) if text[begin - d:begin - d + size] == text[begin:begin + size]]
        if distances:
            found.append({"answer_start": begin, "answer_length": size, "distance": int(random.choice(distances))})
    return {"text": text.decode(), "queries": found}


class Retrieval(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-retrieval-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.model = letter_model(self.path("model"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, *lines):
        with open(self.path("d.jsonl"), "w", encoding="utf-8") as file:
            file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return self.path("d.jsonl")

    def predictions(self, text, cache):
        """The most probable byte after each."""
        tokens = self.path("tokens")
        np.frombuffer(text.encode(), np.uint8).astype("<u4").tofile(tokens)
        out = subprocess.run([LOGITS_PROGRAM, self.model, tokens, cache], stdout=subprocess.PIPE, check=True).stdout
        return np.frombuffer(out, "<f4").reshape(len(text), 256).argmax(axis=1)

    def test_against_numpy(self):
        random = np.random.default_rng(7)
        documents = [random_document(random, length, 200) for length in (640, 300, 20)]
        report = TQ.json("retrieval", "--model", self.model, "--documents", self.write(*documents), "--cache", "float32")
        wanted = {}
        for document in documents:
            answers = np.frombuffer(document["text"].encode(), np.uint8)
            right = {cache: np.concatenate([[False], self.predictions(document["text"], cache)[:-1] == answers[1:]])
                     for cache in ("float32", "binary16")}
            for query in document["queries"]:
                counts = wanted.setdefault(-(-query["distance"] // 256) * 256, {"float32": [], "binary16": []})
                part = slice(query["answer_start"], query["answer_start"] + query["answer_length"])
                for cache, hits in right.items():
                    counts[cache].append(bool(hits[part].all()))
        self.assertEqual([entry["distance_up_to"] for entry in report["by_distance"]], sorted(wanted))
        for entry, (_, counts) in zip(report["by_distance"], sorted(wanted.items())):
            self.assertEqual(entry["queries"], len(counts["float32"]))
            for name, cache in (("accuracy", "float32"), ("fp16_accuracy", "binary16")):
                p = np.mean(counts[cache])
                self.assertAlmostEqual(entry[name]["mean"], p)
                self.assertAlmostEqual(entry[name]["standard_error"], (p * (1 - p) / entry["queries"])**0.5)
        self.assertEqual(report["all"]["queries"], 600)
        self.assertGreater(report["all"]["accuracy"]["mean"], 0.02)  # else nothing was compared
        self.assertLess(report["all"]["accuracy"]["mean"], 0.9)

    def test_a_codec_changes_answers_and_a_wide_window_does_not(self):
        documents = self.write(random_document(np.random.default_rng(8), 600, 400))
        options = ["retrieval", "--model", self.model, "--documents", documents, "--key-bits", 1, "--value-bits", 1]
        exact = TQ.json(*options, "--recent-window", 600)
        for entry in [*exact["by_distance"], exact["all"]]:
            self.assertEqual(entry["accuracy"], entry["fp16_accuracy"])
        coarse = TQ.json(*options, "--recent-window", 0)["all"]
        self.assertNotEqual(coarse["accuracy"], coarse["fp16_accuracy"])
        table = TQ.succeed(*options).out
        for word in ("distance up to", "FP16", "mse1-nc + rotated1-nc", "newest 128", "\nall "):
            self.assertIn(word, table)

    def assert_refused(self, code, lines, *words, model=None):
        result = TQ.run("retrieval", "--model", model or self.model, "--documents", self.write(*lines))
        self.assertEqual(result.code, code, result.err)
        self.assertEqual(result.out, "")
        self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.err)

    def test_refused(self):
        good = {"text": "abcabc", "queries": [{"answer_start": 3, "answer_length": 3, "distance": 3}]}

        def query(**changes):
            return {**good, "queries": [{**good["queries"][0], **changes}]}

        self.assert_refused(3, [], "no document")
        self.assert_refused(3, ["{"], "d.jsonl:1", "JSON")
        self.assert_refused(3, [good, ""], "d.jsonl:2", "JSON")
        self.assert_refused(3, [{"text": "abc"}], "'queries' is missing")
        self.assert_refused(3, [{"text": 1, "queries": []}], "text", "string")
        self.assert_refused(3, [{"text": "abc", "queries": []}], "asks for anything")
        self.assert_refused(3, [query(answer_start=0)], "answer_start")
        self.assert_refused(3, [query(answer_start=7)], "answer_start")
        self.assert_refused(3, [query(answer_length=4)], "answer_length")
        self.assert_refused(3, [query(answer_length=0)], "answer_length")
        self.assert_refused(3, [query(distance=4)], "distance")
        self.assert_refused(3, [good, query(distance=2)], "d.jsonl:2: queries[0]", "2 bytes earlier")
        self.assert_refused(3, [{"text": "a" * 641, "queries": []}], "641 bytes", "640 positions")
        result = TQ.run("retrieval", "--model", self.model)
        self.assertEqual((result.code, "--documents" in result.err), (2, True))
        with open(os.path.join(self.model, "tokenizer.json"), "w", encoding="utf-8"):
            pass
        self.assert_refused(3, [good], "tokenizer")


if __name__ == "__main__":
    unittest.main()
