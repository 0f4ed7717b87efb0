#!/usr/bin/python3
"""Training of the small model, a few steps of a smaller one, and what is written, against Hugging Face transformers.

Runs in the interpreter that TQ_HF_PYTHON names, which has PyTorch, safetensors and transformers. Exits 77 without them.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

interpreter = os.environ.pop("TQ_HF_PYTHON", None)
if interpreter:
    os.execv(interpreter, [interpreter, *sys.argv])
try:
    import safetensors.torch
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "datasets" / "tiny_lm"
sys.path.insert(0, str(FOLDER))

import card  # noqa: E402
import evaluation  # noqa: E402
import llama  # noqa: E402
import training  # noqa: E402

CONTEXT = 128
SMALL = [sys.executable, FOLDER / "train.py", "--device", "cpu", "--no-compile", "--rows", "8",
         "--training-bytes", "1000000", "--heldout-bytes", "2000"]
for setting in ("hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "head_dim=16", "rope_theta=300",
                f"max_position_embeddings={CONTEXT}"):
    SMALL += ["--set", setting]
torch.set_num_threads(1)


def train(folder, *options):
    return subprocess.run([*SMALL, "--out", folder, *options], capture_output=True, text=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name, "model")
        done = train(cls.folder, "--steps", "60", "--revision", "abc123")
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.record = json.loads(done.stdout)
        cls.config = json.loads((cls.folder / "config.json").read_text())

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def model(self):
        """The shipped weights in the class that was trained."""
        fields = {name: self.config[name] for name in llama.Config.__dataclass_fields__}
        model = llama.Llama(llama.Config(**fields))
        model.load_state_dict(safetensors.torch.load_file(self.folder / "model.safetensors"))
        return model

    def test_loss_shrinks(self):
        # ln 256 is 5.545: what a model knows that has seen nothing.
        self.assertLess(self.record["evaluation"]["loss"], 4.0)
        self.assertEqual((self.record["steps"], self.record["planned_steps"]), (60, 60))

    def test_folder_is_whole(self):
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["README.md", "config.json", "heldout.txt", "heldout_licences.txt", "model.safetensors",
                          "retrieval.jsonl"])
        text = (self.folder / "README.md").read_text()
        for name in os.listdir(self.folder):
            if name != "README.md":
                self.assertIn(card.sha256((self.folder / name).read_bytes()), text)
        for value in (self.record["evaluation"]["loss"], *self.record["baselines"].values()):
            self.assertIn(f"{value:.4f}", text)
        self.assertIn("abc123", text)
        self.assertIn("--out model ", text)
        self.assertNotIn(self.temporary.name, text)
        self.assertEqual(len(self.record["baselines"]), 3)

    def test_logits_are_those_of_transformers(self):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        self.assertIs(type(theirs), transformers.LlamaForCausalLM)
        tokens = torch.frombuffer(bytearray((self.folder / "heldout.txt").read_bytes()[:2 * CONTEXT]), dtype=torch.uint8)
        tokens = tokens.long().view(2, CONTEXT)
        with torch.no_grad():
            ours = self.model()(tokens)
            self.assertLess((ours - theirs(tokens).logits).abs().max(), 1e-5)
        self.assertGreater(ours.std(), 0.1)

    def test_heldout_loss_against_one_byte_at_a_time(self):
        text = (self.folder / "heldout.txt").read_bytes()[:3 * CONTEXT + 17]
        model, total = self.model(), 0.0
        with torch.no_grad():
            for i in range(1, len(text)):
                # The window that begins at a multiple of CONTEXT / 2 and has at least that much before byte i.
                begin = max(0, (i - 1) // (CONTEXT // 2) - 1) * (CONTEXT // 2)
                logits = model(torch.tensor([list(text[begin:i])]))[0, -1]
                total -= logits.log_softmax(0)[text[i]].item()
            loss = evaluation.windows_loss(model, text, CONTEXT)
        self.assertAlmostEqual(loss, total / (len(text) - 1), places=5)

    def test_continued_run_starts_from_the_weights(self):
        with tempfile.TemporaryDirectory() as folder:
            done = train(folder, "--steps", "2", "--continue-from", self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            record = json.loads(done.stdout)
            self.assertLess(record["evaluation"]["loss"], 4.0)
            self.assertIn(card.sha256((self.folder / "model.safetensors").read_bytes()), record["started_from"])

    def test_another_heldout_text_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("config.json", "model.safetensors"):
                pathlib.Path(folder, name).write_bytes((self.folder / name).read_bytes())
            pathlib.Path(folder, "heldout.txt").write_text("another")
            done = train(f"{folder}/out", "--steps", "2", "--continue-from", folder)
            self.assertEqual(done.returncode, 3)
            self.assertIn("another held-out text", done.stderr)
            self.assertFalse(pathlib.Path(folder, "out").exists())

    def test_interrupted_run_leaves_a_model(self):
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen([*SMALL, "--out", folder, "--steps", "1000000"], stderr=subprocess.PIPE, text=True,
                                       env=os.environ | {"OMP_NUM_THREADS": "1"})
            for line in process.stderr:
                if "of 1000000" in line:
                    process.send_signal(signal.SIGTERM)
                    break
            process.communicate()
            self.assertEqual(process.returncode, 130)
            self.assertNotIn("model.safetensors.partial", os.listdir(folder))
            self.assertIn("of 1000000 |", pathlib.Path(folder, "README.md").read_text())
            safetensors.torch.load_file(pathlib.Path(folder, "model.safetensors"))

    def test_bad_settings_are_refused(self):
        for option, status, text in ((["--set", "layers=3"], 3, "the fields are"), (["--set", "head_dim=x"], 3, "number"),
                                     (["--steps", "0"], 2, "above 0")):
            done = train("/nowhere", "--steps", "1", *option)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(text, done.stderr)


class Parts(unittest.TestCase):
    def test_learning_rate(self):
        rates = [training.learning_rate(step, 10_000) for step in range(10_000)]
        self.assertEqual(max(rates), training.PEAK_RATE)
        self.assertEqual(rates.index(max(rates)), training.WARM_UP_STEPS - 1)
        self.assertAlmostEqual(rates[-1], training.LAST_RATE, places=8)
        self.assertEqual(sorted(rates[training.WARM_UP_STEPS:], reverse=True), rates[training.WARM_UP_STEPS:])
        # Until the number of steps is known, the same as after.
        self.assertEqual([training.learning_rate(step, None) for step in range(60)], rates[:60])

    def test_retrieval_counts_whole_answers(self):
        # Of this text the model below predicts all but the b at 1 and the x.
        line = json.dumps({"text": "zbcabcxab", "queries": [
            {"answer_start": start, "answer_length": 3, "distance": distance}
            for start, distance in ((2, 3), (3, 257), (5, 256), (6, 256))]})

        class Cycle(torch.nn.Module):
            """Says that c follows b, b follows a, and a follows all else."""
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, tokens):
                follower = torch.full((256,), ord("a")).scatter(0, torch.tensor([ord("a"), ord("b")]),
                                                                torch.tensor([ord("b"), ord("c")]))
                return torch.nn.functional.one_hot(follower[tokens], 256)

        self.assertEqual(evaluation.retrieval_accuracy(Cycle(), [line]), {256: (3, 1), 512: (1, 1)})


if __name__ == "__main__":
    unittest.main()
