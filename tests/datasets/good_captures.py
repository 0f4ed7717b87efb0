#!/usr/bin/python3
"""Makes captures of every dtype, axis order and layout.

good_captures.py FOLDER writes them, the values that must be read from them, and a list, FOLDER/manifest.tsv:
file, layer, tensor, heads, rows, head_dim, file of the values (float32, [head][row][head_dim]).
"""

import os
import sys

import h5py
import numpy as np

from small_capture import FILTERS, values

TENSORS = ("k", "v", "q", "k_residual")


def bfloat16_type(order):
    """The HDF5 float of fields (15, 7, 8, 0, 7) and bias 127."""
    made = (h5py.h5t.IEEE_F32LE if order == "<" else h5py.h5t.IEEE_F32BE).copy()
    made.set_fields(15, 7, 8, 0, 7)
    made.set_size(2)
    made.set_ebias(127)
    return made


def bfloat16_bits(data):
    """Exact: the data have at most 8 significant bits."""
    return (np.ascontiguousarray(data, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_dataset(group, name, data, dtype, storage):
    if dtype in ("<bf16", ">bf16"):
        # h5py knows no bfloat16: write the bits raw, through a type that HDF5 does not convert.
        space = h5py.h5s.create_simple(data.shape)
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if "chunks" in storage:
            creation.set_chunk(storage["chunks"])
            creation.set_shuffle()
            creation.set_deflate(4)
            creation.set_fletcher32()
        made = bfloat16_type(dtype[0])
        dataset = h5py.h5d.create(group.id, name.encode(), made, space, dcpl=creation)
        bits = bfloat16_bits(data).astype(dtype[0] + "u2")
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=made)
    elif dtype == "u2":
        group.create_dataset(name, data=bfloat16_bits(data), **storage).attrs["dtype"] = "bfloat16"
    else:
        group.create_dataset(name, data=data.astype(dtype), **storage)


def in_axis_order(data, order, batch):
    """(rows, heads, head_dim) as the file has it."""
    if order == "heads,tokens,head_dim":
        return np.ascontiguousarray(data.transpose(1, 0, 2))
    if order == "batch,heads,tokens,head_dim":
        return np.ascontiguousarray(data.reshape(batch, -1, *data.shape[1:]).transpose(0, 2, 1, 3))
    return data


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.manifest = []

    def make(self, name, dtype="<f2", order="tokens,heads,head_dim", storage="chunked", kept=("k", "v", "q"),
             head_dims=(16, 16), batch=1, tokens=75, queries=9, positions=True, attribute=True):
        path = os.path.join(self.folder, f"{name}.kv.h5")
        with h5py.File(path, "w") as file:
            file.attrs.update(format="kv-capture", format_version=1, num_layers=len(head_dims), num_q_heads=6,
                              num_kv_heads=3, key_basis="pre_rope")
            if len(set(head_dims)) == 1:
                file.attrs["head_dim"] = np.uint16(head_dims[0])
            if attribute:
                file.attrs["axis_order"] = np.string_(order)
            for layer, head_dim in enumerate(head_dims):
                group = file.create_group(f"layers/{layer:03}")
                for tensor in kept:
                    rows, heads = (batch * queries, 6) if tensor == "q" else (batch * tokens, 3)
                    data = values((rows, heads, head_dim), 10 * layer + TENSORS.index(tensor))
                    stored = in_axis_order(data, order, batch)
                    write_dataset(group, tensor, stored, dtype, self.storage(storage, stored.shape, order))
                    expected = f"{name}.{layer}.{tensor}.f32"
                    data.transpose(1, 0, 2).astype(np.float32).tofile(os.path.join(self.folder, expected))
                    self.manifest.append((path, layer, tensor, heads, rows, head_dim,
                                          os.path.join(self.folder, expected)))
            if positions and kept != ("q",):
                file["tokens/position"] = np.tile(np.arange(tokens, dtype=">i4"), batch)
                file["tokens/sequence_id"] = np.repeat(np.arange(batch, dtype=np.int32), tokens)
                if "q" in kept:
                    last = np.arange(tokens - queries, tokens, dtype=np.int32)
                    file["tokens/q_position"] = np.tile(last, batch)
                    file["tokens/q_sequence_id"] = np.repeat(np.arange(batch, dtype=np.int32), queries)

    @staticmethod
    def storage(kind, shape, order):
        if kind == "contiguous":
            return {}
        if kind == "whole":
            return dict(chunks=shape, **FILTERS)
        if kind == "odd":  # chunks that fit no axis
            return dict(chunks=tuple(min(n, c) for n, c in zip(shape, (2, 2, 7, 5)[-len(shape):])), **FILTERS)
        chunk = {"tokens,heads,head_dim": (32, 1, shape[-1]), "heads,tokens,head_dim": (1, 32, shape[-1]),
                 "batch,heads,tokens,head_dim": (1, 1, 32, shape[-1])}[order]
        return dict(chunks=tuple(min(n, c) for n, c in zip(shape, chunk)), **FILTERS)


def make_odd_bytes(path):
    """Chunks of an odd number of bytes, which fletcher32 and shuffle treat apart."""
    with h5py.File(path, "w") as file:
        file.create_dataset("bytes", data=np.arange(21, dtype=np.uint8), chunks=(7,), **FILTERS)


def make_skipped_filters(maker):
    """Some chunks of a capture stored without deflate, as HDF5 does where it does not shrink them."""
    maker.make("skipped_filters", kept=("k", "v"), storage="whole", head_dims=(16,))
    path = maker.manifest[-1][0]
    with h5py.File(path, "r+") as file:
        dataset = file["layers/000/v"]
        data = dataset[:]
        shuffled = np.ascontiguousarray(data).view(np.uint8).reshape(-1, 2).T.tobytes()
        dataset.id.write_direct_chunk((0, 0, 0), shuffled, filter_mask=0b110)  # deflate and fletcher32


ORDERS = {"thd": "tokens,heads,head_dim", "htd": "heads,tokens,head_dim",
          "bhtd": "batch,heads,tokens,head_dim"}


def make_all(folder):
    os.makedirs(folder, exist_ok=True)
    maker = Maker(folder)
    for dtype in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<bf16", ">bf16", "u2"):
        label = dtype.replace("<", "le_").replace(">", "be_")
        maker.make(f"type_{label}", dtype=dtype)
        maker.make(f"type_{label}_contiguous", dtype=dtype, storage="contiguous", order=ORDERS["htd"])
    for label, order in ORDERS.items():
        for storage in ("chunked", "contiguous", "whole", "odd"):
            batch = 3 if label == "bhtd" else 1
            maker.make(f"order_{label}_{storage}", order=order, storage=storage, batch=batch)
    maker.make("head_dims", head_dims=(16, 80, 576, 1))
    for tensor in TENSORS:
        maker.make(f"only_{tensor}", kept=(tensor,))
    maker.make("all_tensors", kept=TENSORS)
    maker.make("without_queries", kept=("k", "v"))
    maker.make("no_axis_order", attribute=False)
    maker.make("no_positions", positions=False, queries=75)
    maker.make("no_positions_batched", positions=False, tokens=20, queries=20, batch=3, order=ORDERS["bhtd"])
    make_odd_bytes(os.path.join(folder, "odd_bytes.h5"))
    make_skipped_filters(maker)
    with open(os.path.join(folder, "manifest.tsv"), "w", encoding="utf-8") as manifest:
        for entry in maker.manifest:
            manifest.write("\t".join(map(str, entry)) + "\n")


if __name__ == "__main__":
    make_all(sys.argv[1])
