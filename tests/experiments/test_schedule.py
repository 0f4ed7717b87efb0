"""`tq sensitivity` and `tq schedule` on the embedded sample: the choice, its check, and what carries it.

usage: test_schedule.py TQ_BINARY SAMPLE_CAPTURE
"""

import os

# More threads only wait for each other in matrix products of this size.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import itertools
import json
import re
import shutil
import sys
import tempfile
import unittest

import h5py
import numpy as np

import codec_reference as reference
from tq_program import Program, artefact_contents, write_random_capture

TQ, SAMPLE = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

LAYERS, KV_HEADS, HEAD_DIM = 4, 2, 128
TOLERANCE = 1e-4  # as test_eval_against_numpy.py
FORMATS = ("upstream-json", "kv-json", "safetensors", "c-header")


def codec_bytes(described):
    """Of "mse3-nc" or "group2-gs32": a token and KV head."""
    mode, bits, rest = re.fullmatch(r"(mse|prod|rotated|group)(\d)-(.+)", described).groups()
    codes = HEAD_DIM * int(bits) // 8
    if mode == "group":
        return codes + 4 * HEAD_DIM // int(rest.removeprefix("gs"))
    return codes + (4 if mode == "prod" else 2)


def described(attributes):
    """What an artefact says of one side, as the program prints it."""
    get = lambda name: attributes[name].decode() if isinstance(attributes[name], bytes) else attributes[name]
    tail = f"gs{get('group_size')}" if get("mode") == "group" else get("sketch" if get("mode") == "prod" else "scale")
    return f"{get('mode')}{get('bits')}-{tail}"


class Schedules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tq-schedule-")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def changed_sample(self, name, change):
        path = self.path(name)
        shutil.copy(SAMPLE, path)
        os.chmod(path, 0o644)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def sample_of_rows(self, name, rows):
        """The sample with some of its rows of queries."""
        def keep(file):
            for layer in range(LAYERS):
                q = file[f"layers/{layer:03}/q"][rows]
                del file[f"layers/{layer:03}/q"]
                file[f"layers/{layer:03}/q"] = q
            position = file["tokens/q_position"][rows]
            del file["tokens/q_position"]
            file["tokens/q_position"] = position
        return self.changed_sample(name, keep)

    def assert_refused(self, code, arguments, *words):
        with self.subTest(arguments=arguments):
            result = TQ.run(*arguments)
            self.assertEqual((result.code, result.out), (code, ""), result.err)
            self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
            for word in words:
                self.assertIn(word, result.err)

    def assert_consistent(self, schedule, artefact, budget):
        """Bytes, and the codecs in the file."""
        self.assertLessEqual(schedule["bytes_per_token"], budget)
        self.assertEqual(schedule["bytes_per_token"], sum(layer["bytes_per_token"] for layer in schedule["layers"]))
        with h5py.File(artefact, "r") as file:
            self.assertEqual(len(file["layers"]), len(schedule["layers"]))
            for index, layer in enumerate(schedule["layers"]):
                self.assertEqual(layer["bytes_per_token"],
                                 KV_HEADS * (codec_bytes(layer["key"]) + codec_bytes(layer["value"])))
                for side in ("key", "value"):
                    self.assertEqual(described(file[f"layers/{index:03}/{side}"].attrs), layer[side])


