#!/usr/bin/env python3
"""Times `tq calibrate` against the NumPy program beside this one, and measures its peak memory on a large capture.

    python3 calibrate_benchmark.py --bin build/release/experiments --capture datasets/sample/pylm_d128_sample.kv.h5 \
        --gigabytes 4 --out results.json

Both programs run as a user runs them: whole processes, start-up included, alternating, medians of --repeats. The large
capture is written to --scratch (default: the system's temporary folder) and removed afterwards; --gigabytes 0 skips it.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def run(command):
    """Wall seconds, CPU seconds and peak resident bytes of one process."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    if status != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{output.decode()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def spread(samples):
    return {"median_s": round(statistics.median(samples), 4), "min_s": round(min(samples), 4),
            "max_s": round(max(samples), 4)}


def compare(tq, capture, mode, repeats, scratch):
    ours, numpys = [], []
    ours_command = [tq, "calibrate", "--capture", capture, "--out", scratch / "bench.tq.h5", "--key-mode", mode]
    numpy_command = [sys.executable, HERE / "calibrate_numpy.py", "--capture", capture, "--out", scratch / "bench.npz",
                     "--key-mode", mode]
    run(ours_command), run(numpy_command)  # file cache and byte code
    for _ in range(repeats):
        ours.append(run(ours_command)[0])
        numpys.append(run(numpy_command)[0])
    return {"key_mode": mode, "tq": spread(ours), "numpy": spread(numpys),
            "ratio": round(statistics.median(numpys) / statistics.median(ours), 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of tq; benchmarks/ lies below it")
    parser.add_argument("--capture", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tq = arguments.bin / "tq"
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
        result = {"command": " ".join(["calibrate_benchmark.py", *sys.argv[1:]]), "cpu": cpu, "cores": os.cpu_count(),
                  "python": platform.python_version(),
                  "tq": subprocess.run([tq, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
                  "small": [compare(tq, arguments.capture, mode, arguments.repeats, scratch)
                            for mode in ("mse", "prod")]}
        if arguments.gigabytes > 0:
            large = scratch / "large.kv.h5"
            wall, _, _ = run([arguments.bin / "benchmarks/write_synthetic_capture", large, str(arguments.gigabytes)])
            result["large"] = {"logical_gigabytes": arguments.gigabytes, "file_bytes": large.stat().st_size,
                               "write_s": round(wall, 1)}
            for mode in ("mse", "prod"):
                wall, cpu_seconds, peak = run([tq, "calibrate", "--capture", large, "--out", scratch / "large.tq.h5",
                                               "--key-mode", mode])
                result["large"][mode] = {"wall_s": round(wall, 1), "cpu_s": round(cpu_seconds, 1),
                                         "peak_mib": round(peak / 2**20, 1)}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
