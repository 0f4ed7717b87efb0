#!/usr/bin/python3
"""Makes captures that must be refused: bad_captures.py FOLDER writes them and a list, FOLDER/manifest.tsv.

A line of the list: file, stage ("open": refused when opened; "read": when its tensors are read), then texts
that the message must hold.
"""

import os
import sys
import zlib

import h5py
import numpy as np

from small_capture import FILTERS, HEAD_DIM, KV_HEADS, TOKENS, values, write_small_capture, write_tensor

K = "layers/000/k"
CASES = {}


def case(*texts, stage="open"):
    """Registers a maker: it gets the path of a small valid capture, and spoils it."""
    def register(maker):
        CASES[maker.__name__] = (maker, stage, texts)
        return maker
    return register


def replace(file, name, **dataset):
    del file[name]
    return file.create_dataset(name, **dataset)


def edited(change):
    """A maker from a function that changes the open file."""
    def maker(path):
        with h5py.File(path, "r+") as file:
            change(file)
    maker.__name__ = change.__name__
    return maker


def data(rows=TOKENS, heads=KV_HEADS, head_dim=HEAD_DIM):
    return values((rows, heads, head_dim), 1).astype(np.float16)


# Links and foreign storage.

@case("/layers/000/k", "soft link")
@edited
def soft_link(file):
    del file[K]
    file[K] = h5py.SoftLink("/layers/001/k")


@case("/layers/001", "soft link")
@edited
def soft_link_in_the_path(file):
    del file["layers/001"]
    file["layers/001"] = h5py.SoftLink("/layers/000")


@case("/layers", "soft link")
@edited
def soft_link_at_the_root(file):
    file.move("layers", "elsewhere")
    file["layers"] = h5py.SoftLink("/elsewhere")


@case("/layers/000/k", "external link")
@edited
def external_link(file):
    del file[K]
    file[K] = h5py.ExternalLink("other.h5", "/k")


@case("/tokens", "external link")
@edited
def external_link_to_tokens(file):
    del file["tokens"]
    file["tokens"] = h5py.ExternalLink("other.h5", "/tokens")


@case("/layers/000/k", "another file")
@edited
def external_storage(file):
    replace(file, K, shape=(TOKENS, KV_HEADS, HEAD_DIM), dtype=np.float16, external=[("raw.bin", 0, 1 << 20)])


@case("/layers/000/k", "virtual")
@edited
def virtual_dataset(file):
    layout = h5py.VirtualLayout((TOKENS, KV_HEADS, HEAD_DIM), dtype=np.float16)
    layout[:] = h5py.VirtualSource("other.h5", "k", shape=(TOKENS, KV_HEADS, HEAD_DIM))
    del file[K]
    file.create_virtual_dataset(K, layout)


# Filters and sizes.

@case("/layers/000/k", "filter 32000")
@edited
def filter_lzf(file):
    replace(file, K, data=data(), chunks=(16, 1, HEAD_DIM), compression="lzf")


@case("/layers/000/k", "filter 6")
@edited
def filter_scaleoffset(file):
    replace(file, K, data=data().astype(np.float32), chunks=(16, 1, HEAD_DIM), scaleoffset=3)


@case("/layers/000/k", "deflated twice")
@edited
def deflated_twice(file):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((TOKENS, KV_HEADS, HEAD_DIM))
    creation.set_deflate(9)
    creation.set_deflate(9)
    space = h5py.h5s.create_simple((TOKENS, KV_HEADS, HEAD_DIM))
    del file[K]
    h5py.h5d.create(file.id, K.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=creation)
    file[K][...] = 0


@case("/layers/000/k", "at most")
@edited
def huge_logical_size(file):
    replace(file, K, shape=(1 << 40, KV_HEADS, HEAD_DIM), dtype=np.float16, chunks=(256, 1, HEAD_DIM),
            **FILTERS)


@case("/layers/000/k", "stored bytes")
@edited
def logical_size_without_storage(file):
    replace(file, K, shape=(1 << 24, KV_HEADS, HEAD_DIM), dtype=np.float16, chunks=(256, 1, HEAD_DIM),
            **FILTERS)


@case("/layers/000/k", "stored bytes")
@edited
def contiguous_without_storage(file):
    replace(file, K, shape=(TOKENS, KV_HEADS, HEAD_DIM), dtype=np.float16)


@case("/layers/000/k", "chunks over 256 MiB")
@edited
def huge_chunk(file):
    # Never written, so that making it needs no gigabyte; the chunk's size is refused all the same.
    replace(file, K, shape=(0, KV_HEADS, HEAD_DIM), maxshape=(None, KV_HEADS, HEAD_DIM), dtype=np.float16,
            chunks=(1 << 25, 1, HEAD_DIM), **FILTERS)


# Shapes and types.

@case("/layers/000/k", "2 axes")
@edited
def wrong_rank(file):
    replace(file, K, data=data().reshape(TOKENS, -1))


@case("/layers/000/k", "0 axes")
@edited
def scalar_tensor(file):
    replace(file, K, data=np.float16(1))


