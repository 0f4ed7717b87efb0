"""A line on a terminal that says how far a run is; nothing elsewhere."""

import sys
import time

DELAY, INTERVAL, WIDTH = 0.5, 0.1, 30  # seconds, seconds, characters


class ProgressBar:
    def __init__(self, label, total, done):
        self.label, self.total, self.first = label, total, done
        self.terminal = sys.stderr.isatty()
        self.start = self.last = time.monotonic()
        self.shown = False

    def __call__(self, done):
        now = time.monotonic()
        if not self.terminal or now - self.start < DELAY or now - self.last < INTERVAL:
            return
        self.last, self.shown = now, True
        share, rate = done / self.total, (done - self.first) / (now - self.start)
        filled = int(share * WIDTH)
        print(f"\r\033[K{self.label} [{'=' * filled}{' ' * (WIDTH - filled)}] {100 * share:3.0f} %  "
              f"{rate:.0f} tokens/s, {(self.total - done) / rate:.0f} s left", end="", file=sys.stderr, flush=True)

    def clear(self):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
