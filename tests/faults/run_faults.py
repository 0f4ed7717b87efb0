"""Disturbs every job that writes files, and checks after each fault that nothing is lost: what the disturbed run left
is old, or new and whole, the next run completes, and its files equal those of an undisturbed run.

usage: run_faults.py BUILD_FOLDER [--each N] [--only JOB] [--jobs N] [--seed N] [--report FILE]
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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from disturbed_job import DisturbedJob, can_mount
from jobs import Job, Lost, make_jobs

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


PIECE = 20  # faults that one process makes in a row


@dataclass
class Piece:
    """Faults of one kind on a job, from one start."""
    job: Job
    fault: str
    earlier: bool
    first: int
    count: int
    seed: int

    @property
    def name(self):
        return f"{self.job.name}, {self.fault}, {'old results' if self.earlier else 'empty folder'}"

    def disturb(self, folder, shim):
        """Returns how many faults met the run at work, and what was lost."""
        # Of its own, so that --only and --jobs do not change what is drawn.
        draws = random.Random(f"{self.seed} {self.name} {self.first}")
        fault = FAULTS[self.fault] or DAMAGED[self.job.name]
        met, lost = 0, []
        with tempfile.TemporaryDirectory(dir=folder) as own:
            # Commands name what they read by ../inputs.
            os.symlink(os.path.join(folder, "inputs"), os.path.join(own, "inputs"))
            disturbed = DisturbedJob(self.job, own, shim, draws, self.earlier)
            for _ in range(self.count):
                disturbed.reset()
                try:
                    met += fault(disturbed)
                    disturbed.check()
                except Lost as error:
                    lost.append(f"{self.name}: {error}")
        return met, lost


def pieces_of(jobs, each, seed):
    """All faults of the jobs, half of each kind from each start."""
    for job in jobs:
        for fault, function in FAULTS.items():
            if function is None and job.name not in DAMAGED:
                continue
            # Eight runs side by side take as long as eight faults of another kind.
            wanted = each if fault != "eight at once" else max(1, each // 8)
            for earlier in (False, True):
                count = wanted // 2 + (wanted % 2 if earlier else 0)
                for first in range(0, count, PIECE):
                    yield Piece(job, fault, earlier, first, min(PIECE, count - first), seed)


def report(counts, met, jobs, lost):
    """The counts as a Markdown table: faults, and in brackets how many of them met the run at work."""
    # A run may be over before it is killed, and a disk may turn out large enough.
    rows = [["job", *FAULTS], ["---"] * (1 + len(FAULTS))]
    for job in jobs:
        cells = ((counts[job.name, name], met[job.name, name]) for name in FAULTS)
        rows.append([job.name, *(f"{faults} ({hits})" if faults else "" for faults, hits in cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{sum(counts.values())} faults, {sum(met.values())} met a run at work, {len(lost)} lost.\n"


def version_of(tq):
    return subprocess.run([tq, "--version"], check=True, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="with tq, write_synthetic_capture, fault_shim and store_tuning")
    parser.add_argument("--each", type=int, default=300, help="faults of each kind and job")
    parser.add_argument("--only", default="", help="jobs whose names begin so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="faults made side by side")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--report", help="write the counts there, as Markdown")
    arguments = parser.parse_args()
    arguments.build = os.path.abspath(arguments.build)
    print(f"seed {arguments.seed}", flush=True)
    begin_all = time.monotonic()
    can_mount()
    counts, met, lost = Counter(), Counter(), []
    shim = os.path.join(arguments.build, "tests/faults/libfault_shim.so")
    programs = [os.path.join(arguments.build, program) for program in
                ("experiments/tq", "experiments/benchmarks/write_synthetic_capture", "tests/faults/store_tuning")]
    with tempfile.TemporaryDirectory(prefix="tq-faults-") as folder:
        inputs = os.path.join(folder, "inputs")
        os.mkdir(inputs)
        jobs = [job for job in make_jobs(inputs, *programs) if job.name.startswith(arguments.only)]
        pieces = list(pieces_of(jobs, arguments.each, arguments.seed))
        with ProcessPoolExecutor(arguments.jobs) as pool:
            running = {pool.submit(piece.disturb, folder, shim): piece for piece in pieces}
            for done, future in enumerate(as_completed(running), 1):
                piece, (hits, failures) = running[future], future.result()
                counts[piece.job.name, piece.fault] += piece.count
                met[piece.job.name, piece.fault] += hits
                lost += failures
                for failure in failures:
                    print(f"LOST: {failure}", flush=True)
                print(f"[{done}/{len(pieces)}] {piece.name}: {piece.count}", flush=True)
    text = report(counts, met, jobs, lost)
    print(f"\n{text}")
    if arguments.report:
        with open(arguments.report, "w", encoding="utf-8") as file:
            file.write(f"`tests/faults/run_faults.py build/release --each {arguments.each} --seed {arguments.seed}`, "
                       f"{version_of(programs[0])}, {arguments.jobs} side by side, "
                       f"{(time.monotonic() - begin_all) / 60:.0f} minutes\n\n{text}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
