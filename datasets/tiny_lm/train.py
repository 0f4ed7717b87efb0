#!/usr/bin/env python3
"""Trains the small byte-level model that ships with the project, on text found on this machine.

    train.py --out model --minutes 8
    train.py --out /tmp/tiny --steps 20 --rows 4 --set num_hidden_layers=2 --set max_position_embeddings=256

Needs PyTorch and safetensors, and for the full size a GPU. Writes a Hugging Face Llama folder: config.json,
model.safetensors (bfloat16), heldout.txt with heldout_licences.txt, retrieval.jsonl, and README.md, the card. Every save
renews weights and card, so a run that is cut off leaves the last save. Prints the record of the run as JSON; the log goes
to stderr.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import safetensors.torch
import torch

import card
import retrieval_text
from corpus import collect
from evaluation import evaluate
from llama import Config, Llama
from training import OPTIMISER, Batches, Trainer

START = time.monotonic()
RETRIEVAL_DOCUMENTS = 64
# The first steps compile and warm up; those after them are timed, and so the number of all is fixed.
UNTIMED_STEPS, TIMED_STEPS = 10, 50
LOG_SECONDS, SAVE_SECONDS = 5, 40
# Of --minutes: what the last save and the baselines need after the last step, and the share of time that saves take.
FINISH_SECONDS, SAVES_SHARE = 25, 0.04


def say(text):
    print(f"train: {time.monotonic() - START:6.1f} s  {text}", file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[2].strip())
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder to write")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="wall clock of the whole run")
    length.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--rows", type=int, default=32, help="rows of context length a step (32)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=NUMBER",
                        help="another number in config.json, e.g. hidden_size=128; may be repeated")
    parser.add_argument("--continue-from", type=pathlib.Path, metavar="FOLDER",
                        help="start from what an earlier run wrote, with a learning-rate schedule of its own")
    parser.add_argument("--training-bytes", type=int, default=150_000_000, help="text to train on, at most (150000000)")
    parser.add_argument("--heldout-bytes", type=int, default=200_000, help="held-out text, about (200000)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, windows and key-value documents (1)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    parser.add_argument("--revision", default="not given", help="the project's revision, for the card")
    arguments = parser.parse_args()
    if (arguments.minutes or arguments.steps or 0) <= 0 or arguments.rows < 2:
        parser.error("--minutes or --steps must be above 0, and --rows at least 2")
    return arguments


def refuse(text):
    """Ends the program: the input is at fault."""
    print(f"train: {text}", file=sys.stderr)
    sys.exit(3)


def configuration(arguments):
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    config = Config()
    if arguments.continue_from:
        stored = json.loads((arguments.continue_from / "config.json").read_text(encoding="utf-8"))
        config = Config(**{name: stored[name] for name in fields})
    for setting in arguments.set:
        name, _, value = setting.partition("=")
        if name not in fields:
            refuse(f"--set {setting}: the fields are {', '.join(fields)}")
        try:
            config = dataclasses.replace(config, **{name: fields[name](value)})
        except ValueError:
            refuse(f"--set {setting}: not a number")
    return config


def write(path, data):
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def command_line(arguments):
    """As given, less where the folders happened to lie."""
    folders = {str(folder): folder.name for folder in (arguments.out, arguments.continue_from) if folder}
    return shlex.join(["train.py"] + [folders.get(part, part) for part in sys.argv[1:]])


class Baselines:
    """baselines.py on the corpus, in a process beside the training."""

    def __init__(self, folder, corpus):
        command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "baselines.py")]
        for name in ("training", "heldout"):
            path = pathlib.Path(folder, name)
            path.write_bytes(getattr(corpus, name))
            command += [f"--{name}", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.losses = None

    def wait(self, seconds):
        """The losses if they are there within `seconds` (None: however long it takes), else {}."""
        if self.losses is None:
            try:
                output, _ = self.process.communicate(timeout=seconds)
                self.losses = json.loads(output)
            except subprocess.TimeoutExpired:
                pass
            except ValueError:
                say("baselines.py failed: the card will lack its figures")
                self.losses = {}
        return self.losses or {}

    def end(self):
        self.process.kill()
        self.process.wait()


class Plan:
    """How many steps to take: a given number, or, once some have been timed, what fits before the deadline."""

    def __init__(self, arguments):
        self.steps = arguments.steps
        self.deadline = START + 60 * arguments.minutes - FINISH_SECONDS if arguments.minutes else math.inf

    def done(self, steps):
        """Whether training ends after `steps` steps."""
        if self.steps is None and steps in (UNTIMED_STEPS, UNTIMED_STEPS + TIMED_STEPS):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.monotonic()
            if steps == UNTIMED_STEPS:
                self.timed_from = now
            else:
                rate = TIMED_STEPS / (now - self.timed_from)
                self.steps = steps + max(1, int((self.deadline - now) * (1 - SAVES_SHARE) * rate))
                say(f"{rate:.2f} steps/s: {self.steps} steps in all")
        return steps == self.steps or time.monotonic() > self.deadline

    def seconds_to_finish(self):
        """What is left for the end; None: no limit."""
        return None if math.isinf(self.deadline) else max(1, self.deadline + FINISH_SECONDS - time.monotonic())


class Run:
    """One training run, its record and its folder."""

    def __init__(self, arguments, config, corpus, baselines):
        self.out, self.corpus, self.baselines = arguments.out, corpus, baselines
        self.plan = Plan(arguments)
        device = torch.device(arguments.device)
        retrieval = retrieval_text.evaluation_file(RETRIEVAL_DOCUMENTS, config.max_position_embeddings, "evaluation")
        self.retrieval_lines = retrieval.splitlines()
        self.files = {"config.json": (json.dumps(config.as_json(), indent=2) + "\n").encode(),
                      "heldout.txt": corpus.heldout, "heldout_licences.txt": corpus.heldout_licences.encode(),
                      "retrieval.jsonl": retrieval.encode()}
        self.out.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            write(self.out / name, data)

        torch.manual_seed(arguments.seed)
        model, started_from = Llama(config), "random weights"
        if arguments.continue_from:
            weights = (arguments.continue_from / "model.safetensors").read_bytes()
            model.load_state_dict(safetensors.torch.load(weights))
            started_from = f"weights with SHA-256 {card.sha256(weights)}"
        self.shipped = Llama(config).to(device)
        say(f"{sum(weight.numel() for weight in model.parameters())} parameters; making key-value documents")
        batches = Batches(corpus.training, config.max_position_embeddings + 1, arguments.rows, arguments.seed, device)
        self.trainer = Trainer(model.to(device), batches, not arguments.no_compile, say)
        where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        self.record = {
            "config": config.as_json(), "parameters": sum(weight.numel() for weight in model.parameters()),
            "command": command_line(arguments), "revision": arguments.revision, "machine": where,
            "software": f"PyTorch {torch.__version__}, Python {platform.python_version()}",
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "steps": 0, "planned_steps": None, "rows": arguments.rows,
            "retrieval_rows": batches.retrieval_rows, "seconds": 0.0, "optimiser": OPTIMISER,
            "started_from": started_from, "curve": [], "baselines": {}, "evaluation": None}

    def train(self):
        """Steps until there are enough; saves on the way, at the end and when interrupted."""
        losses, total, count, done = None, 0, 0, False
        try:
            while not done:
                total, count = total + self.trainer.step(self.plan.steps), count + 1
                done = self.plan.done(self.trainer.steps)
                now = time.monotonic()
                if self.trainer.steps == 1:
                    started = logged = saved = now
                    say("the first step is done")
                if done or now - logged > LOG_SECONDS:
                    losses, total, count, logged = (total / count).tolist(), 0, 0, now
                    say(f"step {self.trainer.steps} of {self.plan.steps or 'a number not known yet'}: "
                        f"text {losses[0]:.4f}, key-value documents {losses[1]:.4f}")
                    if not all(map(math.isfinite, losses)):
                        sys.exit("train: the loss is not finite: what was saved last stays")
                    self.record["seconds"] = now - started
                    if done or now - saved > SAVE_SECONDS:
                        saved = now
                        self.save(losses)
        except KeyboardInterrupt:
            if losses:
                self.save(losses)
            raise

    def save(self, losses):
        """Weights as they ship, what they are worth, and the card; `losses` of the latest batches."""
        state = {name: weight.detach().to(torch.bfloat16).cpu() for name, weight in
                 self.trainer.model.state_dict().items()}
        self.files["model.safetensors"] = safetensors.torch.save(state, metadata={"format": "pt"})
        write(self.out / "model.safetensors", self.files["model.safetensors"])
        self.shipped.load_state_dict(state)
        evaluation = evaluate(self.shipped, self.corpus.heldout, self.retrieval_lines)
        counts = evaluation["retrieval"].values()
        retrieved = sum(right for _, right in counts) / sum(queries for queries, _ in counts)
        steps = self.trainer.steps
        say(f"step {steps} saved: held-out {evaluation['loss']:.4f} nats a byte, {retrieved:.1%} of values retrieved")
        self.record |= {"steps": steps, "planned_steps": self.plan.steps, "evaluation": evaluation,
                        "baselines": self.baselines.wait(0)}
        self.record["curve"].append([steps, *losses, evaluation["loss"], retrieved])
        self.write_card()

    def write_card(self):
        write(self.out / "README.md", card.render(self.record, self.corpus, self.files).encode())

    def finish(self):
        """The card with the baselines, for which it waits as long as --minutes allow."""
        self.record["baselines"] = self.baselines.wait(self.plan.seconds_to_finish())
        if not self.record["baselines"]:
            say("there are no baselines")
        self.write_card()


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, interrupt)
    config = configuration(arguments)
    corpus = collect(arguments.training_bytes, arguments.heldout_bytes, say)
    if len(corpus.training) <= config.max_position_embeddings or not corpus.heldout:
        refuse(f"found {len(corpus.training)} bytes to train on and {len(corpus.heldout)} to hold out: install packages")
    if arguments.continue_from and (arguments.continue_from / "heldout.txt").read_bytes() != corpus.heldout:
        refuse(f"{arguments.continue_from} has another held-out text, which this run could train on")
    with tempfile.TemporaryDirectory() as folder:
        baselines = Baselines(folder, corpus)
        try:
            run = Run(arguments, config, corpus, baselines)
            run.train()
            run.finish()
        finally:
            baselines.end()
    print(json.dumps(run.record, indent=2))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except OSError as error:
        refuse(error)
