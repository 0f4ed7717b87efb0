"""Runs that are interrupted, killed or that fail leave the old artefact or the new one, and no litter.

usage: test_interruption.py TQ_BINARY REPETITIONS [SEED]
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

from tq_program import TIMEOUT, Program, artefact_contents, write_random_capture

TQ, REPETITIONS = Program(sys.argv[1]), int(sys.argv[2])
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(10**9)
del sys.argv[1:]

TEMPORARY = ".out.tq.h5.tq-tmp."


class Interruption(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tq-interruption-")
        # 34 MB, a third of a second of work; a quarter of it for the slow builds that ask for one repetition.
        tokens = 8192 if REPETITIONS > 1 else 2048
        write_random_capture(os.path.join(self.folder, "in.kv.h5"), layers=4, sequence_lengths=(tokens,), queries=64)
        self.out = os.path.join(self.folder, "out.tq.h5")

    def tearDown(self):
        shutil.rmtree(self.folder)

    # The same words every time, since the artefact records them.
    ARGUMENTS = ("calibrate", "--capture", "in.kv.h5", "--out", "out.tq.h5", "--key-mode", "prod")

    def start(self):
        return TQ.start(*self.ARGUMENTS, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def undisturbed(self):
        """What a whole run writes, and how long it takes."""
        begin = time.monotonic()
        TQ.succeed(*self.ARGUMENTS, cwd=self.folder)
        return artefact_contents(self.out), time.monotonic() - begin

    def files(self):
        return sorted(os.listdir(self.folder))

    def old_artefact(self):
        """Something at the target that a whole run would replace."""
        with open(self.out, "wb") as file:
            file.write(b"the artefact of an earlier run")

    def assert_old_artefact(self):
        with open(self.out, "rb") as file:
            self.assertEqual(file.read(), b"the artefact of an earlier run")

    def test_signals_that_ask_to_stop(self):
        _, seconds = self.undisturbed()
        os.remove(self.out)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for existing in (False, True):
                with self.subTest(signal=number, existing=existing):
                    code, delay = 0, seconds
                    while code == 0:  # a run that was faster than the one timed: signal the next one sooner
                        delay /= 2
                        if existing:
                            self.old_artefact()
                        process = self.start()
                        time.sleep(delay)
                        process.send_signal(number)
                        errors = process.communicate(timeout=TIMEOUT)[1]
                        code = process.returncode
                        if code == 0:
                            os.remove(self.out)
                    self.assertEqual(code, 130, errors)
                    self.assertEqual(errors, b"")
                    self.assertEqual(self.files(), ["in.kv.h5"] + ["out.tq.h5"] * existing)
                    if existing:
                        self.assert_old_artefact()
                        os.remove(self.out)

    def test_killed_at_random_points(self):
        print(f"seed {SEED}")
        draws = random.Random(SEED)
        expected, seconds = self.undisturbed()
        for repetition in range(REPETITIONS):
            with self.subTest(repetition=repetition):
                self.old_artefact()
                process = self.start()
                time.sleep(draws.uniform(0, 1.1 * seconds))
                self.kill_and_check(process, expected)

    def test_killed_while_writing(self):
        expected, _ = self.undisturbed()
        caught = 0
        for _ in range(REPETITIONS):
            self.old_artefact()
            process = self.start()
            # The temporary exists for a few milliseconds before it becomes the artefact.
            while process.poll() is None and not any(name.startswith(TEMPORARY) for name in self.files()):
                pass
            caught += self.kill_and_check(process, expected)
        print(f"{caught} of {REPETITIONS} runs were killed while they wrote")

    def kill_and_check(self, process, expected):
        """Returns whether a temporary was left, which the next run must clear."""
        process.kill()
        process.communicate(timeout=TIMEOUT)
        left = [name for name in self.files() if name not in ("in.kv.h5", "out.tq.h5")]
        for name in left:
            self.assertTrue(name.startswith(TEMPORARY), name)
        with open(self.out, "rb") as file:
            replaced = not file.read().startswith(b"the artefact of an earlier run")
        if replaced:
            self.assertEqual(artefact_contents(self.out), expected)
        else:
            self.assert_old_artefact()
        again, _ = self.undisturbed()
        self.assertEqual(again, expected)
        self.assertEqual(self.files(), ["in.kv.h5", "out.tq.h5"])
        return bool(left)

    def test_a_failed_run_leaves_the_target(self):
        with h5py.File(os.path.join(self.folder, "in.kv.h5"), "r+") as file:
            file["layers/003/v"][2000, 1, 5] = np.nan  # found after three layers of work
        for existing in (False, True):
            if existing:
                self.old_artefact()
            result = TQ.run(*self.ARGUMENTS, cwd=self.folder)
            self.assertEqual(result.code, 3)
            self.assertRegex(result.err, r"\Atq: in.kv.h5: [^\n]*/layers/003/v[^\n]*\n\Z")
            self.assertEqual(self.files(), ["in.kv.h5"] + ["out.tq.h5"] * existing)
        self.assert_old_artefact()


if __name__ == "__main__":
    unittest.main()
