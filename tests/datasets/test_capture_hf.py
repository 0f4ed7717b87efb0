#!/usr/bin/env python3
"""The capture tool on tiny random models of every family, against what Transformers itself returns without any hook.

usage: test_capture_hf.py TQ_BINARY LIBTURBOQUANT

Runs under the interpreter that TQ_HF_PYTHON names, else under the one it was started with. Exits 77 where that has no
torch, transformers or h5py.
"""

import contextlib
import fcntl
import inspect
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

SKIPPED = 77

if interpreter := os.environ.pop("TQ_HF_PYTHON", None):
    os.execv(interpreter, [interpreter, *sys.argv])

TQ, LIBRARY = (os.path.abspath(path) for path in sys.argv[1:3])
del sys.argv[1:3]

try:
    import h5py
    import numpy as np
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}; TQ_HF_PYTHON may name an interpreter with torch, transformers and h5py")
    sys.exit(SKIPPED)

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "datasets" / "capture_hf.py"
sys.path[:0] = [str(SCRIPT.parent), str(REPOSITORY / "experiments" / "python")]
os.environ["TURBOQUANT_LAB_LIBRARY"] = LIBRARY

import capture_hf  # noqa: E402: after its folder has been named
from hf_capture.failure import BAD_INPUT, INTERRUPTED, MACHINE, USAGE, Failure  # noqa: E402

SEED = int(os.environ.get("TQ_TEST_SEED", torch.seed() % 2**32))
print(f"TQ_TEST_SEED={SEED}", file=sys.stderr)
torch.manual_seed(SEED)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SHAPE = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=512)
SLIDING, FULL = "sliding_attention", "full_attention"
MIXED = dict(sliding_window=24, layer_types=[SLIDING, FULL, SLIDING])
FAMILIES = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen2_sliding": (transformers.Qwen2Config, dict(use_sliding_window=True, **MIXED)),
    "qwen3": (transformers.Qwen3Config, {}),
    "mistral": (transformers.MistralConfig, dict(sliding_window=24)),
    "gemma2": (transformers.Gemma2Config, dict(query_pre_attn_scalar=16, attn_logit_softcapping=5.0, **MIXED)),
    "gemma3": (transformers.Gemma3TextConfig, dict(query_pre_attn_scalar=16, **MIXED)),
}
WINDOWS = {"qwen2_sliding": [24, None, 24], "mistral": [24] * 3, "gemma2": [24, None, 24], "gemma3": [24, None, 24],
           "gemma4": [24, 24, None]}
TEXT = bytes(np.random.default_rng(SEED).integers(0, 256, 150, dtype=np.uint8))
IDS = np.frombuffer(TEXT, np.uint8).astype(np.int64)
EVERY = 8  # queries

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="capture_hf_"))
unittest.addModuleCleanup(lambda: __import__("shutil").rmtree(FOLDER))


def make_model(name, config_class, dtype=torch.float64, **options):
    """A folder. In float64, so that a sum's order changes no stored bit."""
    folder = FOLDER / name
    if not folder.exists():
        model = transformers.AutoModelForCausalLM.from_config(config_class(**{**SHAPE, **options})).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms too, which start as 0 and 1
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return folder


def family(name):
    config_class, options = FAMILIES[name]
    return make_model(name, config_class, **options)


def text_file(content=TEXT, name="text.txt"):
    path = FOLDER / name
    path.write_bytes(content)
    return path


def run(*arguments):
    """In this process; stderr is returned."""
    log = io.StringIO()
    with contextlib.redirect_stderr(log):
        capture_hf.run(capture_hf.parse([str(argument) for argument in arguments]))
    return log.getvalue()


def read(path):
    """Every attribute and dataset but the time, as arrays."""
    contents = {}
    with h5py.File(path, "r") as file:
        def visit(name, item):
            contents.update({(name, key): np.asarray(value) for key, value in item.attrs.items() if key != "utc_time"})
            if isinstance(item, h5py.Dataset):
                values = np.empty(item.shape, np.float32 if item.dtype.kind in "fV" else item.dtype)
                item.read_direct(values)
                contents[name] = values
        visit("", file)
        file.visititems(visit)
    return contents


def assert_same(test, one, other):
    test.assertEqual(one.keys(), other.keys())
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=str(key))


