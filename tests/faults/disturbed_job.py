"""Faults: a run is killed, a call to the disk fails, the disk is full, a byte is damaged, eight run at once."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time

from jobs import TEMPORARY, TIMEOUT, read, require, tree

EIGHT = 8


@contextlib.contextmanager
def tmpfs(folder, size):
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def can_mount(answer=[]):
    if not answer:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with tmpfs(folder, 4096):
                    answer.append(True)
            except (subprocess.CalledProcessError, FileNotFoundError):
                answer.append(False)
                print("no tmpfs may be mounted here: files are limited in size instead", flush=True)
    return answer[0]


class DisturbedJob:
    """A job from one start, an empty folder or the results of an earlier run. Every fault is a method: it raises Lost,
    or returns whether it met the run at work. reset() comes before each, check() after."""

    def __init__(self, job, folder, shim, draws, earlier):
        self.job, self.folder, self.shim, self.draws = job, folder, shim, draws
        self.work = os.path.join(folder, "work")
        self.before = os.path.join(folder, "before")
        shutil.rmtree(self.before, ignore_errors=True)
        os.mkdir(self.before)
        if earlier:
            job.succeed(self.before, job.earlier)
        self.before_files = tree(self.before)
        self.reset()
        begin = time.monotonic()
        job.succeed(self.work)
        self.seconds = time.monotonic() - begin
        self.expected = job.contents(self.work)
        self.bytes = sum(map(len, tree(self.work).values()))
        self.calls = self.count_calls()

    def reset(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.before, self.work)

    def faults(self, **settings):
        return {"LD_PRELOAD": self.shim, "FAULT_FOLDER": self.work,
                **{f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}}

    def count_calls(self):
        log = os.path.join(self.folder, "calls")
        with contextlib.suppress(FileNotFoundError):
            os.remove(log)
        self.reset()
        code, errors = self.job.run(self.work, extra=self.faults(log=log))
        require(code == 0, f"with the shim: exit {code}: {errors}")
        return len(read(log).splitlines())

    def check(self):
        """After the fault: what is left, then the next run."""
        self.job.check_disturbed(self.work, self.before_files, self.expected)
        self.job.succeed(self.work)
        require(self.job.contents(self.work) == self.expected, "the next run's files differ")

    def check_failure(self, code, errors, may_litter=False):
        """Of a run that met an error: exit code 4, a last line that says why, and no temporaries; or it did without.

        may_litter: the error may be that a temporary could not be removed; the next run clears it.
        """
        require(code in (0, 4), f"exit {code}: {errors}")
        if code == 0:
            require(self.job.cache or self.finished_contents(may_litter) == self.expected, "success, and other files")
            return
        require(not self.job.cache, f"a cache that cannot be written stops the run: {errors}")
        program = os.path.basename(self.job.command[0])
        require(errors.splitlines()[-1].startswith(f"{program}: "), f"no line says what happened: {errors!r}")
        left = [name for name in tree(self.work) if TEMPORARY in name]
        require(may_litter or not left, f"left {left}")

    def finished_contents(self, may_litter):
        if not may_litter:
            return self.job.contents(self.work)
        with tempfile.TemporaryDirectory() as folder:
            clean = os.path.join(folder, "work")
            shutil.copytree(self.work, clean, ignore=shutil.ignore_patterns(f"*{TEMPORARY}*"))
            return self.job.contents(clean)

    def kill_at_time(self):
        process = self.job.start(self.work)
        time.sleep(self.draws.uniform(0, 1.1 * self.seconds))
        process.kill()
        process.communicate(timeout=TIMEOUT)
        return process.returncode == -signal.SIGKILL

    def at_call(self, kind):
        code, errors = self.job.run(self.work, extra=self.faults(at=self.draws.randint(1, self.calls), kind=kind))
        if kind == "kill":
            return code == -signal.SIGKILL
        self.check_failure(code, errors, may_litter=kind == "EIO")
        return True

    def kill_at_call(self):
        return self.at_call("kill")

    def error_at_call(self):
        return self.at_call("EIO")

    def full_from_call(self):
        return self.at_call("ENOSPC")

    def full_disk(self):
        """A tmpfs of fewer bytes than the run needs; where none may be mounted, files may not grow beyond that."""
        before = sum(map(len, self.before_files.values()))
        size = before + self.draws.randint(0, max(self.bytes - before, 4096))
        if not can_mount():
            def limit():
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            code, errors = self.job.run(self.work, preexec_fn=limit, restore_signals=False)
            self.check_failure(code, errors)
            return code != 0 or self.job.cache
        pages = -(-size // 4096) + len(self.before_files)
        with tmpfs(self.work, pages * 4096):
            shutil.copytree(self.before, self.work, dirs_exist_ok=True)
            code, errors = self.job.run(self.work)
            self.check_failure(code, errors)
            self.job.check_disturbed(self.work, self.before_files, self.expected)
            subprocess.run(["mount", "-o", "remount,size=64m", self.work], check=True)
            self.check()
        self.reset()
        return code != 0 or self.job.cache

    def eight_at_once(self):
        """Eight runs side by side, of which up to two are killed."""
        processes = [self.job.start(self.work, self.job.crowd_command(number)) for number in range(EIGHT)]
        killed = self.draws.randint(0, 2)
        for process in processes[:killed]:
            time.sleep(self.draws.uniform(0, self.seconds))
            process.kill()
        for number, process in enumerate(processes):
            errors = process.communicate(timeout=TIMEOUT)[1].decode(errors="replace")
            allowed = self.job.crowd_codes + ((-signal.SIGKILL,) if number < killed else ())
            require(process.returncode in allowed, f"exit {process.returncode} side by side: {errors}")
        self.job.check_crowd(self.work, range(killed, EIGHT))
        return True

    def damage(self, path):
        data = read(path)
        at = self.draws.randrange(len(data))
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ self.draws.randint(1, 255)]))
        return at

    def damaged_cubin(self):
        """One byte of a compiled kernel differs: it is a miss, and compiled anew."""
        self.job.succeed(self.work)
        self.damage(os.path.join(self.work, self.draws.choice(sorted(self.expected))))
        self.job.succeed(self.work)
        require(self.job.contents(self.work) == self.expected, "the damage stays")
        return True

    def damaged_artefact(self):
        """One byte of an artefact differs: its export is refused, or that of the whole artefact."""
        self.job.succeed(self.work)
        artefact, out = os.path.join(self.work, "out.tq.h5"), os.path.join(self.work, "out.json")
        export = [self.job.command[0], "export", "--artefact", artefact, "--format", "kv-json", "--out", out]
        self.job.succeed(self.work, export)
        whole = read(out)
        os.remove(out)
        at = self.damage(artefact)
        code, errors = self.job.run(self.work, export)
        if code == 0:
            require(read(out) == whole, f"byte {at}: exported as something else")
            os.remove(out)
        else:
            require(code == 3 and errors.startswith("tq: ") and errors.count("\n") == 1,
                    f"byte {at}: exit {code}: {errors}")
        self.job.succeed(self.work)
        require(self.job.contents(self.work) == self.expected, "the next run's files differ")
        shutil.copytree(self.before, self.work, dirs_exist_ok=True)
        return True
