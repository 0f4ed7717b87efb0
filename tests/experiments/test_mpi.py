"""tq calibrate and tq sweep as several processes of an mpirun: what one process gives, byte for byte.

    test_mpi.py TQ_BINARY SAMPLE.kv.h5 [MPIRUN]        exit 77, skipped, without MPIRUN
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy as np

from tq_program import TIMEOUT, Program, Result, write_random_capture

TQ = Program(sys.argv.pop(1))
SAMPLE = os.path.abspath(sys.argv.pop(1))
if len(sys.argv) < 2 or not sys.argv[1]:
    print("SKIPPED: this build has no MPI (install libopenmpi-dev and openmpi-bin, and configure again)")
    sys.exit(77)
MPIRUN = sys.argv.pop(1)
SEED = int(os.environ.get("TQ_TEST_SEED", time.time_ns() % 2 ** 32))
TIME = {"SOURCE_DATE_EPOCH": "1700000000"}
SWEEP = ("[sweep]\nsource=sample,gaussian\nrows=1024\nkey-mode=mse,prod\nkey-bits=2,3,4\nvalue-mode=rotated,group\n"
         "seed=0,1\n")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def start(processes, *arguments, environment=None):
    """mpirun, quiet about what ended its processes: that is theirs to say."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
    # Containers refuse what Open MPI's shared memory asks the kernel for first, and it says so.
    clean.update({"OMP_NUM_THREADS": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none", **TIME},
                 **(environment or {}))
    if os.geteuid() == 0:
        clean.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return subprocess.Popen([MPIRUN, "-q", "--oversubscribe", "-n", str(processes), TQ.path, *map(str, arguments)],
                            env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(processes, *arguments, **options):
    with start(processes, *arguments, **options) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    return Result(process.returncode, out.decode(), err.decode())


class Mpi(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def succeed(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.code, 0, result.err)
        return result

    def assert_same_calibration(self, processes, *options):
        out = self.path("out.h5")
        alone = TQ.succeed("calibrate", *options, "--out", out, environment=TIME)
        expected = read(out)
        for count in processes:
            with self.subTest(processes=count, options=options):
                os.remove(out)
                result = self.succeed(count, "calibrate", *options, "--out", out)
                self.assertEqual(read(out), expected)
                self.assertEqual(result.out, alone.out)  # once, whatever the number of processes
                self.assertEqual(os.listdir(self.folder).count("out.h5"), 1)

    def test_calibrations_are_the_same(self):
        # The sample has 4 layers of 2 KV heads: 5 and 9 are more processes than layers, and than heads.
        self.assert_same_calibration((1, 2, 3, 5, 9), "--capture", SAMPLE)
        self.assert_same_calibration((3, 8), "--capture", SAMPLE, "--key-mode", "prod", "--alpha", "score")
        self.assert_same_calibration((2, 6), "--capture", SAMPLE, "--key-mode", "prod", "--alpha", "cos", "--per",
                                     "head", "--holdout", "blocks")

    def test_one_layer_in_blocks_of_tokens(self):
        # Large enough for several blocks, so that members of a team fit to different tokens.
        capture = write_random_capture(self.path("one.kv.h5"), layers=1, kv_heads=3, q_heads=6,
                                       sequence_lengths=(6000, 9000))
        self.assert_same_calibration((2, 3, 4), "--capture", capture, "--key-mode", "prod")

    def test_several_files(self):
        captures = [write_random_capture(self.path(f"{seed}.kv.h5"), seed=seed, sequence_lengths=(300 + 100 * seed,))
                    for seed in range(3)]
        self.assert_same_calibration((2, 3, 5), *[word for path in captures for word in ("--capture", path)])

    def test_shards_of_several_processes(self):
        out = self.path("out.h5")
        TQ.succeed("calibrate", "--capture", SAMPLE, "--out", out, environment=TIME)
        expected = read(out)
        shards = [self.path(f"{i}.h5") for i in (1, 2)]
        for i, shard in enumerate(shards):
            self.succeed(i + 2, "calibrate", "--capture", SAMPLE, "--out", shard, "--shard", f"{i + 1}/2")
        TQ.succeed("merge", *shards, "--out", out)
        self.assertEqual(read(out), expected)

    def test_one_line_however_many_fail(self):
        capture = write_random_capture(self.path("bad.kv.h5"), layers=4, sequence_lengths=(4096,))
        with h5py.File(capture, "r+") as file:
            file["layers/003/v"][2000, 1, 5] = np.nan  # read by the last process alone
        good = write_random_capture(self.path("good.kv.h5"))
        out = ("--out", self.path("out.h5"))
        before = sorted(os.listdir(self.folder))
        for code, pattern, arguments in ((3, "layers/003/v", ("calibrate", "--capture", capture, *out)),
                                         (3, "cannot open", ("calibrate", "--capture", "none", *out)),
                                         (2, "--out", ("calibrate", "--capture", good)),
                                         (2, "one process", ("eval", "--capture", good))):
            for processes in (2, 4):
                with self.subTest(arguments=arguments, processes=processes):
                    result = run(processes, *arguments)
                    self.assertEqual(result.code, code, result.err)
                    lines = [line for line in result.err.splitlines() if line.startswith("tq: ")]
                    self.assertEqual(len(lines), 1, result.err)
                    self.assertIn(pattern, lines[0])
                    self.assertEqual(sorted(os.listdir(self.folder)), before)

    def write_sweep(self):
        with open(self.path("sweep.ini"), "w", encoding="utf-8") as file:
            file.write(SWEEP)
        return ("sweep", "--config", self.path("sweep.ini"), "--jobs", "2", "--out")

    def results(self, name):
        return read(os.path.join(self.path(name), "results.jsonl"))

    def test_sweeps_are_the_same(self):
        sweep = self.write_sweep()
        TQ.succeed(*sweep, self.path("alone"))
        for processes in (1, 2, 3):
            out = f"processes-{processes}"
            self.succeed(processes, *sweep, self.path(out))
            self.assertEqual(self.results(out), self.results("alone"))

    def test_sweeps_go_on_after_a_kill(self):
        print(f"seed {SEED}")
        draws = random.Random(SEED)
        sweep = self.write_sweep()
        begin = time.monotonic()
        self.succeed(2, *sweep, self.path("whole"))
        seconds = time.monotonic() - begin
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            with self.subTest(signal=number):
                out = f"killed-{number}"
                process = start(2, *sweep, self.path(out))
                time.sleep(draws.uniform(0.3, 0.9) * seconds)
                process.send_signal(number)
                process.communicate(timeout=TIMEOUT)
                for _ in range(100):  # the processes of a killed mpirun end when they notice
                    result = run(2, *sweep, self.path(out), "--resume")
                    if "another tq sweep" not in result.err:
                        break
                    time.sleep(0.1)
                if not os.path.exists(self.path(out)):
                    self.skipTest("killed before it began")
                self.assertEqual(result.code, 0, result.err)
                self.assertEqual(self.results(out), self.results("whole"))

    def test_a_failed_configuration_ends_a_sweep(self):
        capture = write_random_capture(self.path("bad.kv.h5"), layers=2)
        with h5py.File(capture, "r+") as file:
            file["layers/001/v"][100, 1, 5] = np.inf
        with open(self.path("sweep.ini"), "w", encoding="utf-8") as file:
            file.write(f"[sweep]\nsource=gaussian,capture:{capture}\nrows=256\nkey-bits=2,3\nvalue-mode=group\n")
        result = run(3, "sweep", "--config", self.path("sweep.ini"), "--jobs", "1", "--out", self.path("out"))
        self.assertEqual(result.code, 3, result.err)
        self.assertEqual(sum("layers/001/v" in line for line in result.err.splitlines()), 1, result.err)
        self.assertEqual(len(self.results("out").splitlines()), 2)  # those before it are kept


if __name__ == "__main__":
    unittest.main()
