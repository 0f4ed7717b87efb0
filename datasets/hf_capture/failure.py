"""What ends a run: one line for a person and the exit code that `tq` would give."""

USAGE, BAD_INPUT, MACHINE, INTERRUPTED = 2, 3, 4, 130


class Failure(Exception):
    def __init__(self, code, message):
        super().__init__(" ".join(message.split()))
        self.code = code
