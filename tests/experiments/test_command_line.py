"""The command line as its users meet it: help, errors, configuration, output, progress.

usage: test_command_line.py TQ_BINARY SAMPLE_CAPTURE
"""

import os
import pty
import re
import shlex
import shutil
import sys
import tempfile
import unittest

from tq_program import TIMEOUT, Program, artefact_contents, write_random_capture

TQ, SAMPLE = Program(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

COMMANDS = ("demo", "inspect", "calibrate", "eval", "ppl", "retrieval", "sensitivity", "schedule", "export", "import",
            "lint", "codebook")
EVAL_KEYS = ["key_relative_mse", "key_cosine", "inner_product_bias", "inner_product_error", "softmax_kl",
             "top1_agreement", "value_relative_mse", "value_cosine", "output_error", "bytes_per_token",
             "fp16_bytes_per_token"]
SCORE_KEYS = ["relative_mse", "cosine", "softmax_kl", "top1_agreement", "output_error"]


class CommandLineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tq-command-line-")
        cls.artefact = cls.path("sample.tq.h5")
        TQ.succeed("calibrate", "--capture", SAMPLE, "--out", cls.artefact)
        cls.odd = write_random_capture(cls.path("d104.kv.h5"), layers=1, head_dim=104)  # no Hadamard matrix

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def assert_refused(self, code, arguments, *words, **options):
        """The exit code, one line on stderr with the words in it, nothing on stdout."""
        with self.subTest(arguments=arguments):
            before = sorted(os.listdir(self.folder))
            result = TQ.run(*arguments, **options)
            self.assertEqual(result.code, code, result.err)
            self.assertEqual(result.out, "")
            self.assertRegex(result.err, r"\Atq: [^\n]+\n\Z")
            for word in words:
                self.assertIn(word, result.err)
            self.assertEqual(sorted(os.listdir(self.folder)), before, "files were left")


class Help(CommandLineTest):
    def test_without_a_command(self):
        result = TQ.run()
        self.assertEqual(result.code, 2)
        for command in COMMANDS:
            self.assertRegex(result.out, rf"(?m)^  {command} ")

    def test_help(self):
        for option in ("--help", "-h", "help"):
            self.assertEqual(TQ.succeed(option).out, TQ.run().out)
        self.assertRegex(TQ.succeed("--version").out, r"\Atq \d+\.\d+\.\d+ \(.+\), .+\n\Z")

    def test_every_command_has_an_example_that_it_understands(self):
        for command in COMMANDS:
            with self.subTest(command):
                text = TQ.succeed(command, "--help").out
                self.assertEqual(TQ.succeed(command, "-h").out, text)
                self.assertIn(f"usage: tq {command}", text)
                options = re.findall(r"(?m)^  (?:-h \[ )?--([a-z-]+)", text)
                self.assertIn("help", options)
                example = re.search(r"(?m)^example: (.+)$", text)
                self.assertIsNotNone(example)
                words = shlex.split(example[1])
                self.assertEqual(words[:2], ["tq", command])
                for word in words[2:]:
                    if word.startswith("--"):
                        self.assertIn(word[2:], options)
                # Run where its files are missing, so a wrong option or value would be exit 2.
                if command not in ("demo", "codebook"):
                    self.assertEqual(TQ.run(*words[1:], cwd=self.folder).code, 3)

    def test_options_of_help_can_be_asked_for_anywhere(self):
        self.assertEqual(TQ.succeed("eval", "--key-bits", "3", "--help").out, TQ.succeed("eval", "--help").out)


class Usage(CommandLineTest):
    def test_unknown_words(self):
        self.assert_refused(2, ["evaluate"], "'evaluate'", "tq --help")
        self.assert_refused(2, ["--bogus"], "--bogus")
        self.assert_refused(2, ["eval", "--bogus", "1"], "--bogus", "tq eval --help")
        self.assert_refused(2, ["codebook", "4"], "positional")
        self.assert_refused(2, ["inspect", SAMPLE, SAMPLE], "positional")

    def test_options_are_not_abbreviated(self):
        self.assert_refused(2, ["codebook", "--bit", "3"], "--bit")
        self.assert_refused(2, ["eval", "--cap", SAMPLE], "--cap")

    def test_bad_values(self):
        self.assert_refused(2, ["codebook", "--bits", "three"], "three", "--bits")
        self.assert_refused(2, ["codebook", "--bits"], "--bits", "missing")
        self.assert_refused(2, ["codebook", "--bits", "3", "--bits", "4"], "more than once")
        self.assert_refused(2, ["codebook", "--json=perhaps"], "--json")
        self.assert_refused(2, ["codebook", "--bits", "9"], "9")
        self.assert_refused(2, ["codebook", "--dim", "0"], "0")
        for option, value in (("--key-mode", "mean"), ("--scale", "l2"), ("--sketch", "sparse"), ("--alpha", "best"),
                              ("--value-mode", "none"), ("--rotation", "dct"), ("--seed", "-1"),
                              ("--seed", str(2**64)), ("--seed", "1e3"), ("--key-bits", "2.5")):
            self.assert_refused(2, ["eval", "--capture", SAMPLE, option, value], value, option)
        self.assert_refused(2, ["calibrate", "--capture", SAMPLE, "--out", self.path("x"), "--per", "token"], "--per")
        self.assert_refused(2, ["calibrate", "--capture", SAMPLE, "--out", self.path("x"), "--holdout", "last"],
                            "--holdout")
        self.assert_refused(2, ["export", "--artefact", self.artefact, "--out", self.path("x"), "--format", "npz"],
                            "--format", "safetensors")

    def test_missing_options(self):
        for command, option in (("inspect", "--capture"), ("eval", "--capture"), ("lint", "--file"),
                                ("import", "--out"), ("export", "--format")):
            self.assert_refused(2, [command], option, "missing")
        self.assert_refused(2, ["calibrate", "--capture", SAMPLE], "--out", "missing")
        self.assert_refused(2, ["calibrate", "--out", self.path("x")], "--capture", "missing")
        self.assert_refused(2, ["import", "--out", self.path("x")], "--source", "missing")
        self.assert_refused(2, ["export", "--format", "kv-json", "--out", self.path("x")], "--artefact", "missing")

    def test_impossible_combinations(self):
        out = ["--out", self.path("x.tq.h5")]
        for command in (["eval"], ["calibrate", *out]):
            on_sample = [*command, "--capture", SAMPLE]
            self.assert_refused(2, [*on_sample, "--key-mode", "prod", "--key-bits", "1"], "prod keys take 2 to 8")
            self.assert_refused(2, [*on_sample, "--key-bits", "9"], "1 to 8")
            self.assert_refused(2, [*on_sample, "--key-bits", "0"], "1 to 8")
            self.assert_refused(2, [*on_sample, "--key-bits", "-3"], "1 to 8")
            self.assert_refused(2, [*on_sample, "--value-bits", "9"], "1 to 8")
            group = [*on_sample, "--value-mode", "group"]
            self.assert_refused(2, [*group, "--value-bits", "5"], "2, 3, 4 or 8")
            for size in ("48", "0", "-32", "12", "256"):
                self.assert_refused(2, [*group, "--group-size", size], f"group size {size}", "128")
            self.assert_refused(2, [*command, "--capture", self.odd], "Hadamard", "104", "--rotation qr")
            self.assert_refused(2, [*command, "--capture", self.odd, "--rotation", "qr", "--key-mode", "prod"], "104")
        for options in (["--key-bits", "3"], ["--seed", "0"], ["--alpha", "mse"]):
            self.assert_refused(2, ["eval", "--capture", SAMPLE, "--artefact", self.artefact, *options], "--artefact")

    def test_alpha_score_needs_queries(self):
        without = write_random_capture(self.path("pre.kv.h5"), layers=1, key_basis="pre_rope")
        options = ["--key-mode", "prod", "--alpha", "score"]
        self.assert_refused(2, ["eval", "--capture", without, *options], "--alpha score", "queries")
        # Here a warning comes first: the tables can only be judged by cosine.
        result = TQ.run("calibrate", "--capture", without, "--out", self.path("x.tq.h5"), *options)
        self.assertEqual(result.code, 2)
        self.assertRegex(result.err, r"\Atq: .+RoPE.+\ntq: --alpha score needs .+\n\Z")
        self.assertFalse(os.path.exists(self.path("x.tq.h5")))

    def test_an_input_is_not_overwritten(self):
        capture = shutil.copy(SAMPLE, self.path("own.kv.h5"))
        os.symlink(capture, self.path("alias.kv.h5"))
        for out in (capture, self.path("alias.kv.h5")):
            self.assert_refused(2, ["calibrate", "--capture", capture, "--out", out], "--out")
        self.assert_refused(2, ["export", "--artefact", self.artefact, "--format", "kv-json", "--out", self.artefact],
                            "--out")
        self.assert_refused(2, ["import", self.artefact, "--out", self.artefact], "--out")
        with open(capture, "rb") as own, open(SAMPLE, "rb") as sample:
            self.assertEqual(own.read(), sample.read())


class Configuration(CommandLineTest):
    def bits(self, *arguments, **options):
        return TQ.json("codebook", *arguments, **options)["bits"]

    def config(self, text):
        return ["--config", self.write("tq.ini", text)]

    def test_options_from_the_section(self):
        self.assertEqual(self.bits(*self.config("# tables\n[codebook]\nbits = 2\ndim=64\n")), 2)
        self.assertEqual(TQ.json("codebook", *self.config("[codebook]\ndim=64\n"))["d"], 64)

    def test_other_sections_are_ignored(self):
        self.assertEqual(self.bits(*self.config("[eval]\nkey-bits=7\nno-such=1\n[codebook]\nbits=2\n")), 2)
        self.assertEqual(self.bits(*self.config("[eval]\nkey-bits=7\n")), 3)

    def test_flags(self):
        flag = self.config("[codebook]\njson=true\n")
        self.assertEqual(TQ.succeed("codebook", *flag).out[0], "{")
        self.assertNotEqual(TQ.succeed("codebook", *flag, environment={"TQ_JSON": "0"}).out[0], "{")
        self.assertNotEqual(TQ.succeed("codebook", *self.config("[codebook]\njson=false\n")).out[0], "{")

    def test_bad_files(self):
        for text, words in (("[codebook]\nbit=3\n", ["'bit'"]), ("[codebooks]\nbits=3\n", ["[codebooks]"]),
                            ("bit=3\n", ["'bit'"]), ("[codebook]\nbits=three\n", ["three"]),
                            ("[codebook]\nbits=3\nbits=4\n", ["more than once"]), ("[codebook\nbits=3\n", []),
                            ("[codebook]\nbits\n", []), ("[codebook]\nconfig=other.ini\n", ["'config'"]),
                            ("[codebook]\nhelp=1\n", ["'help'"]), ("[codebook]\njson=perhaps\n", ["perhaps"])):
            path = self.config(text)
            self.assert_refused(2, ["codebook", *path], path[1], *words)
        self.assert_refused(2, ["codebook", "--config", self.path("missing.ini")], "missing.ini", "cannot be read")
        self.assert_refused(2, ["codebook", "--config", self.folder], self.folder, "cannot be read")
        # Boost.Program_options would fill its message in without end.
        self.assert_refused(2, ["codebook", "--dim", "%value%"], "%value%")

    def test_command_line_over_environment_over_file(self):
        file = self.config("[codebook]\nbits=2\n")
        environment = {"TQ_BITS": "4"}
        self.assertEqual(self.bits(environment=environment), 4)
        self.assertEqual(self.bits(*file, environment=environment), 4)
        self.assertEqual(self.bits(*file, "--bits", 5, environment=environment), 5)
        self.assertEqual(self.bits("--bits", 5, environment=environment), 5)
        self.assertEqual(self.bits(environment={"TQ_CONFIG": file[1]}), 2)

    def test_names_with_a_dash(self):
        report = TQ.json("eval", "--capture", SAMPLE, environment={"TQ_KEY_BITS": "4"})
        self.assertEqual(report["layers"][0]["key"], "mse4-nc")

    def test_environment_that_is_not_for_the_command(self):
        self.assertEqual(self.bits(environment={"TQ_KEY_BITS": "4", "TQ_NO_SUCH": "1", "TQ_": "1"}), 3)

    def test_bad_environment(self):
        self.assert_refused(2, ["codebook"], "TQ_", "four", environment={"TQ_BITS": "four"})


class Files(CommandLineTest):
    def test_missing_inputs(self):
        missing, out = self.path("missing"), ["--out", self.path("x")]
        for arguments in (["inspect", missing], ["eval", "--capture", missing], ["lint", missing],
                          ["eval", "--capture", SAMPLE, "--artefact", missing], ["import", missing, *out],
                          ["calibrate", "--capture", missing, *out],
                          ["export", "--artefact", missing, "--format", "kv-json", *out]):
            self.assert_refused(3, arguments, missing)

    def test_wrong_inputs(self):
        self.assert_refused(3, ["inspect", self.artefact], self.artefact)
        self.assert_refused(3, ["eval", "--capture", SAMPLE, "--artefact", SAMPLE], "not an artefact")
        self.assert_refused(3, ["eval", "--capture", self.odd, "--artefact", self.artefact], "layers")
        self.assert_refused(3, ["lint", SAMPLE])
        self.assert_refused(3, ["import", SAMPLE, "--out", self.path("x")])

    def test_outputs_that_cannot_be_written(self):
        writers = (["calibrate", "--capture", SAMPLE], ["import", self.export()],
                   ["export", "--artefact", self.artefact, "--format", "kv-json"],
                   ["export", "--artefact", self.artefact, "--format", "upstream-json"])
        for writer in writers:
            for out in (self.path("no/such/folder/x"), os.path.join(self.artefact, "x"), "/proc/x"):
                self.assert_refused(4, [*writer, "--out", out], out)
            if "upstream-json" not in writer:
                self.assert_refused(4, [*writer, "--out", self.folder], self.folder)
        # A folder of other files is not replaced by an export, nor is a file.
        self.assert_refused(2, [*writers[3], "--out", self.artefact], self.artefact)
        os.makedirs(self.path("mine/keep"), exist_ok=True)
        self.assert_refused(2, [*writers[3], "--out", self.path("mine")], "mine")
        self.assertTrue(os.path.isdir(self.path("mine/keep")))
        self.assert_refused(4, ["demo", "--out", os.path.join(self.artefact, "x")], self.artefact)

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_read_only_folder(self):
        folder = self.path("read_only")
        os.mkdir(folder, 0o500)
        self.assert_refused(4, ["calibrate", "--capture", SAMPLE, "--out", os.path.join(folder, "x")], folder)

    def test_unwritable_output_is_found_before_the_work(self):
        # The capture is not even opened: its being bad does not show.
        bad = self.write("bad.kv.h5", "not a capture")
        self.assert_refused(4, ["calibrate", "--capture", bad, "--out", self.path("no/such/x")], "no/such/x")

    def test_full_disk_under_stdout(self):
        for arguments in (["codebook"], ["eval", "--capture", SAMPLE, "--json"], ["inspect", SAMPLE], ["--help"],
                          ["eval", "--help"], ["lint", self.artefact]):
            with self.subTest(arguments=arguments), open("/dev/full", "wb") as full:
                result = TQ.run(*arguments, stdout=full)
                self.assertEqual(result.code, 4, result.err)
                self.assertRegex(result.err, r"\Atq: stdout[^\n]+\n\Z")

    def export(self):
        path = self.path("export.json")
        TQ.succeed("export", "--artefact", self.artefact, "--format", "kv-json", "--out", path)
        return path


class Json(CommandLineTest):
    def test_inspect(self):
        report = TQ.json("inspect", SAMPLE)
        self.assertEqual(list(report), ["path", "model", "description", "num_layers", "num_q_heads", "num_kv_heads",
                                        "tokens", "query_tokens", "key_basis", "rope_theta", "softmax_scale",
                                        "axis_order", "source_dtype", "layers"])
        self.assertEqual((report["num_layers"], report["tokens"], report["query_tokens"]), (4, 768, 64))
        self.assertEqual(len(report["layers"]), 4)
        for layer in report["layers"]:
            self.assertEqual(list(layer), ["head_dim", "k", "v", "q", "k_residual", "stored_bytes"])
            self.assertEqual([layer[name] for name in ("head_dim", "k", "v", "q", "k_residual")],
                             [128, "float16", "float16", "float16", None])

    def test_eval(self):
        report = TQ.json("eval", "--capture", SAMPLE)
        self.assertEqual(list(report), ["layers", "overall"])
        self.assertEqual(list(report["overall"]), EVAL_KEYS)
        for index, layer in enumerate(report["layers"]):
            self.assertEqual(list(layer), ["layer", "head_dim", "key", "value"] + EVAL_KEYS)
            self.assertEqual((layer["layer"], layer["key"], layer["value"]), (index, "mse3-nc", "rotated3-nc"))
            self.assertEqual((layer["bytes_per_token"], layer["fp16_bytes_per_token"]), (2 * 100, 2 * 512))

    def test_calibrate(self):
        report = TQ.json("calibrate", "--capture", SAMPLE, "--out", self.path("j.tq.h5"), "--key-mode", "prod",
                         "--value-mode", "group")
        self.assertEqual(list(report), ["layers", "fit_tokens", "held_out_tokens"])
        self.assertEqual(report["fit_tokens"] + report["held_out_tokens"], 768)
        for layer in report["layers"]:
            self.assertEqual(list(layer), ["layer", "key", "value", "alpha", "key_gate", "value_gate"])
            self.assertEqual(layer["value_gate"], {"candidates": [], "kept": None, "reason": ""})
            gate = layer["key_gate"]
            names = [candidate["name"] for candidate in gate["candidates"]]
            self.assertEqual(names, ["default", "default table, fitted alpha", "tuned"])
            self.assertIn(gate["kept"], names)
            for candidate in gate["candidates"]:
                self.assertEqual(list(candidate), ["name", "fit", "held_out"])
                for part in ("fit", "held_out"):
                    self.assertEqual(list(candidate[part]), SCORE_KEYS)
                    self.assertIsNone(candidate[part]["output_error"])

    def test_lint(self):
        findings = TQ.json("lint", self.artefact)
        self.assertGreater(len(findings), 0)
        for finding in findings:
            self.assertEqual(list(finding), ["severity", "place", "text"])
            self.assertEqual(finding["severity"], "note")

    def test_codebook(self):
        book = TQ.json("codebook", "--dim", 128, "--bits", 2)
        self.assertEqual(list(book), ["centroids", "boundaries", "mse_per_coord", "mse_total", "d", "bits"])
        self.assertAlmostEqual(book["mse_total"], 0.116000070, 9)
        for found, expected in zip(book["centroids"], (-0.133041520250, -0.039991595198, 0.039991595198)):
            self.assertAlmostEqual(found, expected, 12)


class Progress(CommandLineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # A second or so of work: the bar waits for half of one.
        cls.long = write_random_capture(cls.path("long.kv.h5"), layers=4, sequence_lengths=(8192,), queries=400)

    def arguments(self):
        return ["calibrate", "--capture", self.long, "--out", self.path("long.tq.h5")]

    def test_not_a_terminal(self):
        self.assertEqual(TQ.succeed(*self.arguments()).err, "")

    def test_terminal(self):
        bar = self.errors_on_a_terminal(*self.arguments())
        self.assertRegex(bar, rb"\r\x1b\[Kcalibrating \[=* *\] +\d+ %  \d+ s left")
        self.assertTrue(bar.endswith(b"\r\x1b[K"), bar[-100:])
        self.assertNotIn(b"\n", bar)

    def test_short_work_shows_no_bar(self):
        self.assertEqual(self.errors_on_a_terminal("codebook"), b"")

    @staticmethod
    def errors_on_a_terminal(*arguments):
        master, slave = pty.openpty()
        with open(os.devnull, "wb") as null:
            process = TQ.start(*arguments, stdout=null, stderr=slave)
        os.close(slave)
        seen = b""
        try:
            while chunk := os.read(master, 65536):
                seen += chunk
        except OSError:  # EIO: the last writer has closed the terminal
            pass
        os.close(master)
        if process.wait(TIMEOUT) != 0:
            raise AssertionError(seen)
        return seen


class Threads(CommandLineTest):
    def test_results_do_not_depend_on_the_number_of_threads(self):
        # Several blocks a head, and fewer heads than threads, and more.
        capture = write_random_capture(self.path("threads.kv.h5"), kv_heads=1, sequence_lengths=(1500,), queries=40)
        for path, options in ((SAMPLE, ["--key-mode", "prod", "--per", "head"]),
                              (capture, ["--key-mode", "prod", "--sketch", "gaussian", "--alpha", "score"]),
                              (capture, ["--rotation", "qr", "--key-bits", "2"])):
            artefacts, reports = [], []
            for threads in ("1", "2", "3"):
                environment = {"OMP_NUM_THREADS": threads}
                out = self.path("threads.tq.h5")
                TQ.succeed("calibrate", "--capture", path, "--out", out, *options, environment=environment)
                artefacts.append(artefact_contents(out))
                reports.append(TQ.succeed("eval", "--json", "--capture", path, "--artefact", out,
                                          environment=environment).out)
            for other in (1, 2):
                self.assertEqual(artefacts[0], artefacts[other])
                self.assertEqual(reports[0], reports[other])


del CommandLineTest  # has no tests of its own


if __name__ == "__main__":
    unittest.main()