def tq_inspect(path):
    done = subprocess.run([TQ, "inspect", "--json", path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def load(folder):
    return transformers.AutoModel.from_pretrained(folder, dtype="auto", attn_implementation="eager").eval()


def plain_forward(model, ids, **options):
    """The whole sequence at once, without the tool; (output, keys and values of every layer)."""
    argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    with torch.no_grad():
        cache = transformers.DynamicCache()  # made without a configuration it keeps all tokens of sliding layers too
        output = model(torch.from_numpy(ids)[None], use_cache=True, output_hidden_states=True,
                       **{argument: cache}, **options)
    assert [layer.get_seq_length() for layer in cache.layers] == [len(ids)] * model.config.num_hidden_layers
    return output, [(layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)) for layer in cache.layers]


class ByHand:
    """Queries and keys of one layer from its weights and its input, by the formulas of the papers."""

    def __init__(self, model, layer):
        self.config, self.layer = model.config, model.layers[layer]
        self.attention = self.layer.self_attn
        self.gemma = self.config.model_type.startswith("gemma")
        kind = (getattr(self.config, "layer_types", None) or [FULL] * 3)[layer]
        parameters = self.config.rope_parameters
        self.theta = parameters.get(kind, parameters)["rope_theta"]

    def rms_norm(self, x, norm):
        x = x.float()
        x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return x.double() * ((1 + norm.weight) if self.gemma else norm.weight)

    def heads(self, which, hidden):
        """tokens x heads x d, before RoPE."""
        projection = getattr(self.attention, f"{which}_proj")
        x = self.rms_norm(hidden, self.layer.input_layernorm) @ projection.weight.T
        x = x if projection.bias is None else x + projection.bias
        x = x.view(len(x), -1, self.config.head_dim)
        norm = getattr(self.attention, f"{which}_norm", None)
        return x if norm is None else self.rms_norm(x, norm)

    def rotated(self, x):
        half = x.shape[-1] // 2
        angle = torch.arange(len(x))[:, None] * self.theta ** (-torch.arange(half) / half)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class AgainstTransformers(unittest.TestCase):
    def assert_rows(self, found, expected, what):
        """Equal to one unit of the stored type, and to what float32 in a model's norms and RoPE leaves open."""
        expected = expected.detach().double().numpy()
        error = np.abs(found - expected)
        allowed = np.spacing(np.abs(expected).astype(np.float16)).astype(float) + 1e-5
        self.assertEqual(found.shape, expected.shape, what)
        self.assertLessEqual((error / allowed).max(), 1, what)

    def check(self, folder, sequences, contents, queries):
        model = load(folder)
        first, first_query = 0, 0
        for ids in sequences:
            rows = slice(first, first + len(ids))
            output, cached = plain_forward(model, ids)
            at = np.arange((len(ids) - 1) % EVERY, len(ids), EVERY)
            query_rows = slice(first_query, first_query + len(at))
            for layer, (k, v) in enumerate(cached):
                self.assert_rows(contents[f"layers/{layer:03}/k"][rows], k, f"k {layer}")
                self.assert_rows(contents[f"layers/{layer:03}/v"][rows], v, f"v {layer}")
                if queries:
                    hand = ByHand(model, layer)
                    q = hand.rotated(hand.heads("q", output.hidden_states[layer][0]))
                    self.assert_rows(contents[f"layers/{layer:03}/q"][query_rows], q[at], f"q {layer}")
            np.testing.assert_array_equal(contents["tokens/position"][rows], np.arange(len(ids)))
            np.testing.assert_array_equal(contents["tokens/q_position"][query_rows], at)
            first, first_query = rows.stop, query_rows.stop
        self.assertEqual(len(contents["tokens/position"]), first)
        self.assertEqual(len(contents["tokens/q_position"]), first_query)

    def test_families(self):
        text = text_file()
        for name in FAMILIES:
            with self.subTest(family=name):
                folder, out = family(name), FOLDER / f"{name}.kv.h5"
                run(folder, "--text", text, "--out", out, "--chunk", 37, "--query-every", EVERY)
                contents = read(out)
                self.check(folder, [IDS], contents, queries=True)
                windows = [contents.get((f"layers/{layer:03}", "sliding_window")) for layer in range(3)]
                self.assertEqual(windows, WINDOWS.get(name, [None] * 3))
                shown = tq_inspect(out)
                self.assertEqual((shown["tokens"], shown["query_tokens"], shown["num_kv_heads"]), (150, 19, 2))
                self.assertEqual(shown["softmax_scale"], 0.25)
                self.assertEqual(shown["key_basis"], "post_rope")

    def test_rope_theta_by_layer(self):
        contents = read(self.captured("gemma3"))
        self.assertEqual(contents["", "rope_theta"], 1e6)
        self.assertEqual(contents["layers/000", "rope_theta"], 1e4)
        self.assertNotIn(("layers/001", "rope_theta"), contents)

    def captured(self, name, *options):
        out = FOLDER / f"again_{name}.kv.h5"
        run(family(name), "--text", text_file(), "--out", out, "--query-every", EVERY, *options)
        return out

    def test_layers_of_different_head_dim(self):
        """Gemma 4. Its queries are judged by the attention that they give."""
        folder = make_model("gemma4", transformers.Gemma4TextConfig, global_head_dim=32, sliding_window=24,
                            layer_types=[SLIDING, SLIDING, FULL], num_global_key_value_heads=2,
                            vocab_size_per_layer_input=256, hidden_size_per_layer_input=16)
        out = FOLDER / "gemma4.kv.h5"
        run(folder, "--text", text_file(), "--out", out, "--chunk", 37, "--query-every", EVERY)
        contents = read(out)
        self.check(folder, [IDS], contents, queries=False)
        self.assertEqual([layer["head_dim"] for layer in tq_inspect(out)["layers"]], [16, 16, 32])
        self.assertNotIn(("", "head_dim"), contents)
        windows = [contents.get((f"layers/{layer:03}", "sliding_window")) for layer in range(3)]
        self.assertEqual(windows, WINDOWS["gemma4"])
        output, _ = plain_forward(load(folder), IDS, output_attentions=True)
        for layer, expected in enumerate(output.attentions):
            q, k = (contents[f"layers/{layer:03}/{name}"].astype(float) for name in ("q", "k"))
            scores = contents["", "softmax_scale"] * np.einsum("qhd,thd->hqt", q, np.repeat(k, 2, axis=1))
            at = contents["tokens/q_position"]
            distance = at[:, None] - np.arange(len(IDS))
            scores[:, (distance < 0) | (distance >= (windows[layer] or 1000))] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(weights, expected[0][:, at].detach().numpy(), atol=2e-3)

    def test_before_rope(self):
        for name in FAMILIES:
            with self.subTest(family=name):
                contents = read(self.captured(name, "--key-basis", "pre_rope", "--chunk", 37))
                model = load(family(name))
                output, cached = plain_forward(model, IDS)
                at = contents["tokens/q_position"]
                self.assertEqual(contents["", "key_basis"], b"pre_rope")
                for layer, (_, v) in enumerate(cached):
                    hand, hidden = ByHand(model, layer), output.hidden_states[layer][0]
                    self.assert_rows(contents[f"layers/{layer:03}/k"], hand.heads("k", hidden), f"k {layer}")
                    self.assert_rows(contents[f"layers/{layer:03}/q"], hand.heads("q", hidden)[at], f"q {layer}")
                    self.assert_rows(contents[f"layers/{layer:03}/v"], v, f"v {layer}")

    def test_several_sequences(self):
        """Two texts in windows; a chunk of the file's spans sequences."""
        other = bytes(reversed(TEXT)) + TEXT[:33]
        out = FOLDER / "several.kv.h5"
        run(family("qwen3"), "--text", text_file(), text_file(other, "other.txt"), "--out", out, "--window", 64,
            "--chunk", 20, "--query-every", EVERY)
        contents = read(out)
        texts = [np.frombuffer(text, np.uint8).astype(np.int64) for text in (TEXT, other)]
        sequences = [ids[begin:begin + 64] for ids in texts for begin in range(0, len(ids), 64)]
        self.check(family("qwen3"), sequences, contents, queries=True)
        lengths = [64, 64, 22, 64, 64, 55]
        np.testing.assert_array_equal(contents["tokens/sequence_id"], np.repeat(np.arange(6), lengths))
        np.testing.assert_array_equal(contents["tokens/q_sequence_id"], np.repeat(np.arange(6), [8, 8, 3, 8, 8, 7]))
        self.assertEqual(contents["", "text_names"].tolist(), [b"text.txt", b"other.txt"])
        self.assertEqual(tq_inspect(out)["tokens"], sum(lengths))

    def test_chunk_makes_no_difference(self):
        """Long enough for several chunks of the file."""
        text = text_file(np.random.default_rng(SEED).bytes(2500), "long.txt")
        folder = make_model("long", transformers.Gemma3TextConfig, **{**MIXED, "max_position_embeddings": 4096})
        results = []
        for chunk in (4096, 1000, 77):
            out = FOLDER / "chunk.kv.h5"
            run(folder, "--text", text, "--out", out, "--chunk", chunk, "--window", 1300)
            results.append(read(out))
        assert_same(self, results[0], results[1])
        assert_same(self, results[0], results[2])
        self.assertTrue(all(np.abs(results[0][f"layers/002/{name}"]).min(axis=(1, 2)).max() > 0 for name in "kvq"))

    def test_bfloat16(self):
        out = self.captured("llama", "--storage", "bfloat16")
        shown = tq_inspect(out)
        self.assertEqual({layer[name] for layer in shown["layers"] for name in "kvq"}, {"bfloat16"})
        contents, (_, cached) = read(out), plain_forward(load(family("llama")), IDS)
        np.testing.assert_array_equal(contents["layers/000/k"], cached[0][0].to(torch.bfloat16).float().numpy())
        for layer, (k, v) in enumerate(cached):
            np.testing.assert_allclose(contents[f"layers/{layer:03}/k"], k, rtol=2**-8, atol=1e-5)
            np.testing.assert_allclose(contents[f"layers/{layer:03}/v"], v, rtol=2**-8, atol=1e-5)

    def test_model_in_bfloat16(self):
        """What runs in bfloat16 is stored as it is."""
        folder = make_model("llama_bf16", transformers.LlamaConfig, torch.bfloat16)
        out = FOLDER / "llama_bf16.kv.h5"
        run(folder, "--text", text_file(), "--out", out, "--storage", "bfloat16")
        self.assertEqual(tq_inspect(out)["source_dtype"], "bfloat16")
        _, cached = plain_forward(load(folder), IDS)
        np.testing.assert_array_equal(read(out)["layers/000/k"], cached[0][0].float().numpy())

    def test_without_queries(self):
        contents = read(self.captured("llama", "--query-every", "0"))
        self.assertNotIn("layers/000/q", contents)
        self.assertNotIn("tokens/q_position", contents)


class Tokens(unittest.TestCase):
    def test_bytes(self):
        out = FOLDER / "tokens.bin"
        run(family("llama"), "--text", text_file(), text_file(b"ab", "ab.txt"), "--tokens-out", out)
        np.testing.assert_array_equal(np.fromfile(out, "<u4"), np.frombuffer(TEXT + b"ab", np.uint8))

    def test_tokenizer(self):
        out, capture = FOLDER / "words.bin", FOLDER / "words.kv.h5"
        run(self.with_tokenizer(), "--text", text_file("b a c a é".encode(), "words.txt"), "--tokens-out", out,
            "--out", capture, "--max-tokens", 4)
        np.testing.assert_array_equal(np.fromfile(out, "<u4"), [2, 1, 3, 1])
        self.assertEqual(tq_inspect(capture)["tokens"], 4)

    def test_text_is_not_utf8(self):
        with self.assertRaises(Failure) as caught:
            run(self.with_tokenizer(), "--text", text_file(b"a b \xff", "latin.txt"), "--tokens-out", FOLDER / "no")
        self.assertIn("latin.txt: is not UTF-8 at byte 4", str(caught.exception))

    def with_tokenizer(self):
        from tokenizers import Tokenizer, models, pre_tokenizers
        folder = make_model("words", transformers.LlamaConfig, vocab_size=300)
        tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2, "c": 3}, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
        return folder


