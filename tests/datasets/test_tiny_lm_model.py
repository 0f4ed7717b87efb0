#!/usr/bin/python3
"""The small model that ships with the project: what its files hold, and what its card says of them."""

import hashlib
import json
import pathlib
import re
import struct
import sys
import unittest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "datasets" / "tiny_lm"
MODEL = FOLDER / "model"
sys.path.insert(0, str(FOLDER))

import retrieval_text  # noqa: E402


def expected_shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = (config[f"num_{name}_heads"] * config["head_dim"] for name in ("attention", "key_value"))
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in (("input_layernorm", [hidden]), ("post_attention_layernorm", [hidden]),
                            ("self_attn.q_proj", [queries, hidden]), ("self_attn.k_proj", [keys, hidden]),
                            ("self_attn.v_proj", [keys, hidden]), ("self_attn.o_proj", [hidden, queries]),
                            ("mlp.gate_proj", [inner, hidden]), ("mlp.up_proj", [inner, hidden]),
                            ("mlp.down_proj", [hidden, inner])):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


class Model(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.card = (MODEL / "README.md").read_text()
        cls.config = json.loads((MODEL / "config.json").read_text())
        cls.weights = (MODEL / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", cls.weights[:8])
        cls.header = json.loads(cls.weights[8:8 + size])
        cls.data = cls.weights[8 + size:]

    def test_card_lists_every_file(self):
        listed = re.findall(r"^\| `(\S+)` \| (\d+) \| `([0-9a-f]{64})` \|$", self.card, re.MULTILINE)
        self.assertEqual(sorted([name for name, *_ in listed] + ["README.md"]),
                         sorted(path.name for path in MODEL.iterdir()))
        for name, size, digest in listed:
            data = (MODEL / name).read_bytes()
            self.assertEqual((len(data), hashlib.sha256(data).hexdigest()), (int(size), digest), name)

    def test_configuration(self):
        self.assertEqual(self.config["model_type"], "llama")
        self.assertEqual(self.config["vocab_size"], 256)
        self.assertTrue(self.config["tie_word_embeddings"])
        self.assertIn(self.config["head_dim"], (64, 128))
        self.assertGreater(self.config["num_attention_heads"], self.config["num_key_value_heads"])

    def test_tensors(self):
        self.assertLessEqual(len(self.weights), 12_000_000)
        tensors = {name: entry for name, entry in self.header.items() if name != "__metadata__"}
        self.assertEqual({name: entry["shape"] for name, entry in tensors.items()}, expected_shapes(self.config))
        self.assertEqual({entry["dtype"] for entry in tensors.values()}, {"BF16"})
        spans = sorted(entry["data_offsets"] for entry in tensors.values())
        self.assertEqual([begin for begin, _ in spans], [0] + [end for _, end in spans[:-1]])
        self.assertEqual(spans[-1][1], len(self.data))
        parameters = len(self.data) // 2
        self.assertTrue(3_000_000 <= parameters <= 6_000_000, parameters)
        self.assertIn(f"{parameters:,} parameters", self.card)
        # bfloat16 has its exponent in the upper bits: all ones is infinity or NaN.
        self.assertFalse([value for (value,) in struct.iter_unpack("<H", self.data) if value & 0x7F80 == 0x7F80])

    def test_heldout_text(self):
        text = (MODEL / "heldout.txt").read_bytes()
        self.assertTrue(150_000 <= len(text) <= 250_000, len(text))
        text.decode()
        licences = (MODEL / "heldout_licences.txt").read_text()
        packages = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| [\d,]+ \| `", self.card, re.MULTILINE)
        self.assertGreater(len(packages), 3)
        for package, version in packages:
            self.assertRegex(licences, rf"(?m)^===== .*\b{re.escape(package)} {re.escape(version)}\b.* =====$")

    def test_retrieval_file_is_what_the_generator_makes(self):
        text = (MODEL / "retrieval.jsonl").read_text()
        length = self.config["max_position_embeddings"]
        self.assertEqual(text, retrieval_text.evaluation_file(text.count("\n"), length, "evaluation"))

    def test_card_shows_it_clearly_better_than_what_it_is_compared_with(self):
        losses = {name: float(loss) for name, loss in re.findall(r"^\| (.*?) \| (\d\.\d{4}) \|$", self.card, re.MULTILINE)}
        (model,) = (loss for name, loss in losses.items() if name.startswith("this model"))
        others = [loss for name, loss in losses.items() if "n-gram" in name or name == "`xz -9` of the held-out text"]
        self.assertEqual(len(others), 2)
        for loss in others:
            self.assertLess(model, 0.9 * loss)


if __name__ == "__main__":
    unittest.main()