@case("/layers/000/k", "holds nothing")
@edited
def null_tensor(file):
    replace(file, K, data=h5py.Empty(np.float16))


@case("/layers/000/k", "float16")
@edited
def wrong_dtype(file):
    replace(file, K, data=data().astype(np.int32))


@case("/layers/000/k", "float16")
@edited
def compound_dtype(file):
    replace(file, K, data=np.zeros((TOKENS, KV_HEADS, HEAD_DIM), dtype=[("re", "f4"), ("im", "f4")]))


@case("/layers/000/k", "bfloat16")
@edited
def uint16_of_unknown_meaning(file):
    replace(file, K, data=data().view(np.uint16))


@case("/layers/000/k", "no tokens")
@edited
def no_tokens(file):
    replace(file, K, data=data(rows=0), maxshape=(None, KV_HEADS, HEAD_DIM), chunks=(16, 1, HEAD_DIM))


@case("/layers/000/v", "41 tokens", "/layers/000/k")
@edited
def tokens_of_k_and_v(file):
    replace(file, "layers/000/v", data=data(rows=TOKENS + 1))


@case("/layers/001/k", "39 tokens", "/layers/000/k")
@edited
def tokens_of_two_layers(file):
    replace(file, "layers/001/k", data=data(rows=TOKENS - 1))


@case("/layers/001/q", "9 tokens", "/layers/000/q")
@edited
def query_tokens_of_two_layers(file):
    replace(file, "layers/001/q", data=data(rows=9, heads=4))


@case("/layers/000/v", "3 heads")
@edited
def heads_of_v(file):
    replace(file, "layers/000/v", data=data(heads=3))


@case("/layers/000/q", "2 heads", "num_q_heads")
@edited
def heads_of_q(file):
    replace(file, "layers/000/q", data=data(rows=8, heads=2))


@case("/layers/000/v", "head_dim 8")
@edited
def head_dim_of_v(file):
    replace(file, "layers/000/v", data=data(head_dim=8))


@case("/layers/000", "head_dim 16")
@edited
def head_dim_attribute(file):
    file.attrs["head_dim"] = 32


@case("/layers/000/k", "head_dim 2000")
@edited
def head_dim_over_the_limit(file):
    replace(file, K, data=data(head_dim=2000))


@case("/tokens/position", "(41)")
@edited
def length_of_positions(file):
    replace(file, "tokens/position", data=np.arange(TOKENS + 1, dtype=np.int32))


@case("/tokens/sequence_id", "int32")
@edited
def type_of_sequence_ids(file):
    replace(file, "tokens/sequence_id", data=np.zeros(TOKENS, dtype=np.int64))


@case("/tokens/q_position", "must not be negative")
@edited
def negative_query_position(file):
    file["tokens/q_position"][3] = -1


@case("/tokens/position", "entry 5 is -7")
@edited
def negative_position(file):
    file["tokens/position"][5] = -7


@case("/tokens/q_position", "is missing")
@edited
def no_query_positions(file):
    del file["tokens/q_position"]


@case("/tokens/q_position", "no token", "q_sequence_id")
@edited
def query_beyond_the_tokens(file):
    file["tokens/q_position"][0] = 1000


@case("/tokens/q_position", "several tokens", "q_sequence_id")
@edited
def query_of_two_sequences(file):
    file["tokens/position"][...] = np.arange(TOKENS) % 20
    file["tokens/sequence_id"][...] = np.arange(TOKENS) // 20
    file["tokens/q_position"][...] = np.arange(8)


@case("/layers/000/k", "is not a dataset")
@edited
def group_for_dataset(file):
    del file[K]
    file.create_group(K)


@case("/layers", "is not a group")
@edited
def dataset_for_group(file):
    replace(file, "layers", data=np.zeros(3))


# What the file says of itself.

@case("/layers", "is missing")
@edited
def no_layers(file):
    del file["layers"]


@case("/layers", "1 layers", "num_layers is 2")
@edited
def missing_layer(file):
    del file["layers/001"]


@case("/layers", "'001'")
@edited
def misnumbered_layer(file):
    file.move("layers/001", "layers/7")


@case("/layers/001", "none of k, v, q")
@edited
def empty_layer(file):
    del file["layers/001"]
    file.create_group("layers/001")


@case("/", "'format'")
@edited
def no_format(file):
    del file.attrs["format"]


@case("/", "turboquant-artefact")
@edited
def another_format(file):
    file.attrs["format"] = "turboquant-artefact"


@case("/", "format_version 2")
@edited
def unknown_version(file):
    file.attrs["format_version"] = 2


@case("/", "'format_version'", "integer")
@edited
def version_as_text(file):
    file.attrs["format_version"] = "1"


@case("/", "'num_kv_heads'")
@edited
def no_kv_heads(file):
    del file.attrs["num_kv_heads"]


@case("/", "'num_layers' is 0")
@edited
def no_layers_claimed(file):
    file.attrs["num_layers"] = 0


@case("/", "num_q_heads 3")
@edited
def uneven_heads(file):
    file.attrs["num_q_heads"] = 3


@case("/", "'num_layers'", "one value")
@edited
def array_attribute(file):
    file.attrs["num_layers"] = [2, 2]