# Kills its own process in the Nth call of a function of the tool, after that the threads have had time to write.
KILL = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
import capture_hf, {module} as module
function, calls = module.{function}, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == {call}:
        time.sleep(2)
        os.kill(os.getpid(), signal.{signal})
    return function(*arguments)
module.{function} = killed
sys.argv = {arguments!r}
sys.exit(capture_hf.main())
"""


class Resume(unittest.TestCase):
    def arguments(self, name):
        """Six sequences, of 2, 2, 1, 2, 2 and 1 forward passes."""
        self.out = FOLDER / f"{name}.kv.h5"
        return [str(argument) for argument in (
            family("gemma2"), "--text", text_file(), text_file(TEXT[::-1], "other.txt"), "--out", self.out,
            "--window", 60, "--chunk", 40)]

    def killed(self, arguments, module, function, call, kill="SIGKILL"):
        program = KILL.format(folder=str(SCRIPT.parent), module=module, function=function, call=call, signal=kill,
                              arguments=["capture_hf.py", *arguments])
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    def undisturbed(self):
        run(*self.arguments("undisturbed"))
        return read(self.out)

    def test_killed_between_rows(self):
        expected, arguments = self.undisturbed(), self.arguments("killed")
        done = self.killed(arguments, "hf_capture.capture", "forward", 8)
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        self.assertFalse(self.out.exists())
        with self.assertRaises(Failure) as caught:
            run(*arguments, "--query-every", 3)
        self.assertEqual(caught.exception.code, BAD_INPUT)
        self.assertIn("killed.kv.h5.partial: was left by a run with another", str(caught.exception))
        self.assertIn("goes on after 4 sequences", run(*arguments))
        assert_same(self, expected, read(self.out))
        self.assertEqual(list(FOLDER.glob("*.partial")), [])
        tq_inspect(self.out)

    def test_killed_in_the_structure(self):
        """In the middle of it, and when all of it is there but the word that it is."""
        expected = self.undisturbed()
        for where in (("hf_capture.capture_file", "_reserve", 4), ("os", "pwrite", 1)):
            with self.subTest(where=where):
                arguments = self.arguments("structure")
                done = self.killed(arguments, *where)
                self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
                self.assertNotIn("goes on", run(*arguments))
                assert_same(self, expected, read(self.out))

    def test_killed_before_the_name(self):
        """All rows are there."""
        expected, arguments = self.undisturbed(), self.arguments("named")
        done = self.killed(arguments, "os", "replace", 1)
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        self.assertIn("goes on after 6 sequences", run(*arguments))
        assert_same(self, expected, read(self.out))

    def test_interrupted(self):
        expected, arguments = self.undisturbed(), self.arguments("interrupted")
        done = self.killed(arguments, "hf_capture.capture", "forward", 8, kill="SIGINT")
        self.assertEqual(done.returncode, INTERRUPTED, done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1],
                         "capture_hf: interrupted; the same command goes on where this one stopped")
        run(*arguments)
        assert_same(self, expected, read(self.out))

    def test_two_runs_at_once(self):
        arguments = self.arguments("twice")
        with open(f"{self.out}.partial", "wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with self.assertRaises(Failure) as caught:
                run(*arguments)
        self.assertEqual(caught.exception.code, MACHINE)
        self.assertIn("another run is writing it", str(caught.exception))
        os.remove(f"{self.out}.partial")


class DryRun(unittest.TestCase):
    def test_size(self):
        out, shown = FOLDER / "dry.kv.h5", io.StringIO()
        with contextlib.redirect_stdout(shown):
            run(family("llama"), "--text", text_file(), "--out", out, "--dry-run")
        self.assertEqual(list(FOLDER.glob("dry*")), [])
        run(family("llama"), "--text", text_file(), "--out", out)
        with h5py.File(out) as file:
            stored = sum(dataset.nbytes for layer in file["layers"].values() for dataset in layer.values())
        self.assertTrue(shown.getvalue().startswith(f"{stored / 1e6:.1f} MB: 1 sequences, 150 tokens, 10 of them"))


class BadInput(unittest.TestCase):
    def refused(self, code, text, *arguments, out=FOLDER / "bad.kv.h5"):
        with self.assertRaises(Failure) as caught:
            run(*arguments, "--out", out)
        self.assertEqual(caught.exception.code, code, caught.exception)
        self.assertIn(text, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(list(FOLDER.glob("bad.kv.h5*")), [])

    def test_texts(self):
        self.refused(BAD_INPUT, "none.txt: No such file", family("llama"), "--text", FOLDER / "none.txt")
        self.refused(BAD_INPUT, "empty.txt: holds no tokens", family("llama"), "--text", text_file(b"", "empty.txt"))
        folder = make_model("no_tokenizer", transformers.LlamaConfig, vocab_size=300)
        self.refused(BAD_INPUT, "has no tokenizer that can be loaded", folder, "--text", text_file())

    def test_models(self):
        text = text_file()
        self.refused(BAD_INPUT, "has no configuration", FOLDER, "--text", text)
        transformers.T5Config().save_pretrained(FOLDER / "t5")
        self.refused(BAD_INPUT, "is an encoder-decoder model", FOLDER / "t5", "--text", text)
        folder = FOLDER / "lacking"
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
        lacking = "layers.1.self_attn.k_proj.weight"
        weights = {name: value for name, value in model.state_dict().items() if lacking not in name}
        model.save_pretrained(folder, state_dict=weights)
        self.refused(BAD_INPUT, f"1 weights are missing or misshapen, the first {lacking}", folder, "--text", text)
        os.remove(folder / "model.safetensors")
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        self.refused(BAD_INPUT, "lacking: cannot be loaded", folder, "--text", text)

    def test_options(self):
        self.refused(USAGE, "--window 513 is longer than the model's context of 512", family("llama"), "--text",
                     text_file(), "--window", 513)
        self.refused(MACHINE, "no_folder/x.kv.h5.partial: No such file or directory", family("llama"), "--text",
                     text_file(), out=FOLDER / "no_folder" / "x.kv.h5")

    def test_beyond_float16(self):
        folder = FOLDER / "large"
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
        with torch.no_grad():
            model.model.layers[1].self_attn.v_proj.weight.mul_(1e7)
        model.save_pretrained(folder)
        self.refused(BAD_INPUT, "values of layer 1 are not finite as float16; --storage bfloat16 has a wider range",
                     folder, "--text", text_file())
        run(folder, "--text", text_file(), "--out", FOLDER / "large.kv.h5", "--storage", "bfloat16")
        tq_inspect(FOLDER / "large.kv.h5")

    def command(self, prelude, *arguments):
        program = f"import runpy, sys; {prelude}; sys.argv = {['x', *map(str, arguments)]!r}; " \
                  f"sys.path.insert(0, {str(SCRIPT.parent)!r}); runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    def test_exit_codes(self):
        done = self.command("pass", family("llama"), "--text", FOLDER / "none.txt", "--out", FOLDER / "bad.kv.h5")
        self.assertEqual((done.returncode, done.stdout), (BAD_INPUT, ""))
        self.assertEqual(done.stderr, f"capture_hf: {FOLDER}/none.txt: No such file or directory\n")
        done = self.command("sys.modules['transformers'] = None")
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (MACHINE, "", 1), done.stderr)
        self.assertTrue(done.stderr.startswith("capture_hf: needs torch, transformers"), done.stderr)
        done = self.command("pass", "model", "--text", "file")
        self.assertEqual(done.returncode, USAGE, done.stderr)


class QuantisedAs(unittest.TestCase):
    """Against the project's own cache, a token at a time, in a forward pass by hand."""

    def by_hand(self, found, recent, sinks, **codecs):
        """Keys and values of every layer. The caches are fed with those of the capture, which are binary16: a
        coordinate whose code is a matter of rounding has the same code on both sides."""
        import turboquant_lab as tq
        model = load(family("llama"))
        with torch.no_grad():
            hidden, layers = model.embed_tokens(torch.from_numpy(IDS)), []
            for index in range(3):
                hand = ByHand(model, index)
                q, k, v = (hand.heads(which, hidden) for which in "qkv")
                layers.append((hand.rotated(k), v))
                keys, values = tq.KeyCodec(16, **codecs["keys"]), tq.ValueCodec(16, **codecs["values"])
                cache = tq.KvCache(tq.Layer(2, keys, values), recent=recent, sinks=sinks)
                outputs = []
                for token, query in enumerate(np.ascontiguousarray(hand.rotated(q).float().numpy())):
                    cache.append(*(found[f"layers/{index:03}/{name}"][token:token + 1] for name in "kv"))
                    outputs.append(torch.from_numpy(cache.attend(query)))
                hidden = hidden + torch.stack(outputs).double().flatten(1) @ hand.attention.o_proj.weight.T
                x, mlp = hand.rms_norm(hidden, hand.layer.post_attention_layernorm), hand.layer.mlp
                gate = torch.nn.functional.silu(x @ mlp.gate_proj.weight.T)
                hidden = hidden + (gate * (x @ mlp.up_proj.weight.T)) @ mlp.down_proj.weight.T
        return layers

    def capture(self, *options):
        out = FOLDER / "quantised.kv.h5"
        run(family("llama"), "--text", text_file(), "--out", out, "--chunk", 40, *options)
        return read(out)

    def config(self, text):
        path = FOLDER / "codec.ini"
        path.write_text("[sweep]\n" + text)
        return path

    def check(self, found, recent, sinks, **codecs):
        exact = self.capture()
        for index, pair in enumerate(self.by_hand(found, recent, sinks, **codecs)):
            for name, expected in zip("kv", pair):
                expected, dataset = expected.numpy(), f"layers/{index:03}/{name}"
                error, gap = (np.linalg.norm(contents[dataset] - expected) / np.linalg.norm(expected)
                              for contents in (found, exact))
                self.assertLess(error, 1e-3, dataset)
                # The first layer's keys and values have been through no cache yet.
                self.assertTrue(gap > 0.1 if index else gap < 1e-3, f"{dataset}: {gap}")

    def test_all_tokens(self):
        found = self.capture("--quantised-as", self.config("key-mode = prod\nkey-bits = 3\nalpha = mse\nvalue-mode = "
                                                           "group\nvalue-bits = 2\ngroup-size = 16\nseed = 5\n"))
        self.check(found, 0, 0, keys=dict(mode="prod", bits=3, alpha="mse", seed=5),
                   values=dict(mode="group", bits=2, group_size=16))
        self.assertIn(b"prod3", bytes(found["", "quantised_as"]))

    def test_recent_and_first_tokens(self):
        found = self.capture("--quantised-as", self.config("key-bits = 2\nvalue-bits = 2\nrecent-window = 20\n"
                                                           "first-tokens = 3\n"))
        self.check(found, 20, 3, keys=dict(bits=2), values=dict(bits=2))

    def test_artefact(self):
        """Its tables and its policy."""
        import turboquant_lab as tq
        exact, artefact = FOLDER / "exact.kv.h5", FOLDER / "model.tq.h5"
        run(family("llama"), "--text", text_file(), "--out", exact)
        subprocess.run([TQ, "schedule", "--capture", exact, "--out", artefact, "--budget", "84", "--key-bits", "2",
                        "--value-bits", "2", "--value-mode", "rotated", "--recent-window", "20", "--first-tokens", "3"],
                       capture_output=True, check=False)
        self.assertEqual(tq.KvCache.from_artefact(artefact).recent, 20)
        by_artefact = self.capture("--quantised-as", artefact)
        by_file = self.capture("--quantised-as", self.config("key-bits = 2\nvalue-bits = 2\nrecent-window = 20\n"
                                                             "first-tokens = 3\n"))
        for name in (name for name in by_file if isinstance(name, str) and name.startswith("layers")):
            np.testing.assert_array_equal(by_artefact[name], by_file[name])

    def test_sliding_layers(self):
        """A chunk at a time is the whole sequence at once."""
        config, results = self.config("key-bits = 2\nvalue-bits = 2\nrecent-window = 9\nfirst-tokens = 3\n"), []
        for chunk in (200, 23):
            out = FOLDER / "sliding.kv.h5"
            run(family("qwen2_sliding"), "--text", text_file(), "--out", out, "--chunk", chunk, "--quantised-as",
                config)
            results.append(read(out))
        assert_same(self, *results)

    def test_refused(self):
        for text, message in (("key-bit = 3\n", "'key-bit' is not known here"), ("key-bits = 3, 4\n", "3, 4"),
                              ("key-bits = 9\n", "9"), ("[more]\n", "one section [sweep]")):
            with self.subTest(config=text), self.assertRaises(Failure) as caught:
                self.capture("--quantised-as", self.config(text))
            self.assertEqual(caught.exception.code, BAD_INPUT)
            self.assertIn("codec.ini: ", str(caught.exception))
            self.assertIn(message, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
