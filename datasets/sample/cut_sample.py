#!/usr/bin/python3
"""Cuts a small capture out of a large one (both `*.kv.h5`, axis order tokens,heads,head_dim).

Example: cut_sample.py full.kv.h5 sample.kv.h5 --layers 0,3,4,5 --tokens 256:1024
"""

import argparse
import hashlib
import os
import shlex
import sys

import h5py
import numpy as np

CHUNK_TOKENS = 256
TENSORS_PER_TOKEN = ("k", "v", "k_residual")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_list(text, count, what):
    """'0,3,4' -> [0, 3, 4]; None -> all."""
    if text is None:
        return list(range(count))
    chosen = [int(part) for part in text.split(",")]
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0 or max(chosen) >= count:
        sys.exit(f"cut_sample: --{what} must be distinct numbers from 0 to {count - 1}")
    return chosen


def parse_range(text, count):
    """'256:1024' -> (256, 1024); None -> all."""
    if text is None:
        return 0, count
    begin, _, end = text.partition(":")
    begin, end = int(begin or 0), int(end or count)
    if not 0 <= begin < end <= count:
        sys.exit(f"cut_sample: --tokens must be BEGIN:END within 0:{count}")
    return begin, end


def kept_queries(source, begin, end, limit):
    """Rows of q whose own token is kept; `limit` of them, evenly spaced."""
    tokens = source["tokens"]
    if "q_position" not in tokens:
        return np.array([], dtype=np.int64)
    rows = np.flatnonzero(np.isin(tokens["q_position"][:], tokens["position"][begin:end]))
    if limit is not None and limit < len(rows):
        rows = rows[(np.arange(limit) + 1) * len(rows) // limit - 1]
    return rows


def write_tensor(group, name, data):
    chunk = (min(CHUNK_TOKENS, data.shape[0]), 1, data.shape[2])
    group.create_dataset(name, data=data, maxshape=(None,) + data.shape[1:], chunks=chunk, shuffle=True,
                         compression="gzip", compression_opts=9, fletcher32=True, track_times=False)


def cut(source, target, arguments):
    axis_order = source.attrs.get("axis_order", "tokens,heads,head_dim")
    if axis_order != "tokens,heads,head_dim":
        sys.exit(f"cut_sample: axis_order '{axis_order}' is not supported; rewrite as tokens,heads,head_dim")
    layers = parse_list(arguments.layers, int(source.attrs["num_layers"]), "layers")
    kv_heads = parse_list(arguments.kv_heads, int(source.attrs["num_kv_heads"]), "kv-heads")
    group_size = int(source.attrs["num_q_heads"]) // int(source.attrs["num_kv_heads"])
    q_heads = [head * group_size + i for head in kv_heads for i in range(group_size)]
    begin, end = parse_range(arguments.tokens, len(source["tokens/position"]))
    queries = kept_queries(source, begin, end, arguments.query_tokens)

    for name, value in source.attrs.items():
        target.attrs[name] = value
    target.attrs["num_layers"] = len(layers)
    target.attrs["num_kv_heads"] = len(kv_heads)
    target.attrs["num_q_heads"] = len(q_heads)
    target.attrs["cut_source_file"] = os.path.basename(arguments.source)
    target.attrs["cut_source_sha256"] = sha256_of(arguments.source)
    target.attrs["cut_layers"] = ",".join(map(str, layers))
    target.attrs["cut_kv_heads"] = ",".join(map(str, kv_heads))
    target.attrs["cut_tokens"] = f"{begin}:{end}"
    target.attrs["cut_query_tokens"] = len(queries)
    # Folders are where the file happened to lie; they say nothing to a reader elsewhere.
    files = (arguments.source, arguments.target)
    command = [os.path.basename(part) if part in files else part for part in sys.argv[1:]]
    target.attrs["cut_command"] = shlex.join(["cut_sample.py"] + command)

    for number, layer in enumerate(layers):
        old, new = source[f"layers/{layer:03}"], target.create_group(f"layers/{number:03}")
        for name in TENSORS_PER_TOKEN:
            if name in old:
                write_tensor(new, name, old[name][begin:end][:, kv_heads])
        if "q" in old and len(queries):
            write_tensor(new, "q", old["q"][queries][:, q_heads])
    for name, data in source["tokens"].items():
        rows = queries if name.startswith("q_") else slice(begin, end)
        if not name.startswith("q_") or len(queries):
            kept = data[:][rows]
            target.create_dataset(f"tokens/{name}", data=kept, maxshape=(None,), chunks=(len(kept),),
                                  track_times=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[2])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--layers",
                        help="layers to keep, renumbered from 0, e.g. 0,3,4 (default: all)")
    parser.add_argument("--kv-heads", help="KV heads to keep, with their query heads (default: all)")
    parser.add_argument("--tokens",
                        help="rows to keep, BEGIN:END (default: all); positions keep their numbers")
    parser.add_argument("--query-tokens", type=int,
                        help="most query rows to keep, evenly spaced (default: all)")
    arguments = parser.parse_args()
    temporary = f"{arguments.target}.partial"
    try:
        with h5py.File(arguments.source, "r") as source, h5py.File(temporary, "w") as target:
            cut(source, target, arguments)
        os.replace(temporary, arguments.target)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


if __name__ == "__main__":
    main()
