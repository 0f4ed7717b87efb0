#!/usr/bin/env python3
"""Times `tq calibrate` on a large synthetic capture with one and with two MPI processes of one thread each, and takes the
terms of the model below to 64 processes on paper.

    python3 calibrate_scaling.py --bin build/release/experiments --gigabytes 8 --out experiments/results/scaling

The capture is written to --scratch (default: the system's temporary folder) and removed afterwards; --capture takes one
that was written before, by write_synthetic_capture, and leaves it there. Runs of one and two processes alternate; the file
lies in the page cache, but for the first run of each, before which it is dropped from there. Every process is watched by a
Python process around it, which takes its CPU seconds and its peak memory. On a machine that others use as well, wall times
say little; the CPU seconds of the busiest process are what it would take alone.

The model, for L layers of H KV heads and K processes in teams of g: a team does ceil(L / teams) layers, and one takes

    read (1 / g + 1) + compute ceil(H / g) / H        seconds, and the job   start + layers of a team x that

because the members of a team share the fit's reading, but each reads the whole layer to judge. `read` is what `tq inspect`
takes to read and check a layer once, `compute` what is left of a calibration by one process, `start` a calibration of a
capture of as many layers with hardly any tokens: launch, Lloyd-Max iterations and writing. The digest of a file comes on
top, in one process: of one file in the first, of several files in turns.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, KV_HEADS, QUERY_ROWS, Q_HEADS = 8, 4, 16, 16  # of write_synthetic_capture.cpp


def watch(folder, command):
    """One process of an MPI job: runs the command and leaves what it took in the folder."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    rank = os.environ["OMPI_COMM_WORLD_RANK"]
    (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(
        {"user_s": usage.ru_utime, "system_s": usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}))
    return os.waitstatus_to_exitcode(status)


def timed(command, **options):
    begin = time.perf_counter()
    before = os.times()
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            **options)
    wall = time.perf_counter() - begin
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stdout}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def calibrate(tq, capture, out, processes, scratch):
    launcher = ["mpirun", "-q", "-n", processes, "--oversubscribe"]
    if os.geteuid() == 0:
        launcher.append("--allow-run-as-root")
    environment = dict(os.environ, OMP_NUM_THREADS="1", SOURCE_DATE_EPOCH="0")
    wall, _ = timed([*launcher, sys.executable, Path(__file__).resolve(), "--watch", scratch, tq, "calibrate", "--capture",
                     capture, "--out", out], env=environment)
    ranks = [json.loads((scratch / f"rank-{rank}.json").read_text()) for rank in range(processes)]
    return {"wall_s": wall, "ranks": ranks}


def drop_from_cache(path):
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def division(layers, heads, processes):
    """Rounds of layers, members of a team: as count_teams() of calibration/calibrate.cpp."""
    best = None
    for teams in range(min(layers, processes), 0, -1):
        members = processes // teams
        rounds = math.ceil(layers / teams)
        cost = rounds * math.ceil(heads / members)
        if best is None or cost < best[0]:
            best = (cost, rounds, members)
    return best[1:]


def predicted(terms, layers, heads, processes):
    rounds, members = division(layers, heads, processes)
    layer = terms["read_s_a_layer"] * (1 + (1 / members if members > 1 else 1))
    layer += terms["compute_s_a_layer"] * math.ceil(heads / members) / heads
    return terms["start_s"] + rounds * layer


