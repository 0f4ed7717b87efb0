"""The jobs that write files: how each is run, what it writes, and what a disturbed run may leave."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "experiments"))
from tq_program import TIMEOUT, artefact_contents, write_random_capture

TEMPORARY = "tq-tmp"  # in the name of every temporary file and folder but the cubin cache's
CUBIN_TEMPORARY = "tqcubin-tmp"


def environment(extra=None):
    """The caller's, without what would steer `tq` but the choice of NVRTC; no GPU, and no threads that spin."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith("TQ_") or name == "TQ_NVRTC_LIBRARY"}
    return kept | {"CUDA_VISIBLE_DEVICES": "-1", "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"} | (extra or {})


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tree(folder):
    """Every file below a folder, by its path relative to it."""
    return {os.path.relpath(os.path.join(at, name), folder): read(os.path.join(at, name))
            for at, _, names in os.walk(folder) for name in names}


def without_temporaries(files):
    return {name: data for name, data in files.items() if TEMPORARY not in name}


class Lost(Exception):
    """A file was lost, or is not what it should be."""


def require(condition, what):
    if not condition:
        raise Lost(what)


class Job:
    """Runs in a folder `work` beside `inputs`, and writes in `work` alone."""

    crowd_codes = (0, 4)  # exit codes of runs side by side
    cache = False  # what it writes is a cache: that it cannot be written is no error

    def __init__(self, name, command, earlier):
        """earlier: the command of a run whose results may be there already."""
        self.name, self.command, self.earlier = name, command, earlier

    def contents(self, work):
        """What must equal an undisturbed run's: here every byte, and that there are no temporaries."""
        return tree(work)

    def check_disturbed(self, work, before, expected):
        """Raises Lost unless what a disturbed run left is as `before` (its tree), or new and whole."""
        left = without_temporaries(tree(work))
        require(left in (without_temporaries(before), expected), f"neither old nor new: {sorted(left)}")

    def crowd_command(self, number):
        """Of run `number` side by side with others."""
        return self.command

    def check_crowd(self, work, finished):
        """After runs side by side, of which those in `finished` were not killed."""

    def start(self, work, command=None, extra=None, **popen):
        return subprocess.Popen(command or self.command, cwd=work, env=environment(extra),
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **popen)

    def run(self, work, command=None, extra=None, **popen):
        with self.start(work, command, extra, **popen) as process:
            errors = process.communicate(timeout=TIMEOUT)[1].decode(errors="replace")
        return process.returncode, errors

    def succeed(self, work, command=None):
        code, errors = self.run(work, command)
        require(code == 0, f"undisturbed run: exit {code}: {errors.strip()}")


class Calibrate(Job):
    def contents(self, work):
        require(os.listdir(work) == ["out.tq.h5"], f"left {sorted(os.listdir(work))}")
        return artefact_contents(os.path.join(work, "out.tq.h5"))

    def check_disturbed(self, work, before, expected):
        left = without_temporaries(tree(work))
        if left != without_temporaries(before):  # a new one differs from another new one in its time
            require(list(left) == ["out.tq.h5"], f"left {sorted(left)}")
            require(artefact_contents(os.path.join(work, "out.tq.h5")) == expected, "neither old nor new")


class Sweep(Job):
    crowd_codes = (0, 2)
    LINES = os.path.join("results", "results.jsonl")

    def contents(self, work):
        files = tree(work)
        require(sorted(files) == [os.path.join("results", name) for name in
                                  ("manifest.json", "results.jsonl", "timings.jsonl")], f"left {sorted(files)}")
        require(json.loads(files[os.path.join("results", "manifest.json")])["runs"], "the manifest names no run")
        return files[self.LINES]

    def check_disturbed(self, work, before, expected):
        lines, kept = (files.get(self.LINES, b"") for files in (tree(work), before))
        require(lines.startswith(kept[:kept.rfind(b"\n") + 1]), "lines of an earlier run are lost")
        require(expected.startswith(lines), "lines that no undisturbed run writes")


