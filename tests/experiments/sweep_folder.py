"""Folders with a sweep's results, for the tests of what reads them."""

import json
import os


def run_sweep(program, text, folder):
    """Runs the sweep of an INI text; returns its folder."""
    config = folder + ".ini"
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    program.succeed("sweep", "--config", config, "--out", folder)
    return folder


def read_lines(folder):
    with open(os.path.join(folder, "results.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(folder, lines, tail=""):
    """Lines, or texts, as a sweep writes them, and what a kill left behind them; returns the folder."""
    with open(os.path.join(folder, "results.jsonl"), "w", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line, separators=(",", ":"))) + "\n")
        file.write(tail)
    return folder