@case("/", "'key_basis'")
@edited
def no_key_basis(file):
    del file.attrs["key_basis"]


@case("/", "key_basis 'mid?rope'")
@edited
def unknown_key_basis(file):
    file.attrs["key_basis"] = "mid\nrope"


@case("/", "axis_order 'head_dim,tokens'")
@edited
def unknown_axis_order(file):
    file.attrs["axis_order"] = "head_dim,tokens"


@case("/layers/000/k", "heads", "axis_order")
@edited
def wrong_axis_order(file):
    file.attrs["axis_order"] = "heads,tokens,head_dim"


@case("/", "'softmax_scale'", "positive")
@edited
def softmax_scale_not_finite(file):
    file.attrs["softmax_scale"] = np.inf


# Values.

def spoiled(value, layer, name, token, head, element):
    def change(file):
        dataset = file[f"layers/{layer:03}/{name}"]
        dataset[token, head, element] = value
    return edited(change)


for bad, label in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")):
    CASES[f"value_{label}"] = (spoiled(bad, 1, "v", 21, 1, 5), "read",
                               ("/layers/001/v", "layer 1", "tensor v", "head 1", "token 21", label))
CASES["value_nan_in_q"] = (spoiled(np.nan, 0, "q", 7, 3, 0), "read", ("/layers/000/q", "head 3", "token 7"))


@case("/layers/000/k", "token 39", "inf", stage="read")
@edited
def beyond_float32(file):
    wide = data().astype(np.float64)
    wide[39, 0, 0] = 1e300
    replace(file, K, data=wide)


# Damage to the bytes.

def chunk_place(path, index=2):
    with h5py.File(path, "r") as file:
        chunk = file[K].id.get_chunk_info(index)
        return chunk.byte_offset, chunk.size


@case("/layers/000/k", "damaged", stage="read")
def flipped_bit(path):
    offset, size = chunk_place(path)
    with open(path, "r+b") as file:
        file.seek(offset + size // 2)
        byte = file.read(1)[0]
        file.seek(offset + size // 2)
        file.write(bytes([byte ^ 0x10]))


@case("/layers/000/k", "fletcher32", stage="read")
def flipped_bit_uncompressed(path):
    with h5py.File(path, "r+") as file:
        replace(file, K, data=data(), chunks=(16, 1, HEAD_DIM), fletcher32=True)
    flipped_bit(path)


@case("/layers/000/k", "no chunk at (16, 0, 0)", stage="read")
@edited
def chunk_never_written(file):
    group = file["layers/000"]
    del group["k"]
    write_tensor(group, "k", data(rows=16))
    group["k"].resize(TOKENS, axis=0)


def with_chunk(file, stored):
    """k anew, its first chunk as given: zlib alone, no checksum, 16 x 1 x HEAD_DIM float16."""
    made = replace(file, K, data=data(), chunks=(16, 1, HEAD_DIM), compression="gzip")
    made.id.write_direct_chunk((0, 0, 0), stored)


@case("/layers/000/k", "(0, 0, 0)", "does not inflate", stage="read")
@edited
def deflate_bomb(file):
    with_chunk(file, zlib.compress(bytes(500_000)))


@case("/layers/000/k", "(0, 0, 0)", "does not inflate", stage="read")
@edited
def chunk_too_short(file):
    with_chunk(file, zlib.compress(bytes(16 * HEAD_DIM * 2 - 1)))


@case("/layers/000/k", "(0, 0, 0)", "more than its content", stage="read")
@edited
def chunk_too_long(file):
    with_chunk(file, np.random.default_rng(1).bytes(2000))


def truncated(share):
    def maker(path):
        os.truncate(path, int(os.path.getsize(path) * share))
    return maker


for percent in (1, 10, 50, 90, 99):
    CASES[f"truncated_to_{percent}_percent"] = (truncated(percent / 100), "open", ())


@case("truncated")
def truncated_by_a_byte(path):
    os.truncate(path, os.path.getsize(path) - 1)


@case("is empty")
def empty(path):
    os.truncate(path, 0)


@case("not an HDF5 file")
def text(path):
    with open(path, "w", encoding="utf-8") as file:
        file.write("this is not a capture\n" * 100)


@case("not a regular file")
def directory(path):
    os.remove(path)
    os.mkdir(path)


@case("No such file")
def missing(path):
    os.remove(path)


def make_all(folder):
    """Writes every case into `folder`; returns [(path, stage, texts)]."""
    os.makedirs(folder, exist_ok=True)
    made = []
    for name, (maker, stage, texts) in CASES.items():
        path = os.path.join(folder, f"{name}.kv.h5")
        if os.path.isdir(path):
            os.rmdir(path)
        write_small_capture(path)
        maker(path)
        made.append((path, stage, texts))
    return made


def main():
    folder = sys.argv[1]
    made = make_all(folder)
    with open(os.path.join(folder, "manifest.tsv"), "w", encoding="utf-8") as manifest:
        for path, stage, texts in made:
            manifest.write("\t".join((path, stage) + texts) + "\n")


if __name__ == "__main__":
    main()