class EmbeddedSample(Schedules):
    # 100 bytes a token, layer and KV head; 100 bytes a token and layer. All of core's codecs compete, the embedded
    # sample's uniform configurations included that no default names.
    def test_no_uniform_configuration_of_the_bytes_does_less_harm(self):
        keys = [f"mse{bits}-nc" for bits in (1, 2, 3, 4)] + [f"prod{bits}-orthogonal" for bits in (2, 3, 4)]
        values = [f"rotated{bits}-nc" for bits in (1, 2, 3, 4)] + [f"group{bits}-gs32" for bits in (2, 3, 4)]
        for budget in (800, 400):
            fitting = {pair for pair in itertools.product(keys, values)
                       if LAYERS * KV_HEADS * sum(map(codec_bytes, pair)) <= budget}
            with self.subTest(budget=budget):
                artefact = self.path(f"{budget}.tq.h5")
                schedule = TQ.json("schedule", "--capture", SAMPLE, "--budget", budget, "--out", artefact,
                                   "--key-mode", "mse,prod", "--value-mode", "rotated,group")
                self.assert_consistent(schedule, artefact, budget)
                TQ.succeed("lint", artefact)
                self.assertTrue(schedule["stands"])
                self.assertEqual(sorted((other["key"], other["value"]) for other in schedule["uniform"]),
                                 sorted(fitting))
                for other in schedule["uniform"]:
                    self.assertEqual(other["bytes_per_token"],
                                     LAYERS * KV_HEADS * (codec_bytes(other["key"]) + codec_bytes(other["value"])))
                    self.assertLessEqual(other["bytes_per_token"], budget)
                    self.assertLess(schedule["held_out_harm"], other["held_out_harm"])
                harms = [other["held_out_harm"] for other in schedule["uniform"]]
                self.assertEqual(harms, sorted(harms))

    def test_default_codecs(self):
        for budget in (800, 400):
            schedule = TQ.json("schedule", "--capture", SAMPLE, "--budget", budget)
            self.assertLess(schedule["held_out_harm"], schedule["uniform"][0]["held_out_harm"])

    def test_held_out_harm_is_numpys(self):
        self.check_held_out_harm("--budget", 760)

    def test_held_out_harm_of_prod_keys_is_numpys(self):
        self.check_held_out_harm("--budget", 720, "--key-mode", "prod", "--key-bits", "2,3", "--value-bits", "2,3")

    def check_held_out_harm(self, *options):
        artefact = self.path("numpy.tq.h5")
        schedule = json.loads(TQ.run("schedule", "--capture", SAMPLE, "--out", artefact, "--json", *options).out)
        self.assertGreater(len({layer["key"] for layer in schedule["layers"]}), 1)
        with h5py.File(SAMPLE, "r") as file:
            rows = len(file["tokens/q_position"])
        harms = []
        for (layer, stored), found in zip(reference.open_layers(SAMPLE, artefact), schedule["layers"]):
            layer.q, layer.visible = layer.q[:, rows // 2:], layer.visible[rows // 2:]
            coded = stored.code_keys(layer.k), stored.code_values(layer.v)
            harm = lambda k, v: reference.attention_errors(layer, k, v, np.ones(layer.tokens, bool))["output_error"]
            harms.append(harm(*coded))
            np.testing.assert_allclose(found["held_out_harm"], harms[-1], rtol=TOLERANCE)
            np.testing.assert_allclose(found["held_out_sum"], harm(coded[0], layer.v) + harm(layer.k, coded[1]),
                                       rtol=TOLERANCE)
        np.testing.assert_allclose(schedule["held_out_harm"], np.mean(harms), rtol=TOLERANCE)

    def test_no_other_choice_does_less_harm_by_the_fit_queries(self):
        """Every choice, from harms that `tq sensitivity` measures on a capture of the fit queries alone."""
        codecs = ["--key-bits", "2,4", "--value-bits", "2,3,4", "--value-mode", "rotated"]
        fit = self.sample_of_rows("fit.kv.h5", slice(0, 32))
        measured = TQ.json("sensitivity", "--capture", fit, *codecs)["measurements"]
        choices = {}
        for one in measured:
            choices.setdefault((one["layer"], one["side"]), []).append((one["bytes_per_token"], one["harm"]))
        self.assertEqual([len(own) for _, own in sorted(choices.items())], [2, 3] * LAYERS)
        combinations = np.array([(sum(b for b, _ in combination), sum(h for _, h in combination))
                                 for combination in itertools.product(*choices.values())])
        for budget in (600, 700, 830):
            schedule = TQ.json("schedule", "--capture", SAMPLE, "--budget", budget, *codecs)
            best = combinations[combinations[:, 0] <= budget, 1].min()
            self.assertAlmostEqual(schedule["fit_sum"] * LAYERS, best, delta=1e-9)
            self.assertGreater(best, combinations[:, 1].min())  # the budget is felt

    def test_protected_layers(self):
        # Whether it then beats the uniform configurations is not asked here.
        schedule = json.loads(TQ.run("schedule", "--capture", SAMPLE, "--budget", 800, "--protect-first", 1,
                                     "--protect-last", 1, "--value-mode", "rotated", "--json").out)
        self.assertLessEqual(schedule["bytes_per_token"], 800)
        for layer in (0, LAYERS - 1):
            self.assertEqual((schedule["layers"][layer]["key"], schedule["layers"][layer]["value"]),
                             ("mse4-nc", "rotated4-nc"))
        free = TQ.json("schedule", "--capture", SAMPLE, "--budget", 800, "--value-mode", "rotated")
        self.assertGreater(schedule["fit_sum"], free["fit_sum"])

    def test_a_schedule_that_loses_fails(self):
        def mute(file):  # the fit queries look everywhere alike, so keys seem not to matter
            for layer in range(LAYERS):
                q = file[f"layers/{layer:03}/q"]
                q[:32] = q[:32] * 1e-3
        capture, artefact = self.changed_sample("muted.kv.h5", mute), self.path("lost.tq.h5")
        result = TQ.run("schedule", "--capture", capture, "--budget", 800, "--out", artefact)
        self.assertEqual(result.code, 1, result.err)
        self.assertIn("in every layer does less harm", result.out)
        TQ.succeed("lint", artefact)  # written all the same: codecs may have been protected on purpose

    def test_the_same_on_any_number_of_threads(self):
        runs = []
        for threads in (1, 3):
            artefact = self.path("threads.tq.h5")
            out = TQ.succeed("schedule", "--capture", SAMPLE, "--budget", 500, "--out", artefact, "--json",
                             "--key-bits", "1,3", "--value-bits", "1,3", "--value-mode", "rotated",
                             environment={"OMP_NUM_THREADS": str(threads)}).out
            runs.append((out, artefact_contents(artefact)))
        self.assertEqual(*runs)


class Policy(Schedules):
    """Sinks and a recent window, and a schedule of mixed codecs, in everything that carries them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.capture = write_random_capture(cls.path("short.kv.h5"), layers=3, sequence_lengths=(200,), queries=40)
        cls.artefact = cls.path("mixed.tq.h5")
        # Bits differ by layer, and protecting the first makes groups stand beside rotated values.
        cls.schedule = TQ.json("schedule", "--capture", cls.capture, "--budget", 780, "--out",
                               cls.artefact, "--key-mode", "prod,mse", "--key-bits", "2,4", "--value-mode",
                               "group,rotated", "--value-bits", "2,8", "--first-tokens", 4, "--recent-window", 32,
                               "--protect-first", 1)

    def test_what_the_artefact_holds(self):
        self.assert_consistent(self.schedule, self.artefact, 780)
        with h5py.File(self.artefact, "r") as file:
            self.assertEqual((file.attrs["recent_window"], file.attrs["first_tokens"]), (32, 4))
        self.assertGreater(len({layer["key"] for layer in self.schedule["layers"]}), 1)
        self.assertEqual({layer["value"] for layer in self.schedule["layers"]}, {"group8-gs32", "rotated2-nc"})

    def test_exports_carry_it(self):
        evaluated = TQ.json("eval", "--capture", self.capture, "--artefact", self.artefact)
        with h5py.File(self.artefact, "r") as file:
            digest = file.attrs["sha256"]
        for name in FORMATS:
            with self.subTest(format=name):
                export, back = self.path(name), self.path(f"{name}.tq.h5")
                TQ.succeed("export", "--artefact", self.artefact, "--format", name, "--out", export)
                TQ.succeed("import", export, "--out", back)
                with h5py.File(back, "r") as file:
                    self.assertEqual(file.attrs["sha256"], digest)
                    self.assertEqual((file.attrs["recent_window"], file.attrs["first_tokens"]), (32, 4))
                self.assertEqual(TQ.json("eval", "--capture", self.capture, "--artefact", back), evaluated)

    def test_eval_applies_it(self):
        text = TQ.succeed("eval", "--capture", self.capture, "--artefact", self.artefact).out
        self.assertIn("exact: the first 4 tokens and the newest 32", text)
        self.assertIn("codecs by layer", text)
        report = TQ.json("eval", "--capture", self.capture, "--artefact", self.artefact)
        for index, (layer, stored) in enumerate(reference.open_layers(self.capture, self.artefact)):
            q_position = np.arange(160, 200)
            token = np.arange(200)
            exact = (token < 4) | (q_position[:, None] - token < 32)
            k, v = stored.code_keys(layer.k), stored.code_values(layer.v)
            errors = []
            for head in range(len(layer.q)):
                kv = head // 2
                _, _, _, output = layer.exact_attention[head]
                s = np.where(exact, layer.q[head] @ layer.k[kv].T, layer.q[head] @ k[kv].T) * layer.scale
                p = np.exp(reference.log_softmax(s, layer.visible))
                found = np.where(exact, p, 0) @ layer.v[kv] + np.where(exact, 0, p) @ v[kv]
                errors.append(((found - output) ** 2).sum(-1) / (output**2).sum(-1))
            np.testing.assert_allclose(report["layers"][index]["output_error"], np.mean(errors), rtol=TOLERANCE)

    def test_more_exact_tokens_do_less_harm(self):
        def harm(*options):
            entries = TQ.json("sensitivity", "--capture", self.capture, *options)["measurements"]
            return sum(entry["harm"] for entry in entries)
        self.assertEqual(harm(), harm("--recent-window", 0, "--first-tokens", 0))
        self.assertLess(harm("--recent-window", 64), 0.8 * harm())
        self.assertLess(harm("--first-tokens", 100), 0.8 * harm())
        self.assertLess(harm("--recent-window", 200), 1e-9)


class Sensitivity(Schedules):
    def test_each_side_alone_is_what_eval_measures(self):
        """An artefact whose other side has 8 bits does the harm of the one, and a little more."""
        result = TQ.json("sensitivity", "--capture", SAMPLE, "--key-bits", "3,8", "--value-bits", "8,3")
        entries = {(e["layer"], e["side"], e["bits"]): e for e in result["measurements"]}
        self.assertEqual(len(entries), 4 * LAYERS)
        for options, side in ((["--key-bits", 3, "--value-bits", 8], "keys"),
                              (["--key-bits", 8, "--value-bits", 3], "values")):
            for layer in TQ.json("eval", "--capture", SAMPLE, *options)["layers"]:
                alone = entries[layer["layer"], side, 3]
                other = entries[layer["layer"], "values" if side == "keys" else "keys", 8]
                self.assertAlmostEqual(layer["output_error"], alone["harm"], delta=3 * other["harm"] + 0.02 * alone["harm"])
                self.assertEqual(alone["bytes_per_token"], KV_HEADS * 50)
                if side == "keys":
                    self.assertAlmostEqual(layer["softmax_kl"], alone["softmax_kl"], delta=1e-12)
                else:
                    self.assertIsNone(alone["softmax_kl"])
                self.assertGreater(alone["harm_standard_error"], 0)

    def test_the_table_ranks(self):
        rows = TQ.succeed("sensitivity", "--capture", SAMPLE).out.splitlines()[4:]
        harms = [float(row.split()[4]) for row in rows]
        self.assertEqual(len(harms), 2 * LAYERS)
        self.assertEqual(harms, sorted(harms, reverse=True))
        self.assertEqual([row.split()[0] for row in rows], [str(i + 1) for i in range(2 * LAYERS)])


class Refusals(Schedules):
    def test_budget(self):
        schedule = ["schedule", "--capture", SAMPLE]
        self.assert_refused(2, schedule, "--budget is missing")
        self.assert_refused(2, [*schedule, "--budget", "100"], "100 bytes", "the least is 288")
        self.assert_refused(2, [*schedule, "--budget", "-5"], "the least is 288")
        self.assert_refused(2, [*schedule, "--budget", "many"], "budget")
        # Two layers of 18 + 18 bytes a head, two of 66 + 66.
        protecting = [*schedule, "--budget", "671", "--protect-last", "2", "--value-mode", "rotated"]
        self.assert_refused(2, protecting, "the least is 672")
        self.assert_refused(2, [*schedule, "--budget", "800", "--protect-first", "5"], "has 4 layers")

    def test_codecs(self):
        for command in (["schedule", "--budget", "800"], ["sensitivity"]):
            command += ["--capture", SAMPLE]
            for options, words in (
                    (["--key-bits", "3,x"], ("--key-bits", "'x'")),
                    (["--key-bits", "9"], ("--key-bits", "'9'")),
                    (["--key-bits", ""], ("--key-bits", "empty")),
                    (["--key-bits", "3,3"], ("--key-bits", "twice")),
                    (["--key-mode", "prod", "--key-bits", "1,2"], ("--key-bits", "prod", "1 bits")),
                    (["--key-mode", "prod,mse,fast"], ("--key-mode", "fast")),
                    (["--value-mode", "group", "--value-bits", "5"], ("--value-bits", "group", "5 bits")),
                    (["--value-mode", "group", "--value-bits", "2", "--group-size", "48"], ("48", "128")),
                    (["--recent-window", "-1"], ("--recent-window",)),
                    (["--first-tokens", "99999999999"], ("first-tokens",))):
                self.assert_refused(2, command + options, *words)

    def test_a_group_that_does_not_divide_is_left_out_unless_asked_for(self):
        odd = write_random_capture(self.path("d80.kv.h5"), layers=1, head_dim=80, sequence_lengths=(64,), queries=8)
        schedule = TQ.run("schedule", "--capture", odd, "--budget", 120, "--json")
        self.assertIn(schedule.code, (0, 1))
        self.assertNotIn("group", schedule.out)
        self.assert_refused(2, ["schedule", "--capture", odd, "--budget", "120", "--value-mode", "group",
                                "--value-bits", "2"], "32", "80")

    def test_captures(self):
        def drop_queries(file):
            for layer in range(LAYERS):
                del file[f"layers/{layer:03}/q"]
            del file["tokens/q_position"]

        def drop_values(file):
            for layer in range(LAYERS):
                del file[f"layers/{layer:03}/v"]

        def before_rope(file):
            file.attrs["key_basis"] = "pre_rope"

        for name, change, words in (("no_q", drop_queries, "no queries"), ("no_v", drop_values, "no v"),
                                    ("pre", before_rope, "before RoPE")):
            capture = self.changed_sample(f"{name}.kv.h5", change)
            self.assert_refused(3, ["sensitivity", "--capture", capture], capture, words)
            self.assert_refused(3, ["schedule", "--capture", capture, "--budget", "800"], capture, words)
        one = self.sample_of_rows("one.kv.h5", slice(63, 64))
        TQ.succeed("sensitivity", "--capture", one)
        self.assert_refused(3, ["schedule", "--capture", one, "--budget", "800"], one, "one row of queries")
        copy = self.changed_sample("copy.kv.h5", lambda file: None)
        self.assert_refused(2, ["schedule", "--capture", copy, "--budget", "800", "--out", copy], "is read")


if __name__ == "__main__":
    unittest.main()