class Tune(Job):
    crowd_codes = (0,)

    @staticmethod
    def choices(files):
        text = files.get("tuning.json")
        return {choice["kernel"]: choice["blocks"] for entry in json.loads(text)["tunings"]
                for choice in entry["choices"]} if text else {}

    def crowd_command(self, number):
        return [*self.command[:2], f"crowd{number}-", *self.command[3:]]

    def check_crowd(self, work, finished):
        path = os.path.join(work, "tuning.json")
        file = json.loads(read(path))
        (entry,) = file["tunings"]
        stored = {choice["kernel"] for choice in entry["choices"]}
        for number in finished:
            require({f"crowd{number}-{i}" for i in range(3)} <= stored, f"lost what run {number} stored")
        # So that the next run's file is like that of a run alone.
        entry["choices"] = [choice for choice in entry["choices"] if not choice["kernel"].startswith("crowd")]
        with open(path, "w", encoding="utf-8") as out:
            json.dump(file, out)

    def check_disturbed(self, work, before, expected):
        old, left, new = map(self.choices, (before, tree(work), expected))
        require(old.items() <= left.items(), "choices of an earlier run are lost")
        require(left.items() <= new.items(), "choices that no undisturbed run stores")


def kernel_of(entry):
    """The fields of a cache entry (jit/cache_entry.h) without the time in its log; none where it is damaged."""
    fields, at, end = [], 0, len(entry) - hashlib.sha256().digest_size
    if end < 0 or hashlib.sha256(entry[:end]).digest() != entry[end:]:
        return None
    while at < end:
        (size,) = struct.unpack_from("<Q", entry, at)
        fields.append(re.sub(rb"Compile time = \S+", b"", entry[at + 8:at + 8 + size]))
        at += 8 + size
    return fields


class Warm(Job):
    crowd_codes = (0,)
    cache = True

    def contents(self, work):
        # What a killed process was writing is cleared by its age, an hour later.
        return {name: kernel_of(data) for name, data in tree(work).items() if CUBIN_TEMPORARY not in name}

    def check_disturbed(self, work, before, expected):
        left = self.contents(work)
        require(before.keys() <= left.keys() <= expected.keys(), f"left {sorted(left)}")
        for name, kernel in left.items():
            require(kernel == expected[name], f"{name} is not the whole kernel")


def make_jobs(inputs, tq, write_capture, store_tuning):
    """All jobs; writes what they read to the folder `inputs`."""
    write_random_capture(os.path.join(inputs, "in.kv.h5"), layers=3, sequence_lengths=(512,), queries=16, head_dim=64)
    with open(os.path.join(inputs, "sweep.ini"), "w", encoding="utf-8") as file:
        file.write("[sweep]\nd = 64\nrows = 512\nqueries = 16\nkey-mode = mse, prod\nkey-bits = 2, 3, 4\n")

    def calibrate(mode):
        return [tq, "calibrate", "--capture", "../inputs/in.kv.h5", "--out", "out.tq.h5", "--key-mode", mode]

    def export(form, mode):
        return [tq, "export", "--artefact", f"../inputs/{mode}.tq.h5", "--format", form, "--out", "out"]

    def warm(kernels):
        return [tq, "jit", "--only", kernels, "--arch", "sm_90", "--cache", "."]

    for mode in ("mse", "prod"):
        command = calibrate(mode)
        command[command.index("out.tq.h5")] = f"{mode}.tq.h5"
        subprocess.run(command, cwd=inputs, check=True, stdout=subprocess.DEVNULL, env=environment())
    sweep = [tq, "sweep", "--config", "../inputs/sweep.ini", "--out", "results", "--resume"]
    return [Job("capture", [write_capture, "out.kv.h5", "0.002"], [write_capture, "out.kv.h5", "0.002", "0"]),
            Calibrate("calibrate", calibrate("prod"), calibrate("mse")),
            Sweep("sweep", sweep, [*sweep, "--set", "key-bits=2"]),
            *(Job(f"export {form}", export(form, "prod"), export(form, "mse"))
              for form in ("upstream-json", "kv-json", "safetensors", "c-header")),
            Tune("tune", [store_tuning, "tuning.json", "new", "3"], [store_tuning, "tuning.json", "old", "3"]),
            Warm("warm", warm("wht d16 f"), warm("wht d16 f16"))]