def reduce_bytes(members, heads):
    """What the members of a team send for a layer: 2 histograms and, of 4 candidates on 2 parts, sums and 6 numbers a query
    row; then tables and gate of the layer."""
    if members == 1:
        return 2048
    histograms = 2 * (4 + 8 + 8192 * 8)
    sums = 4 * 2 * heads * 2 * (8 + 2 * 280 + 16)
    rows = 4 * 2 * 6 * 8 * QUERY_ROWS * (Q_HEADS // KV_HEADS) * heads
    return members * histograms + sums + rows + 2048


def on_paper(terms):
    """The benchmark's model, and one of more layers and heads with as many tokens. A process that hashes has one core."""
    table = []
    for layers, heads in ((LAYERS, KV_HEADS), (32, 8)):
        scale = heads / KV_HEADS  # of a layer
        own = dict(terms, read_s_a_layer=terms["read_s_a_layer"] * scale,
                   compute_s_a_layer=terms["compute_s_a_layer"] * scale)
        digest = terms["digest_s"] * scale * layers / LAYERS
        alone = predicted(own, layers, heads, 1) + digest
        for processes in (1, 2, 4, 8, 16, 32, 64):
            seconds = predicted(own, layers, heads, processes)
            members = division(layers, heads, processes)[1]
            table.append({"layers": layers, "kv_heads": heads, "processes": processes, "members_of_a_team": members,
                          "seconds_one_file": round(seconds + digest, 1),
                          "speedup_one_file": round(alone / (seconds + digest), 2),
                          "seconds_a_file_a_process": round(seconds + digest / processes, 1),
                          "speedup_a_file_a_process": round(alone / (seconds + digest / processes), 2),
                          "sent_bytes_a_layer": reduce_bytes(members, heads)})
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of tq; benchmarks/ lies below it")
    parser.add_argument("--capture", type=Path)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, required=True, help="folder of calibrate_scaling.json")
    arguments = parser.parse_args()
    tq = arguments.bin.resolve() / "tq"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        large, small = arguments.capture or scratch / "large.kv.h5", scratch / "small.kv.h5"
        writer = arguments.bin / "benchmarks/write_synthetic_capture"
        if not arguments.capture:
            timed([writer, large, arguments.gigabytes])
        timed([writer, small, 0.01])
        runs, artefacts = {1: [], 2: []}, {}
        cold = {}
        for processes in (1, 2):  # which also brings the file into the page cache
            drop_from_cache(large)
            cold[processes] = calibrate(tq, large, scratch / "out.tq.h5", processes, scratch)
        for _ in range(arguments.repeats):
            for processes in (1, 2):
                out = scratch / "out.tq.h5"
                runs[processes].append(calibrate(tq, large, out, processes, scratch))
                artefacts[processes] = out.read_bytes()
        if artefacts[1] != artefacts[2]:
            raise SystemExit("one and two processes wrote different artefacts")
        start = min(calibrate(tq, small, scratch / "out.tq.h5", 1, scratch)["wall_s"] for _ in range(3))
        read = min(timed([tq, "inspect", large], env=dict(os.environ, OMP_NUM_THREADS="1"))[1] for _ in range(2))
        stored = large.stat().st_size

    def cpu_of(rank):
        return rank["user_s"] + rank["system_s"]

    busiest = {processes: min(max(cpu_of(rank) for rank in run["ranks"]) for run in runs[processes])
               for processes in runs}
    walls = {processes: [run["wall_s"] for run in runs[processes]] for processes in runs}
    fastest = {processes: min(walls[processes]) for processes in walls}
    two = min(runs[2], key=lambda run: run["wall_s"])
    digest = max(0.0, cpu_of(two["ranks"][0]) - cpu_of(two["ranks"][1]))
    one = min(runs[1], key=lambda run: run["wall_s"])
    terms = {"start_s": start, "read_s_a_layer": read / LAYERS,
             "compute_s_a_layer": (cpu_of(one["ranks"][0]) - digest - start - 2 * read) / LAYERS, "digest_s": digest}
    result = {
        "command": " ".join(["calibrate_scaling.py", *sys.argv[1:]]),
        "tq": subprocess.run([tq, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "cpu": next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?"),
        "cores": os.cpu_count(), "load_average": {"begin": load, "end": os.getloadavg()[0]},
        "capture": {"gigabytes": arguments.gigabytes, "stored_bytes": stored, "layers": LAYERS, "kv_heads": KV_HEADS},
        "page_cache": "the file lies in it, but for the runs named cold",
        "runs": {str(processes): runs[processes] for processes in runs},
        "speedup_of_fastest": round(fastest[1] / fastest[2], 3),
        "speedup_of_medians": round(statistics.median(walls[1]) / statistics.median(walls[2]), 3),
        "busiest_process_cpu_s": {str(processes): round(value, 1) for processes, value in busiest.items()},
        "speedup_by_cpu": round(busiest[1] / busiest[2], 3),
        "cold_runs": {str(processes): cold[processes] for processes in cold},
        "cold_speedup": round(cold[1]["wall_s"] / cold[2]["wall_s"], 3),
        "peak_mib_a_process": {str(processes): round(max(rank["peak_mib"] for run in runs[processes]
                                                         for rank in run["ranks"]), 1) for processes in runs},
        "terms": {name: round(value, 4) for name, value in terms.items()},
        "on_paper": on_paper(terms),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (arguments.out / "calibrate_scaling.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        sys.exit(watch(sys.argv[2], sys.argv[3:]))
    main()
