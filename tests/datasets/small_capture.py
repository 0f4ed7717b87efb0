"""A small valid capture that the makers of good and bad test files start from."""

import h5py
import numpy as np

LAYERS, KV_HEADS, Q_HEADS, TOKENS, QUERIES, HEAD_DIM = 2, 2, 4, 40, 8, 16
FILTERS = dict(shuffle=True, compression="gzip", compression_opts=4, fletcher32=True)


def values(shape, seed):
    """Numbers that float16 and bfloat16 hold exactly."""
    return np.random.default_rng(seed).integers(-127, 128, shape) / 64.0


def write_tensor(group, name, data, chunk_rows=16):
    group.create_dataset(name, data=data, maxshape=(None,) + data.shape[1:],
                         chunks=(min(chunk_rows, data.shape[0]), 1, data.shape[2]), **FILTERS)


def write_small_capture(path):
    with h5py.File(path, "w") as file:
        file.attrs.update(format="kv-capture", format_version=1, model="test", description="a test",
                          num_layers=LAYERS, num_q_heads=Q_HEADS, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM,
                          key_basis="post_rope", rope_theta=1e4, softmax_scale=0.25,
                          axis_order="tokens,heads,head_dim", source_dtype="float32")
        for layer in range(LAYERS):
            group = file.create_group(f"layers/{layer:03}")
            for seed, (name, rows, heads) in enumerate(
                    (("k", TOKENS, KV_HEADS), ("v", TOKENS, KV_HEADS), ("q", QUERIES, Q_HEADS))):
                data = values((rows, heads, HEAD_DIM), 10 * layer + seed)
                write_tensor(group, name, data.astype(np.float16))
        file["tokens/position"] = np.arange(TOKENS, dtype=np.int32)
        file["tokens/sequence_id"] = np.zeros(TOKENS, dtype=np.int32)
        file["tokens/q_position"] = np.arange(TOKENS - QUERIES, TOKENS, dtype=np.int32)
