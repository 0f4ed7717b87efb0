"""tq ppl: losses against NumPy's from logits, properties of codecs, and folders that are refused.

usage: test_ppl.py TQ_BINARY LOGITS_PROGRAM MODELS    MODELS: the folder that language_model/random_models.py wrote
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from model_folder import ModelFolder, bytes_model, float32, safetensors_bytes
from tq_program import Program, write_random_capture

TQ, LOGITS_PROGRAM, MODELS = Program(sys.argv[1]), sys.argv[2], sys.argv[3]
del sys.argv[1:]

LLAMA = os.path.join(MODELS, "llama")
FAMILIES = ("llama", "llama_attention_bias", "qwen2", "qwen3")


class PplTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-ppl-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def copy(self, family="llama"):
        return ModelFolder(os.path.join(MODELS, family), tempfile.mkdtemp(dir=self.folder) + "/model")

    def ppl(self, model, *options):
        return TQ.json("ppl", "--model", model, "--tokens", os.path.join(LLAMA, "tokens.u32"), *options)

    def assert_refused(self, code, options, *words):
        result = TQ.run("ppl", *options)
        self.assertEqual(result.code, code, result.err)
        self.assertEqual(result.out, "")
        self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.err)


def logits(model, tokens, cache, path):
    tokens.astype("<u4").tofile(path)
    result = subprocess.run([LOGITS_PROGRAM, model, path, cache], stdout=subprocess.PIPE, check=True, timeout=300)
    return np.frombuffer(result.stdout, "<f4").reshape(len(tokens), -1).astype(np.float64)


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


class Losses(PplTest):
    def check_estimate(self, estimate, windows):
        self.assertAlmostEqual(estimate["mean"], np.mean(windows), delta=1e-9 + 1e-6 * abs(np.mean(windows)))
        if len(windows) > 1:
            error = np.std(windows, ddof=1) / len(windows)**0.5
            self.assertAlmostEqual(estimate["standard_error"], error, delta=1e-9 + 1e-5 * error)
        else:
            self.assertIsNone(estimate["standard_error"])

    def test_against_numpy(self):
        for family in FAMILIES:
            model = os.path.join(MODELS, family)
            all_tokens = np.fromfile(os.path.join(LLAMA, "tokens.u32"), "<u4")
            for context in (160, 50, 2):  # 50: three windows and ten tokens that are not read
                with self.subTest(family=family, context=context):
                    nats, fp16_nats, kls, tops = [], [], [], []
                    for begin in range(0, len(all_tokens) - context + 1, context) if context > 2 else range(0, 160, 2):
                        tokens = all_tokens[begin:begin + context]
                        q = log_softmax(logits(model, tokens, "float32", self.path("tokens"))[:-1])
                        p = log_softmax(logits(model, tokens, "binary16", self.path("tokens"))[:-1])
                        rows = np.arange(len(tokens) - 1)
                        nats.append(np.mean(-q[rows, tokens[1:]]))
                        fp16_nats.append(np.mean(-p[rows, tokens[1:]]))
                        kls.append(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))
                        tops.append(np.mean(p.argmax(axis=1) == q.argmax(axis=1)))
                        if context == 2 and begin > 40:
                            break
                    options = ["--context", context, "--cache", "float32"]
                    if context == 2:
                        short = self.write("short.u32", all_tokens[:2 * len(nats)].tobytes())
                        report = TQ.json("ppl", "--model", model, "--tokens", short, *options)
                    else:
                        report = self.ppl(model, *options)
                    self.assertEqual(report["windows"], len(nats))
                    self.assertEqual(report["all"]["positions"], len(nats) * (context - 1))
                    self.check_estimate(report["all"]["nats"], nats)
                    self.check_estimate(report["all"]["fp16_nats"], fp16_nats)
                    self.check_estimate(report["all"]["nats_increase"], np.subtract(nats, fp16_nats))
                    self.check_estimate(report["all"]["kl"], kls)
                    self.check_estimate(report["all"]["top1_agreement"], tops)
                    self.assertAlmostEqual(report["all"]["perplexity"], np.exp(np.mean(nats)), delta=1e-3)
                    self.assertIsNone(report["beyond_exact"])

    def test_golden_logits_give_the_loss(self):
        """Without this project's forward pass on the other side: transformers' logits."""
        for family in FAMILIES:
            with self.subTest(family):
                model = os.path.join(MODELS, family)
                tokens = np.fromfile(os.path.join(model, "tokens.u32"), "<u4")
                p = log_softmax(np.fromfile(os.path.join(model, "logits.f32"), "<f4").reshape(160, -1).astype(float))
                report = TQ.json("ppl", "--model", model, "--tokens", os.path.join(model, "tokens.u32"), "--context",
                                 160, "--cache", "float32")
                wanted = -np.mean(p[np.arange(159), tokens[1:]])
                self.assertAlmostEqual(report["all"]["nats"]["mean"], wanted, delta=1e-5)

    def test_bytes_are_the_tokens(self):
        model = bytes_model(LLAMA, self.path("bytes"))
        text = bytes(np.random.default_rng(5).integers(256, size=100, dtype=np.uint8))
        by_text = TQ.json("ppl", "--model", model, "--text", self.write("text", text), "--context", 50)
        tokens = self.write("tokens", np.frombuffer(text, np.uint8).astype("<u4").tobytes())
        self.assertEqual(by_text, TQ.json("ppl", "--model", model, "--tokens", tokens, "--context", 50))

    def test_shards(self):
        shards = self.copy().save_shards(3)
        self.assertEqual(self.ppl(shards, "--context", 80), self.ppl(LLAMA, "--context", 80))

    def test_table(self):
        out = TQ.succeed("ppl", "--model", LLAMA, "--tokens", os.path.join(LLAMA, "tokens.u32"), "--context", 80,
                         "--recent-window", 16).out
        for word in ("2 windows of 80 tokens", "newest 16", "FP16", "mse3-nc + rotated3-nc", "beyond the exact",
                     "bytes a token"):
            self.assertIn(word, out)


class Codecs(PplTest):
    def test_an_exact_cache_is_the_baseline(self):
        for options in (["--recent-window", 160], ["--recent-window", 0, "--first-tokens", 160],
                        ["--recent-window", 100, "--first-tokens", 60]):
            for family in FAMILIES:
                with self.subTest(options=options, family=family):
                    report = self.ppl(os.path.join(MODELS, family), "--context", 160, "--rotation", "qr", *options)
                    self.assertLess(abs(report["all"]["kl"]["mean"]), 1e-9)
                    self.assertLess(abs(report["all"]["nats_increase"]["mean"]), 1e-6)
                    self.assertEqual(report["all"]["top1_agreement"]["mean"], 1)
                    self.assertEqual(report["bytes_per_token"], report["fp16_bytes_per_token"])
                    self.assertIsNone(report["beyond_exact"])

    def test_more_bits_do_less_harm(self):
        for family in ("llama", "qwen2"):
            kls = []
            for bits in (2, 3, 4, 8):
                report = self.ppl(os.path.join(MODELS, family), "--context", 160, "--recent-window", 8,
                                  "--key-bits", bits, "--value-bits", bits)
                kls.append(report["all"]["kl"]["mean"])
            with self.subTest(family=family, kls=kls):
                self.assertEqual(kls, sorted(kls, reverse=True))
                self.assertGreater(kls[0], 10 * kls[-1])
                self.assertGreater(kls[-1], 0)

    def test_positions_beyond_the_exact(self):
        """Up to where the first token is quantised nothing differs from FP16."""
        near = self.ppl(LLAMA, "--context", 40, "--recent-window", 36, "--first-tokens", 3, "--key-bits", 1)
        self.assertLess(abs(near["all"]["kl"]["mean"]), 1e-9)
        self.assertIsNone(near["beyond_exact"])
        far = self.ppl(LLAMA, "--context", 40, "--recent-window", 35, "--first-tokens", 3, "--key-bits", 1)
        self.assertEqual(far["beyond_exact"]["positions"], 4 * 1)
        self.assertGreater(far["all"]["kl"]["mean"], 1e-6)
        self.assertAlmostEqual(far["beyond_exact"]["kl"]["mean"], far["all"]["kl"]["mean"] * 39, delta=1e-7)

    def test_bytes(self):
        # llama: 2 layers of 2 KV heads of 16; 160 tokens.
        report = self.ppl(LLAMA, "--context", 160, "--recent-window", 32, "--first-tokens", 8, "--key-mode", "prod",
                          "--key-bits", 3, "--value-mode", "group", "--value-bits", 4, "--group-size", 8)
        exact, quantised = 4 * 16, (16 * 3 // 8 + 4) + (16 // 2 + 4 * 2)
        self.assertEqual(report["fp16_bytes_per_token"], 4 * exact)
        self.assertEqual(report["bytes_per_token"], 4 * (40 * exact + 120 * quantised) / 160)

    def test_artefact(self):
        artefact = self.path("a.tq.h5")
        capture = write_random_capture(self.path("c.kv.h5"), layers=2, kv_heads=2, q_heads=4, head_dim=16)
        TQ.succeed("calibrate", "--capture", capture, "--out", artefact, "--key-bits", 2, "--value-bits", 2)
        report = self.ppl(LLAMA, "--context", 80, "--recent-window", 16, "--artefact", artefact)
        self.assertEqual(report["cache"], artefact)
        self.assertGreater(report["beyond_exact"]["kl"]["mean"], 1e-4)
        model = ["--model", LLAMA, "--tokens", os.path.join(LLAMA, "tokens.u32"), "--artefact"]
        self.assert_refused(2, [*model, artefact, "--key-bits", "3"], "--artefact")
        other = write_random_capture(self.path("d.kv.h5"), layers=2, kv_heads=2, q_heads=4, head_dim=32)
        TQ.succeed("calibrate", "--capture", other, "--out", self.path("b.tq.h5"))
        self.assert_refused(2, [*model, self.path("b.tq.h5"), "--context", "80"], "2 KV heads of 32")


class Sweeps(PplTest):
    """measure = perplexity."""

    TOKENS = os.path.join(LLAMA, "tokens.u32")
    AXES = dict(measure="perplexity", model=LLAMA, text=f"tokens:{TOKENS}", context=40, seed=0)

    def options(self, **axes):
        return [word for name, value in {**self.AXES, **axes}.items()
                for word in ("--set", f"{name.replace('_', '-')}={value}")]

    def sweep(self, *options, **axes):
        out = tempfile.mkdtemp(dir=self.folder) + "/out"
        result = TQ.succeed("sweep", "--out", out, "--json", *options, *self.options(**axes))
        return [json.loads(line) for line in result.out.splitlines()]

    def assert_sweep_refused(self, code, *words, **axes):
        result = TQ.run("sweep", "--out", self.path("refused"), *self.options(**axes))
        self.assertEqual(result.code, code, result.err)
        self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.err)
        self.assertFalse(os.path.exists(self.path("refused")))

    def test_rows_are_what_ppl_says(self):
        rows = self.sweep(recent_window="8,40", key_bits="2,4", value_mode="rotated,group", value_bits=4, group_size=8)
        self.assertEqual(len(rows), 8)
        for row in rows:
            axes = row["configuration"]
            report = self.ppl(LLAMA, "--context", 40, "--recent-window", axes["recent-window"], "--key-bits",
                              axes["key-bits"], "--value-mode", axes["value-mode"], "--value-bits", 4,
                              "--group-size", 8)
            shared = [("nats_increase", "nats_increase"), ("prediction_kl", "kl"), ("prediction_top1", "top1_agreement")]
            pairs = [("nats", "all", "nats"), ("fp16_nats", "all", "fp16_nats"),
                     *((name, "all", metric) for name, metric in shared)]
            if axes["recent-window"] == 8:
                pairs += [(f"far_{name}", "beyond_exact", metric) for name, metric in shared]
            self.assertEqual(set(row["metrics"]), {name for name, *_ in pairs})
            for name, part, metric in pairs:
                with self.subTest(axes=axes, name=name):
                    wanted = report[part][metric]
                    self.assertAlmostEqual(row["metrics"][name]["mean"], wanted["mean"], places=12)
                    width = 1.959964 * wanted["standard_error"]
                    self.assertAlmostEqual(row["metrics"][name]["half_width"], width, places=6)
            values = 16 * 4 // 8 + (2 if axes["value-mode"] == "rotated" else 8)
            self.assertEqual(row["bytes_per_token"], 4 * (16 * axes["key-bits"] // 8 + 2 + values))

    def test_results_do_not_depend_on_jobs(self):
        axes = dict(key_mode="mse,fp8,none", value_mode="rotated,trellis", recent_window=8)
        self.assertEqual(self.sweep("--jobs", 1, **axes), self.sweep("--jobs", 3, **axes))

    def test_what_is_not_rounded_is_the_baseline(self):
        for model in (LLAMA, os.path.join(MODELS, "qwen2")):
            for axes in (dict(key_mode="fp16", value_mode="fp16"), dict(key_mode="none", value_mode="fp16"),
                         dict(key_mode="fp8", value_mode="minmax4", recent_window=40)):
                (row,) = self.sweep(**{"model": model, "recent_window": 8, **axes})
                self.assertLess(abs(row["metrics"]["prediction_kl"]["mean"]), 1e-9)

    def test_the_two_caches_agree(self):
        """Beside values of 8 bits, and beside exact ones, keys do about the same: the first are in a KvCache, the
        second are not."""
        for axes in (dict(recent_window=0), dict(recent_window=13), dict(recent_window=13, rotation="qr")):
            (stored,) = self.sweep(key_bits=2, value_bits=8, **axes)
            (decoded,) = self.sweep(key_bits=2, value_mode="none", **axes)
            (exact,) = self.sweep(key_bits=2, value_mode="fp16", **axes)
            self.assertEqual(decoded["metrics"], exact["metrics"])
            kl = decoded["metrics"]["prediction_kl"]["mean"]
            self.assertGreater(kl, 1e-2)
            self.assertAlmostEqual(stored["metrics"]["prediction_kl"]["mean"], kl, delta=0.1 * kl)

    def test_keys_are_of_contents(self):
        copy = self.copy()

        def key(model):
            return json.loads(TQ.succeed("sweep", "--dry-run", "--json", *self.options(model=model)).out)["key"]

        self.assertEqual(key(LLAMA), key(copy.path))
        copy.tensors["model.norm.weight"] = float32(np.full(32, 1.5))
        self.assertNotEqual(key(LLAMA), key(copy.save()))

    def test_table_plot_and_other_measures(self):
        out = self.path("both")
        axes = self.options(measure="perplexity,capacity", key_bits="2,3", recent_window=8)
        text = TQ.succeed("sweep", "--out", out, *axes).out
        self.assertIn("max context", text)
        self.assertIn("nats/token", text)
        if shutil.which("gnuplot"):
            TQ.succeed("plot", out, "--out", self.path("p.svg"), "--y", "nats_increase", "--only", "measure=perplexity")
        with open(os.path.join(out, "manifest.json"), encoding="utf-8") as file:
            self.assertEqual([entry["source"] for entry in json.load(file)["runs"][0]["inputs"]], sorted((LLAMA, self.TOKENS)))

    def test_refused(self):
        self.assert_sweep_refused(2, "model = FOLDER", model="none")
        self.assert_sweep_refused(2, "model = FOLDER", text="none")
        self.assert_sweep_refused(3, "config.json", "no such file", model=self.path("absent"))
        self.assert_sweep_refused(3, "--tokens", text=self.TOKENS)
        self.assert_sweep_refused(3, "absent", text="tokens:" + self.path("absent"))
        self.assert_sweep_refused(2, "256 positions", "exclude = ", context=257)
        self.assert_sweep_refused(2, "160 tokens", "exclude = ", context=161)
        self.assert_sweep_refused(2, "alpha=mse", key_mode="prod", alpha="mse")
        self.assert_sweep_refused(2, "equalise=channel", value_mode="group", group_size=8, equalise="channel")
        self.assert_sweep_refused(2, "exclude = ", key_mode="none", value_mode="none")


class Refused(PplTest):
    def test_options(self):
        tokens = ["--tokens", os.path.join(LLAMA, "tokens.u32")]
        self.assert_refused(2, ["--text", "x"], "--model", "missing")
        self.assert_refused(2, ["--model", LLAMA], "--text or --tokens")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--text", "x"], "--text or --tokens")
        for context in ("1", "0", "-5", "257"):
            self.assert_refused(2, ["--model", LLAMA, *tokens, "--context", context], "--context")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--cache", "fp8"], "'fp8'", "float32")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--backend", "gpu"], "gpu", "cuda")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--cache", "float32", "--key-bits", "3"], "no codec")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--key-mode", "prod", "--alpha", "mse"], "tq calibrate")
        self.assert_refused(2, ["--model", LLAMA, *tokens, "--recent-window", "-1"], "--recent-window")

    def test_text(self):
        self.assert_refused(3, ["--model", LLAMA, "--text", self.write("t", b"abc")], "--tokens FILE")
        model = bytes_model(LLAMA, self.path("bytes"))
        short = self.write("short", b"x" * 99)
        self.assert_refused(3, ["--model", model, "--text", short, "--context", "100"], "99 tokens", "window of 100")
        self.assert_refused(3, ["--model", model, "--text", self.path("absent")], "no such file")
        self.write("bytes/tokenizer.json", b"{}")
        self.assert_refused(3, ["--model", model, "--text", short], "tokenizer")

    def test_tokens(self):
        self.assert_refused(3, ["--model", LLAMA, "--tokens", self.write("t", b"12345")], "5 bytes")
        self.assert_refused(3, ["--model", LLAMA, "--tokens", self.write("t", struct.pack("<2I", 0, 64))],
                            "token 1 is 64, the model has 64")
        self.assert_refused(3, ["--model", LLAMA, "--tokens", self.write("t", b"")], "0 tokens")

    def check_config(self, family, changes, *words):
        folder = self.copy(family)
        for key, value in changes.items():
            if value is ...:
                del folder.config[key]
            else:
                folder.config[key] = value
        tokens = os.path.join(LLAMA, "tokens.u32")
        self.assert_refused(3, ["--model", folder.save_config(), "--tokens", tokens], "config.json", *words)

    def test_config(self):
        for changes, *words in (
                ({"model_type": "gpt2"}, "gpt2", "llama, qwen2 and qwen3"), ({"model_type": ...}, "'model_type' is missing"),
                ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling.type", "linear"),
                ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters.rope_type", "llama3"),
                ({"rope_parameters": {"rope_theta": 0}}, "rope_theta"), ({"rope_parameters": [1]}, "an object"),
                ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"), ({"sliding_window": 64}, "sliding"),
                ({"hidden_act": "gelu"}, "gelu"), ({"quantization_config": {}}, "quantised"),
                ({"vocab_size": -1}, "vocab_size"), ({"vocab_size": 2**40}, "vocab_size"),
                ({"vocab_size": "64"}, "vocab_size"), ({"num_hidden_layers": 0}, "num_hidden_layers"),
                ({"num_key_value_heads": 3}, "4 query heads cannot share 3"), ({"head_dim": 12}, "head_dim is 12"),
                ({"hidden_size": ...}, "'hidden_size' is missing"), ({"rms_norm_eps": -1}, "rms_norm_eps")):
            with self.subTest(changes=changes):
                self.check_config("llama", changes, *words)
        self.check_config("qwen2", {"use_sliding_window": True}, "sliding")
        self.check_config("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types[1]")

    def test_older_configurations_are_read(self):
        folder = self.copy()
        wanted = self.ppl(folder.path, "--context", 80)
        del folder.config["rope_parameters"]
        folder.config.update(rope_theta=500.0, rope_scaling=None)
        self.assertEqual(self.ppl(folder.save_config(), "--context", 80), wanted)
        folder.config.update(rope_theta=501.0)
        self.assertNotEqual(self.ppl(folder.save_config(), "--context", 80), wanted)
        folder = self.copy("qwen2")
        wanted = self.ppl(folder.path, "--context", 80)
        folder.config.update(sliding_window=8, use_sliding_window=False)
        self.assertEqual(self.ppl(folder.save_config(), "--context", 80), wanted)

    def check_weights(self, change, *words):
        folder = self.copy()
        change(folder)
        tokens = os.path.join(LLAMA, "tokens.u32")
        self.assert_refused(3, ["--model", folder.path, "--tokens", tokens, "--context", "80"], *words)

    def test_weights(self):
        def tensors(change):
            def apply(folder):
                change(folder.tensors)
                folder.save()
            return apply

        norm, up = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
        self.check_weights(tensors(lambda t: t.pop(up)), up, "missing")
        self.check_weights(tensors(lambda t: t.pop("model.layers.0.mlp.up_proj.bias")), "up_proj.bias", "missing")
        self.check_weights(tensors(lambda t: t.update({"model.layers.2.x": t[norm]})), "model.layers.2.x", "no such tensor")
        self.check_weights(tensors(lambda t: t.update({norm: float32(np.ones(33))})), norm, "(33)", "(32)")
        self.check_weights(tensors(lambda t: t.update({up: float32(np.ones((32, 48)))})), up, "(32, 48)", "(48, 32)")
        self.check_weights(tensors(lambda t: t.update({norm: ("I32", [32], bytes(128))})), norm, "dtype I32")
        self.check_weights(tensors(lambda t: t.update({norm: float32(np.full(32, np.nan))})), "not finite")
        self.check_weights(tensors(lambda t: t.update({norm: float32(np.full(32, np.inf))})), "not finite")

    def test_files(self):
        def write(content):
            def apply(folder):
                with open(folder.weights, "wb") as file:
                    file.write(content)
            return apply

        self.check_weights(lambda folder: os.remove(folder.weights), "neither model.safetensors")
        self.check_weights(write(b""), "too few")
        self.check_weights(write(struct.pack("<Q", 2**63) + b"{}"), "the header claims")
        self.check_weights(write(safetensors_bytes(b"{", b"")), "not valid JSON")
        with open(os.path.join(LLAMA, "model.safetensors"), "rb") as file:
            whole = file.read()
        self.check_weights(write(whole[:-1]), "data_offsets")
        self.check_weights(write(whole + b"x"), "the tensors cover")

        def index(content):
            def apply(folder):
                folder.save_shards(2)
                with open(os.path.join(folder.path, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
                    json.dump(content, file)
            return apply

        self.check_weights(index({}), "'weight_map' is missing")
        self.check_weights(index({"weight_map": {"a": "../../x.safetensors"}}), "not the name of a safetensors file")
        self.check_weights(index({"weight_map": {"a": "model.bin"}}), "not the name of a safetensors file")
        self.check_weights(index({"weight_map": {"a": "absent.safetensors"}}), "no such file")
        self.check_weights(index({"weight_map": {"a": "model-00001-of-00002.safetensors"}}), "missing")
        self.assert_refused(3, ["--model", self.path("absent"), "--tokens", "x"], "config.json", "no such file")


if __name__ == "__main__":
    unittest.main()
