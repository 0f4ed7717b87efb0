#!/usr/bin/env python3
"""Does a cheap metric order codecs as the loss does? Joins the results of two sweeps and ranks them.

    loss_correlation.py --loss perplexity --proxies proxies --json correlation.json --plot correlation.svg

--loss: results of `tq sweep --config experiments/configs/perplexity.ini`; --proxies: of experiments/configs/proxies.ini on a
capture of the same model. Prints Spearman's rank correlation of every metric with the loss beyond the recent window and
with the KL divergence of the next token, over all codec pairs and over those of each number of bits; a metric that
falls as the loss rises (cosines, agreement) counts with its sign turned. Needs NumPy; the plot needs gnuplot.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

CODEC = ("key-mode", "key-bits", "scale", "sketch", "alpha", "value-mode", "value-bits", "group-size", "rotation")
# Metric, its title, and whether more of it is better.
METRICS = (("key_relative_mse", "relative MSE of keys", False), ("key_cosine", "cosine of keys", True),
           ("value_relative_mse", "relative MSE of values", False), ("inner_product_error", "error of scores", False),
           ("softmax_kl", "softmax KL", False), ("top1_agreement", "top-1 of attention", True),
           ("output_error", "attention-output error", False))
LOSSES = (("far_nats_increase", "loss"), ("far_prediction_kl", "KL of the next token"))
SUBSETS = (("all", None), ("2 bits", "2"), ("3 bits", "3"), ("4 bits", "4"))
LEAST_PAIRS = 5  # below, an order says nothing


def fail(text):
    print(f"loss_correlation: {text}", file=sys.stderr)
    sys.exit(3)


def read_results(folder):
    path = folder / "results.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}")
    results = {}
    for row in rows:
        configuration = row["configuration"]
        key = tuple(str(configuration.get(axis, "")) for axis in CODEC)
        if key in results:
            fail(f"{path}: two rows of the codec {' '.join(filter(None, key))}; a sweep of one model and text is needed")
        results[key] = row
    return results


def ranks(values):
    """Ranks from 0; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values))
    result[order] = np.arange(len(values))
    for value in np.unique(values):
        equal = values == value
        result[equal] = result[equal].mean()
    return result


def spearman(x, y):
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def correlations(pairs):
    table = {}
    for subset, bits in SUBSETS:
        chosen = [pair for pair in pairs if bits is None or str(pair["codec"]["key-bits"]) == bits]
        if len(chosen) < LEAST_PAIRS:
            continue
        rows = {}
        for metric, _, better in METRICS:
            x = np.array([pair["metrics"][metric] for pair in chosen]) * (-1 if better else 1)
            rows[metric] = {name: spearman(x, np.array([pair[name] for pair in chosen])) for name, _ in LOSSES}
        table[subset] = {"pairs": len(chosen), "spearman": rows}
    return table


def print_table(table):
    subsets = list(table)
    print("| metric | " + " | ".join(f"{subset} ({table[subset]['pairs']}): {title}" for subset in subsets
                                      for _, title in LOSSES) + " |")
    print("|---" * (1 + len(subsets) * len(LOSSES)) + "|")
    for metric, title, _ in METRICS:
        cells = [f"{table[subset]['spearman'][metric][name]:.3f}" for subset in subsets for name, _ in LOSSES]
        print(f"| {title} | " + " | ".join(cells) + " |")


def draw(pairs, path):
    """A panel a metric, the next token's KL over it, colours by bits, both logarithmic."""
    script = ["set terminal svg size 1200,680 font 'sans,11' background '#ffffff'", f"set output '{path}'",
              "set multiplot layout 2,4", "set logscale xy", "set format x '10^{%L}'", "set format y '10^{%L}'",
              "set grid lc rgb '#dddddd'", "unset key"]
    colours = {"2": "#d1495b", "3": "#edae49", "4": "#30638e", "": "#8a8a8a"}
    for metric, title, better in METRICS:
        script.append(f"set title '{'1 - ' if better else ''}{title}'")
        blocks, plots = [], []
        for bits, colour in colours.items():
            points = [(1 - pair["metrics"][metric] if better else pair["metrics"][metric], pair["far_prediction_kl"])
                      for pair in pairs if str(pair["codec"].get("key-bits", "")) == bits]
            points = [point for point in points if min(point) > 0]
            if not points:
                continue
            plots.append(f"'-' with points pt 7 ps 0.7 lc rgb '{colour}'")
            blocks += [f"{x!r} {y!r}" for x, y in points] + ["e"]
        script += ["plot " + ", ".join(plots), *blocks]
    script += ["set border 0", "unset tics", "unset grid", "unset logscale", "unset title", "set key center", "set xrange [0:1]",
               "set yrange [0:1]", "plot " + ", ".join(f"2 with points pt 7 lc rgb '{colour}' title '{label}'" for colour, label in
                                   ((colours["2"], "2 bits"), (colours["3"], "3 bits"), (colours["4"], "4 bits"),
                                    (colours[""], "baselines")))
               + ", 2 with lines lc rgb '#ffffff' title 'up: KL of the next token'", "unset multiplot"]
    try:
        process = subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, capture_output=True, check=False)
    except FileNotFoundError:
        fail("--plot needs gnuplot (Debian: gnuplot-nox)")
    if process.returncode != 0:
        fail(f"gnuplot: {process.stderr.strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[2].strip())
    parser.add_argument("--loss", required=True, type=pathlib.Path, help="folder of the perplexity sweep's results")
    parser.add_argument("--proxies", required=True, type=pathlib.Path, help="folder of the proxies sweep's results")
    parser.add_argument("--json", type=pathlib.Path, help="write pairs and correlations there as well")
    parser.add_argument("--plot", type=pathlib.Path, help="write a figure there (SVG)")
    arguments = parser.parse_args()
    loss, proxies = read_results(arguments.loss), read_results(arguments.proxies)
    pairs = []
    for key, row in loss.items():
        if key not in proxies:
            continue  # keys alone or values alone
        value = lambda name: row["metrics"][name]["mean"]  # noqa: E731: read beside its use
        pairs.append({"codec": dict(zip(CODEC, key)), "bytes_per_token": row["bytes_per_token"],
                      "metrics": {name: proxies[key]["metrics"][name]["mean"] for name, _, _ in METRICS},
                      **{name: value(name) for name, _ in LOSSES}})
    if len(pairs) < LEAST_PAIRS:
        fail(f"{len(pairs)} codec pairs are in both sweeps; at least {LEAST_PAIRS} are needed")
    table = correlations(pairs)
    print_table(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"correlations": table, "pairs": pairs}, indent=1) + "\n")
    if arguments.plot:
        draw(pairs, arguments.plot)


if __name__ == "__main__":
    main()
