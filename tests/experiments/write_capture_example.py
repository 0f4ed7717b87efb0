import h5py
import numpy as np

layers, tokens, q_heads, kv_heads, head_dim = 2, 512, 8, 2, 128
with h5py.File("model.kv.h5", "w") as file:
    file.attrs.update(format="kv-capture", format_version=1, model="my-model", key_basis="post_rope",
                      num_layers=layers, num_q_heads=q_heads, num_kv_heads=kv_heads, head_dim=head_dim,
                      axis_order="tokens,heads,head_dim")
    for layer in range(layers):
        for name, heads in (("k", kv_heads), ("v", kv_heads), ("q", q_heads)):  # put your model's arrays here
            file[f"layers/{layer:03}/{name}"] = np.random.randn(tokens, heads, head_dim).astype(np.float16)
    for name in ("position", "q_position"):  # of every row of k and v, and of every row of q
        file[f"tokens/{name}"] = np.arange(tokens, dtype=np.int32)
    file["tokens/sequence_id"] = np.zeros(tokens, dtype=np.int32)
