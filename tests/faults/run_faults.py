"""Disturbs every job that writes files, and checks after each fault that nothing is lost: what the disturbed run left
is old, or new and whole, the next run completes, and its files equal those of an undisturbed run.

usage: run_faults.py BUILD_FOLDER [--each N] [--only JOB] [--seed N] [--report FILE]
example: tests/faults/run_faults.py build/release --each 5 --only export
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter

from disturbed_job import DisturbedJob, can_mount
from jobs import Lost, make_jobs

FAULTS = {
    "killed at a random time": DisturbedJob.kill_at_time,
    "killed at a call": DisturbedJob.kill_at_call,
    "a call fails (EIO)": DisturbedJob.error_at_call,
    "disk full from a call on": DisturbedJob.full_from_call,
    "disk full": DisturbedJob.full_disk,
    "eight at once": DisturbedJob.eight_at_once,
    "a byte damaged": None,
}
DAMAGED = {"calibrate": DisturbedJob.damaged_artefact, "warm": DisturbedJob.damaged_cubin}


def disturb(job, arguments, folder, draws, counts, met):
    """All faults of a job, half of them from each start; returns the lines that say what was lost."""
    lost = []
    for earlier in (False, True):
        disturbed = DisturbedJob(job, folder, os.path.join(arguments.build, "tests/faults/libfault_shim.so"), draws, earlier)
        for name, fault in FAULTS.items():
            fault = fault or DAMAGED.get(job.name)
            if fault is None:
                continue
            # Eight runs side by side take as long as eight faults of another kind.
            each = arguments.each if name != "eight at once" else max(1, arguments.each // 8)
            for number in range(each // 2 + (each % 2 if earlier else 0)):
                disturbed.reset()
                counts[job.name, name] += 1
                try:
                    met[job.name, name] += fault(disturbed)
                    disturbed.check()
                except Lost as error:
                    lost.append(f"{job.name}, {name}, {'old results' if earlier else 'empty folder'}: {error}")
                    print(f"LOST: {lost[-1]}", flush=True)
    return lost


def report(counts, met, jobs, lost):
    """The counts as a Markdown table: faults, and in brackets how many of them met the run at work."""
    # A run may be over before it is killed, and a disk may turn out large enough.
    rows = [["job", *FAULTS], ["---"] * (1 + len(FAULTS))]
    for job in jobs:
        cells = ((counts[job.name, name], met[job.name, name]) for name in FAULTS)
        rows.append([job.name, *(f"{faults} ({hits})" if faults else "" for faults, hits in cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{sum(counts.values())} faults, {sum(met.values())} met a run at work, {len(lost)} lost.\n"


def revision():
    folder = os.path.dirname(os.path.abspath(__file__))
    return subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=12"], check=True,
                          capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="with tq, write_synthetic_capture, fault_shim and store_tuning")
    parser.add_argument("--each", type=int, default=300, help="faults of each kind and job")
    parser.add_argument("--only", default="", help="jobs whose names begin so")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--report", help="write the counts there, as Markdown")
    arguments = parser.parse_args()
    arguments.build = os.path.abspath(arguments.build)
    print(f"seed {arguments.seed}", flush=True)
    begin_all = time.monotonic()
    can_mount()
    counts, met, lost = Counter(), Counter(), []
    with tempfile.TemporaryDirectory(prefix="tq-faults-") as folder:
        inputs = os.path.join(folder, "inputs")
        os.mkdir(inputs)
        programs = [os.path.join(arguments.build, program) for program in
                    ("experiments/tq", "experiments/benchmarks/write_synthetic_capture", "tests/faults/store_tuning")]
        jobs = [job for job in make_jobs(inputs, *programs) if job.name.startswith(arguments.only)]
        for job in jobs:
            begin = time.monotonic()
            # A seed of its own, so that --only repeats what all jobs did.
            lost += disturb(job, arguments, folder, random.Random(f"{arguments.seed} {job.name}"), counts, met)
            print(f"{job.name}: {time.monotonic() - begin:.0f} s", flush=True)
    text = report(counts, met, jobs, lost)
    print(f"\n{text}")
    if arguments.report:
        with open(arguments.report, "w", encoding="utf-8") as file:
            file.write(f"`tests/faults/run_faults.py build/release --each {arguments.each} --seed {arguments.seed}`, "
                       f"revision {revision()}, {(time.monotonic() - begin_all) / 60:.0f} minutes\n\n{text}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
