"""TurboQuant Lab's codecs and its compressed KV cache, for NumPy arrays and for PyTorch's tensors on a GPU.

Nothing is built or installed: put this folder's parent on PYTHONPATH. Needs NumPy, and libturboquant.so, which is
looked for in TURBOQUANT_LAB_LIBRARY (the file or its folder), beside this package, and in lib/ and build/release/lib
of the folders above it. PyTorch is used where the program has imported it; any other framework whose arrays have
__dlpack__ or __cuda_array_interface__ works with out= arguments.

    import torch
    import turboquant_lab as tq

    k, v = torch.randn(2, 4096, 8, 128, dtype=torch.float16, device="cuda")  # tokens x KV heads x head_dim, each
    q = torch.randn(32, 128, dtype=torch.float16, device="cuda")             # query heads x head_dim
    layer = tq.Layer(8, tq.KeyCodec(128, bits=4), tq.ValueCodec(128, bits=4))
    cache = tq.KvCache(layer, recent=128, device="cuda")
    cache.append(k, v)
    out = cache.attend(q)                                                    # query heads x head_dim
    print(cache.compression, cache.bytes_used())

The same on the host: NumPy float32 arrays and KvCache(layer). Codecs by themselves:

    keys = tq.KeyCodec(128, bits=3, mode="prod", sketch="orthogonal")  # or KeyCodec.from_artefact("model.tq.h5", 0)
    encoded = keys.encode(x)              # x: rows x 128 or heads x rows x 128; NumPy or CUDA
    encoded.codes, encoded.scales         # the canonical layout: codes laid end to end, float16 scalars
    keys.decode(encoded)
    keys.scores(q, encoded)               # NumPy only, as is attend(); on a GPU that is KvCache's

Work on CUDA arrays goes into torch's current stream, else into stream=, else into the legacy default stream. Tensors
on the CPU are read as NumPy arrays and give NumPy arrays. Calls release the GIL; codecs may be used by several threads
at once, and calls on one cache wait for each other. What goes wrong raises turboquant_lab.Error with one line for a
person, and TypeError or ValueError for an argument.
"""

from ._cache import BytesUsed, KvCache, Layer
from ._codec import Encoded, KeyCodec, ValueCodec, attend
from ._library import Error, InputError, MachineError, UsageError, gpu_available, library_path, version

__all__ = ["BytesUsed", "Encoded", "Error", "InputError", "KeyCodec", "KvCache", "Layer", "MachineError", "UsageError",
           "ValueCodec", "attend", "gpu_available", "library_path", "version"]
