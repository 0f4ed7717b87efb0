"""Runs the program under test, and makes the captures that it is run on.

A test script gets TQ_BINARY as its first argument, and takes its arguments off sys.argv before unittest sees them.
"""

import json
import os
import subprocess

import h5py
import numpy as np

TIMEOUT = 300  # seconds; far above any run, so that a hanging program fails its test


class Program:
    def __init__(self, path):
        self.path = os.path.abspath(path)

    def start(self, *arguments, environment=None, **popen):
        """Popen of the program; no TQ_ variable of the caller reaches it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
        clean.update(environment or {})
        return subprocess.Popen([self.path, *map(str, arguments)], env=clean, **popen)

    def run(self, *arguments, environment=None, stdout=subprocess.PIPE, cwd=None):
        """Exit code, stdout and stderr of a finished run."""
        process = self.start(*arguments, environment=environment, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE)
        with process:
            out, err = process.communicate(timeout=TIMEOUT)
        return Result(process.returncode, (out or b"").decode(), err.decode())

    def succeed(self, *arguments, **options):
        result = self.run(*arguments, **options)
        if result.code != 0:
            raise AssertionError(f"tq {' '.join(map(str, arguments))}: exit {result.code}: {result.err}")
        return result

    def json(self, *arguments, **options):
        return json.loads(self.succeed(*arguments, "--json", **options).out)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def write_random_capture(path, layers=2, kv_heads=2, q_heads=4, head_dim=128, sequence_lengths=(256,), queries=16,
                         seed=1, **attributes):
    """Normal random vectors; the last `queries` positions of every sequence are queried. Returns the path."""
    random = np.random.default_rng(seed)
    tokens = sum(sequence_lengths)
    positions = np.concatenate([np.arange(length) for length in sequence_lengths])
    sequences = np.repeat(np.arange(len(sequence_lengths)), sequence_lengths)
    # Positions alone do not say which sequence a query belongs to when there are several.
    q_positions = np.concatenate([np.arange(length - queries, length) for length in sequence_lengths])
    q_sequences = np.repeat(np.arange(len(sequence_lengths)), queries)
    with h5py.File(path, "w") as file:
        file.attrs.update(format="kv-capture", format_version=1, model="random", num_layers=layers,
                          num_q_heads=q_heads, num_kv_heads=kv_heads, head_dim=head_dim, key_basis="post_rope",
                          axis_order="tokens,heads,head_dim")
        file.attrs.update(attributes)
        for layer in range(layers):
            for name, rows, heads in (("k", tokens, kv_heads), ("v", tokens, kv_heads),
                                      ("q", len(q_positions), q_heads)):
                data = random.standard_normal((rows, heads, head_dim), dtype=np.float32).astype(np.float16)
                file.create_dataset(f"layers/{layer:03}/{name}", data=data, chunks=(min(rows, 512), 1, head_dim))
        file["tokens/position"] = positions.astype(np.int32)
        file["tokens/sequence_id"] = sequences.astype(np.int32)
        file["tokens/q_position"] = q_positions.astype(np.int32)
        if len(sequence_lengths) > 1:
            file["tokens/q_sequence_id"] = q_sequences.astype(np.int32)
    return path


# Of an artefact, what may differ between two runs of the same job.
RUN_DEPENDENT = {("provenance", "utc_time"), ("", "evidence_sha256")}  # the digest is of the time too


def artefact_contents(path):
    """Every attribute and dataset of an artefact but the time and its digest, as {name: value}, for comparing whole files."""
    contents = {}
    with h5py.File(path, "r") as file:
        def visit(name, item):
            for key, value in item.attrs.items():
                if (name, key) not in RUN_DEPENDENT:
                    contents[name, key] = np.asarray(value).tobytes()
            if isinstance(item, h5py.Dataset):
                contents[name, "shape"] = (item.shape, item.dtype)
                contents[name, "data"] = item[()].tobytes()
        visit("", file)
        file.visititems(visit)
    return contents
