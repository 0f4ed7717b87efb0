"""Reads and writes safetensors files and model folders, sound or not, with the standard library and NumPy alone."""

import json
import os
import shutil
import struct

import numpy as np


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items() if name != "__metadata__"}


def safetensors_bytes(header, data):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text)) + text + data


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    with open(path, "wb") as file:
        file.write(safetensors_bytes(header, data))


def float32(array):
    return "F32", array.shape, array.astype("<f4").tobytes()


class ModelFolder:
    """A copy of a model's folder that a test may change."""

    def __init__(self, source, path):
        shutil.copytree(source, path)
        self.path = path
        self.weights = os.path.join(path, "model.safetensors")
        self.tensors = read_safetensors(self.weights)
        with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)

    def save(self):
        write_safetensors(self.weights, self.tensors)
        return self.save_config()

    def save_config(self):
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        return self.path

    def save_shards(self, count):
        """The tensors in `count` files and an index."""
        os.remove(self.weights)
        names = list(self.tensors)
        index = {}
        for shard in range(count):
            file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
            write_safetensors(os.path.join(self.path, file), {name: self.tensors[name] for name in names[shard::count]})
            index.update({name: file for name in names[shard::count]})
        with open(os.path.join(self.path, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
            json.dump({"metadata": {}, "weight_map": index}, file)
        return self.path


def bytes_model(source, path, seed=3):
    """The model in `source` with a token for every byte: its embedding and its head are drawn anew."""
    folder = ModelFolder(source, path)
    random = np.random.default_rng(seed)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        folder.tensors[name] = float32(0.5 * random.standard_normal((256, folder.config["hidden_size"])))
    folder.config["vocab_size"] = 256
    return folder.save()


def random_llama(path, hidden=64, layers=2, q_heads=4, kv_heads=2, head_dim=64, positions=512, seed=4):
    """A byte-level Llama of random weights in float32, attention and logits far from uniform."""
    random = np.random.default_rng(seed)
    inner = 3 * hidden
    tensors = {"model.embed_tokens.weight": float32(0.5 * random.standard_normal((256, hidden))),
               "model.norm.weight": float32(np.ones(hidden))}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{norm}.weight"] = float32(np.ones(hidden))
        for part, rows, columns in (("self_attn.q_proj", q_heads * head_dim, hidden),
                                    ("self_attn.k_proj", kv_heads * head_dim, hidden),
                                    ("self_attn.v_proj", kv_heads * head_dim, hidden),
                                    ("self_attn.o_proj", hidden, q_heads * head_dim),
                                    ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                    ("mlp.down_proj", hidden, inner)):
            tensors[f"{name}{part}.weight"] = float32(random.standard_normal((rows, columns)) / columns**0.5)
    os.makedirs(path)
    write_safetensors(os.path.join(path, "model.safetensors"), tensors)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as file:
        json.dump(dict(model_type="llama", vocab_size=256, hidden_size=hidden, intermediate_size=inner,
                       num_hidden_layers=layers, num_attention_heads=q_heads, num_key_value_heads=kv_heads,
                       head_dim=head_dim, max_position_embeddings=positions, rms_norm_eps=1e-5, rope_theta=10000.0,
                       tie_word_embeddings=True), file)
    return path
