"""Files as `tq bench --json` writes them, for the tests of what reads them: no GPU is needed to make one."""

import json

PROBE = {"bytes": 1 << 30, "median_us": 350.0, "p5_us": 349.0, "p95_us": 352.0, "terabytes_per_second": 3.07}


def row(name, median, spread=0.01, **fields):
    """A row whose 5th and 95th percentiles lie `spread` below and above the median."""
    return {"name": name, "family": "attend", "median_us": median, "p5_us": median * (1 - spread),
            "p95_us": median * (1 + spread)} | fields


def failed_row(name):
    return {"name": name, "family": "attend", "failed": True,
            "checked": {"relative_error": None, "limit": 2e-3, "compared": 16}}


def bench(rows, **fields):
    return {"format": "turboquant-bench", "device": "GPU X", "revision": "abc", "probes": {"read": PROBE},
            "rows": rows} | fields


def write_bench(path, rows, **fields):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(bench(rows, **fields), file)
    return path
