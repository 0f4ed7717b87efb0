"""The Python module on PyTorch's CUDA tensors, in a stream of their own, against float64 on the same device.

usage: test_python_device.py --library LIBTURBOQUANT

Exits 77 where there is no PyTorch, no GPU or no NVRTC.
"""

import argparse
import math
import os
import pathlib
import subprocess
import sys
import threading
import unittest

SKIPPED = 77


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


parser = argparse.ArgumentParser()
parser.add_argument("--library", required=True)
arguments, rest = parser.parse_known_args()
sys.argv[1:] = rest
os.environ["TURBOQUANT_LAB_LIBRARY"] = os.path.abspath(arguments.library)
PACKAGES = str(pathlib.Path(__file__).resolve().parents[2] / "experiments" / "python")
sys.path.insert(0, PACKAGES)

try:
    import torch
except ImportError:
    skip("there is no PyTorch")
if not torch.cuda.is_available():
    skip("PyTorch finds no GPU")

import turboquant_lab as tq  # noqa: E402: after torch, whose C++ library is the newer one

AVAILABLE, REASON = tq.gpu_available()
if not AVAILABLE:
    skip(REASON)

SEED = int(os.environ.get("TQ_TEST_SEED", torch.seed() % 2**32))
print(f"TQ_TEST_SEED={SEED}", file=sys.stderr)
torch.manual_seed(SEED)
torch.backends.cuda.matmul.allow_tf32 = False

# Of one rounding to the type, relative to the vector.
ROUNDING = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
ATTENTION_ERROR, COSINE = 2e-3, 0.99999

KEYS = [dict(head_dim=128), dict(head_dim=64, bits=4, scale="norm", rotation="qr"),
        dict(head_dim=80, bits=2, scale="ls"), dict(head_dim=128, mode="prod"),
        dict(head_dim=96, bits=4, mode="prod", sketch="gaussian", alpha="mse")]
VALUES = [dict(head_dim=128), dict(head_dim=256, bits=4, rotation="qr"), dict(head_dim=128, bits=2, mode="group"),
          dict(head_dim=80, bits=3, mode="group", group_size=16),
          dict(head_dim=64, bits=8, mode="group", group_size=64)]


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, device="cuda").to(dtype)


def unpack(packed, bits):
    """Codes laid end to end, least significant bit first."""
    stream = packed[..., None] >> torch.arange(8, device="cuda", dtype=torch.uint8) & 1
    codes = stream.reshape(*packed.shape[:-1], -1, bits).long()
    return (codes << torch.arange(bits, device="cuda")).sum(-1)


def from_codes(codec, encoded, bits, mode="", group_size=32, **_):
    """What the stored codes and scalars stand for, in float64."""
    codes = unpack(encoded.codes, bits - (mode == "prod"))
    if mode == "group":
        groups = codes.reshape(*codes.shape[:-1], -1, group_size).double()
        return (encoded.zeros.double()[..., None] + encoded.scales.double()[..., None] * groups).reshape(codes.shape)
    centroids, _, alpha = codec.tables()
    rotated = encoded.scales.double()[..., None] * torch.tensor(centroids, device="cuda")[codes]
    if mode == "prod":
        signs = 2 * unpack(encoded.signs, 1).double() - 1
        weight = alpha / codes.shape[-1] * encoded.residual_norms.double()
        rotated = rotated + weight[..., None] * (signs @ torch.tensor(codec.sketch, device="cuda").double())
    return rotated @ torch.tensor(codec.rotation, device="cuda").double()


def on_host(encoded):
    """The same Encoded as NumPy arrays."""
    arrays = [getattr(encoded, name) for name in ("codes", "scales", "zeros", "signs", "residual_norms")]
    return tq.Encoded(*(None if array is None else array.cpu().numpy() for array in arrays))


def attention(q, keys, values, scale):
    """q: heads x d; keys, values: KV heads x tokens x d. Output and log-sum-exp in float64."""
    group = q.shape[0] // keys.shape[0]
    keys, values = (x.double().repeat_interleave(group, dim=0) for x in (keys, values))
    scores = scale * (keys @ q.double()[..., None])[..., 0]
    return (scores.softmax(-1)[:, None] @ values)[:, 0], scores.logsumexp(-1)


def held_by_cache(x, codec, sinks, quantised):
    """tokens x heads x d as a cache holds them, through the host's codec: heads x tokens x d in float64."""
    rows = x.half().float().transpose(0, 1).contiguous()
    if quantised:
        part = rows[:, sinks:sinks + quantised].contiguous().cpu().numpy()
        rows[:, sinks:sinks + quantised] = torch.tensor(codec.decode(codec.encode(part)), device="cuda")
    return rows.double()


def off_boundaries(codec_class, d, options, *shape):
    """Vectors whose coordinates lie near the middle of their cells, in host memory. Of vectors that do not, some have a
    coordinate so near a boundary that the device's rounding puts it in another cell than the host's, and a query that
    gives such a token much weight shows it."""
    x = torch.randn(math.prod(shape), d).numpy()
    if options.get("mode") == "group":
        codec, noise = codec_class(d, **options), 0  # the ends of a group's range stay where they are
    else:
        prod = options.get("mode") == "prod"
        codec = codec_class(d, bits=options.get("bits", 3) - prod, rotation=options.get("rotation", "rht"))
        noise = 0.1 if prod else 0.02  # of a deviation; the sign bits need some residual
    return torch.tensor(codec.decode(codec.encode(x))).view(*shape, d) + noise * torch.randn(*shape, d)


class OnlyDlpack:
    def __init__(self, tensor):
        self.tensor = tensor
        self.shape = tensor.shape

    def __dlpack__(self, stream=None):
        return self.tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class OnlyInterface:
    def __init__(self, tensor):
        self.tensor = tensor
        self.shape = tensor.shape

    @property
    def __cuda_array_interface__(self):
        return {**self.tensor.__cuda_array_interface__, "version": 3, "stream": None}


class InAStream(unittest.TestCase):
    """Every test runs in a stream that is not the default one."""

    def setUp(self):
        context = torch.cuda.stream(torch.cuda.Stream())
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def close(self, found, expected, relative, message=None):
        self.assertTrue(torch.isfinite(found).all(), message)
        error = (found.double() - expected).norm() / expected.norm()
        self.assertLess(error.item(), relative, message)


class Codecs(InAStream):
    def cases(self):
        for options in KEYS:
            yield tq.KeyCodec(**options), {"bits": 3, **options}
        for options in VALUES:
            yield tq.ValueCodec(**options), {"bits": 3, **options}

    def test_encode_and_decode(self):
        for codec, options in self.cases():
            for dtype in ROUNDING:
                for shape in ((1,), (130,), (3, 67)):
                    with self.subTest(codec=codec, dtype=dtype, shape=shape):
                        x = normal(*shape, codec.head_dim, dtype=dtype)
                        encoded = codec.encode(x)
                        self.assertEqual(encoded.nbytes, codec.bytes_per_token * x[..., 0].numel())
                        # float32 has every value of the other two: the host's codes of the same numbers.
                        theirs = codec.encode(x.float().cpu().numpy())
                        differ = unpack(encoded.codes, 1) != unpack(torch.tensor(theirs.codes, device="cuda"), 1)
                        self.assertLess(differ.double().mean().item(), 1e-3)
                        wanted = from_codes(codec, encoded, **options)
                        for out_dtype, rounding in ROUNDING.items():
                            found = codec.decode(encoded, dtype=out_dtype)
                            self.assertEqual((found.dtype, found.shape), (out_dtype, x.shape))
                            self.close(found, wanted, rounding)
                        host = torch.tensor(codec.decode(on_host(encoded)), device="cuda")
                        self.close(codec.decode(encoded), host.double(), 2e-6)

    def test_zero_and_no_vectors(self):
        for codec, _ in self.cases():
            with self.subTest(codec=codec):
                zeros = torch.zeros(3, codec.head_dim, device="cuda")
                self.assertFalse(codec.decode(codec.encode(zeros)).any())
                self.assertEqual(codec.decode(codec.encode(zeros[:0])).shape, (0, codec.head_dim))

    def test_other_frameworks(self):
        codec = tq.KeyCodec(128, mode="prod")
        x = normal(2, 100, 128, dtype=torch.float16)
        wanted = codec.encode(x)
        for wrap in (OnlyDlpack, OnlyInterface):
            with self.subTest(wrap=wrap):
                plain = {name: torch.zeros_like(getattr(wanted, name))
                         for name in ("codes", "scales", "signs", "residual_norms")}
                out = tq.Encoded(**{name: wrap(array) for name, array in plain.items()})
                self.assertIs(codec.encode(wrap(x), out=out), out)
                for name, array in plain.items():
                    self.assertTrue(torch.equal(array, getattr(wanted, name)), name)
                decoded = torch.full_like(x, float("nan"))
                codec.decode(out, out=wrap(decoded))
                self.assertTrue(torch.equal(decoded, codec.decode(wanted, dtype=torch.float16)))

    def test_explicit_stream(self):
        codec, x = tq.ValueCodec(64), normal(1000, 64)
        wanted = codec.encode(x)
        other = torch.cuda.Stream()
        other.wait_stream(torch.cuda.current_stream())
        with self.assertRaisesRegex(ValueError, "give out="):
            codec.encode(x, stream=other)
        out = tq.Encoded(torch.zeros_like(wanted.codes), torch.zeros_like(wanted.scales))
        for stream in (other, other.cuda_stream):
            out.codes.zero_()
            codec.encode(x, out=out, stream=stream)
            other.synchronize()
            self.assertTrue(torch.equal(out.codes, wanted.codes))

    def test_default_stream(self):
        codec, x = tq.KeyCodec(128), normal(100, 128)
        wanted = codec.encode(x)
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.default_stream()):
            self.assertTrue(torch.equal(codec.encode(x).codes, wanted.codes))

    def test_order_in_the_stream(self):
        codec = tq.KeyCodec(128)
        source, x = normal(4096, 128), torch.full((4096, 128), float("nan"), device="cuda")
        wanted = codec.decode(codec.encode(source))
        torch.cuda.synchronize()
        torch.cuda._sleep(50_000_000)
        x.copy_(source)
        found = codec.decode(codec.encode(x))
        x.fill_(float("nan"))
        self.assertTrue(torch.equal(found, wanted))

    def test_errors(self):
        codec = tq.KeyCodec(128)
        x = normal(16, 128)
        encoded = codec.encode(x)
        shifted = normal(17 * 128)[1:1 + 16 * 128].view(16, 128)
        for error, pattern, call in (
                (TypeError, r"float64, must be .*x.to\(torch.float32\)", lambda: codec.encode(x.double())),
                (ValueError, r"x.contiguous\(\)", lambda: codec.encode(x[::2])),
                (ValueError, "x.contiguous", lambda: codec.encode(normal(128, 16).t())),
                (ValueError, "must be", lambda: codec.encode(normal(16, 64))),
                (ValueError, "detach", lambda: codec.encode(x.clone().requires_grad_())),
                (tq.UsageError, "16 bytes", lambda: codec.encode(shifted)),
                (tq.UsageError, "16 bytes", lambda: codec.decode(encoded, out=shifted)),
                (tq.UsageError, "16 bytes",
                 lambda: tq.ValueCodec(128, mode="group").decode(tq.ValueCodec(128, mode="group").encode(x),
                                                                 out=shifted)),
                (ValueError, "is on the host", lambda: codec.decode(encoded, out=torch.empty(16, 128))),
                (ValueError, "encoded.scales is on the host",
                 lambda: codec.decode(tq.Encoded(encoded.codes, encoded.scales.cpu()))),
                (TypeError, "float64", lambda: codec.decode(encoded, dtype=torch.float64)),
                (TypeError, "KvCache.scores", lambda: codec.scores(x, encoded)),
                (tq.UsageError, "head_dim 512", lambda: tq.KeyCodec(512).encode(normal(4, 512))),
                (tq.UsageError, "up to 4 bits", lambda: tq.KeyCodec(128, bits=5).encode(x))):
            with self.subTest(pattern=pattern), self.assertRaisesRegex(error, pattern):
                call()
        self.assertEqual(codec.encode(x.cpu()).codes.shape, (16, 48))  # tensors of the host give NumPy arrays

    def test_threads(self):
        codec, x = tq.KeyCodec(128), normal(4, 3000, 128)
        wanted = [codec.encode(part) for part in x]
        torch.cuda.synchronize()
        failures = []

        def work(index):
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(20):
                    if not torch.equal(codec.encode(x[index]).codes, wanted[index].codes):
                        failures.append(index)
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(failures, [])

    def test_cupy(self):
        try:
            import cupy
        except ImportError:
            self.skipTest("there is no CuPy")
        codec = tq.ValueCodec(128)
        x = cupy.random.standard_normal((50, 128), dtype=cupy.float32)
        cupy.cuda.get_current_stream().synchronize()
        encoded = codec.encode(x)
        self.assertTrue(torch.equal(encoded.codes, codec.encode(torch.as_tensor(x, device="cuda")).codes))
        out = cupy.empty_like(x)
        codec.decode(encoded, out=out)
        self.assertTrue(torch.equal(torch.as_tensor(out, device="cuda"), codec.decode(encoded)))


class Caches(InAStream):
    def test_against_float64(self):
        for key, value, d, recent, sinks, group in (
                (dict(bits=4), dict(bits=4), 128, 128, 0, 4),
                (dict(mode="prod"), dict(mode="group", bits=2), 128, 0, 0, 1),
                (dict(bits=3, rotation="qr"), dict(bits=3), 64, 16, 4, 16),
                (dict(mode="prod", sketch="gaussian"), dict(mode="group", bits=4), 96, 7, 1, 3)):
            key_codec, value_codec = tq.KeyCodec(d, **key), tq.ValueCodec(d, **value)
            for dtype in ROUNDING:
                with self.subTest(keys=key_codec, values=value_codec, dtype=dtype):
                    heads, tokens = 2, 700
                    cache = tq.KvCache(tq.Layer(heads, key_codec, value_codec), recent=recent, sinks=sinks, batch=2,
                                       device="cuda")
                    k = off_boundaries(tq.KeyCodec, d, key, 2, tokens, heads).to("cuda", dtype)
                    v = off_boundaries(tq.ValueCodec, d, value, 2, tokens, heads).to("cuda", dtype)
                    q = normal(2, heads * group, d, dtype=dtype)
                    cache.append_batch(k[:, :300].contiguous(), v[:, :300].contiguous())
                    for sequence in range(2):
                        cache.append(k[sequence, 300:699], v[sequence, 300:699], sequence=sequence)
                        cache.append(k[sequence, 699:], v[sequence, 699:], sequence=sequence)
                    out, lse = cache.attend(q, return_lse=True)
                    self.assertEqual((out.dtype, lse.dtype), (dtype, torch.float32))
                    single = cache.attend(q, out=torch.empty(q.shape, device="cuda"))
                    for sequence in range(2):
                        quantised = cache.quantised(sequence=sequence)
                        self.assertEqual(quantised, tokens - recent - sinks)
                        held = [held_by_cache(x[sequence], codec, sinks, quantised)
                                for x, codec in ((k, key_codec), (v, value_codec))]
                        wanted, sums = attention(q[sequence], *held, d**-0.5)
                        self.close(single[sequence], wanted, ATTENTION_ERROR)
                        self.close(out[sequence], wanted, ATTENTION_ERROR + ROUNDING[dtype])
                        cosine = torch.cosine_similarity(single[sequence].double(), wanted)
                        self.assertGreater(cosine.min().item(), COSINE)
                        self.assertLess((lse[sequence] - sums).abs().max().item(), 5e-3)
                        scores = cache.scores(q[sequence], sequence=sequence)
                        kept = held[0][:, sinks:sinks + quantised].repeat_interleave(group, dim=0)
                        self.close(scores, (kept @ q[sequence].double()[..., None])[..., 0], ATTENTION_ERROR)
                    host = tq.KvCache(tq.Layer(heads, key_codec, value_codec), recent=recent, sinks=sinks, batch=2)
                    host.append_batch(k.float().cpu().numpy(), v.float().cpu().numpy())
                    ours, theirs = cache.bytes_used(), host.bytes_used()
                    self.assertEqual((ours.codes, ours.scalars, ours.exact),
                                     (theirs.codes, theirs.scalars, theirs.exact))

    def test_other_streams_than_the_caches_own(self):
        d, heads = 128, 2
        codecs = tq.KeyCodec(d), tq.ValueCodec(d)
        with torch.cuda.stream(torch.cuda.Stream()):
            cache = tq.KvCache(tq.Layer(heads, *codecs), recent=0, device="cuda")
        k, q = normal(2000, heads, d, dtype=torch.float16), normal(4, d, dtype=torch.float16)
        late, late_q = torch.full_like(k, float("nan")), torch.full_like(q, float("nan"))
        reference = tq.KvCache(tq.Layer(heads, *codecs), recent=0, device=torch.device("cuda", 0))
        reference.append(k, k)
        wanted = reference.attend(q)
        torch.cuda.synchronize()
        torch.cuda._sleep(50_000_000)  # what follows in this stream must not be overtaken
        late.copy_(k)
        cache.append(late, late)
        late.fill_(float("nan"))
        torch.cuda._sleep(50_000_000)
        late_q.copy_(q)
        found = cache.attend(late_q)
        late_q.fill_(float("nan"))
        self.assertTrue(torch.equal(found, wanted))
        with torch.cuda.stream(torch.cuda.default_stream()):
            self.assertTrue(torch.equal(cache.attend(q), wanted))

    def test_exact_layers_and_empty(self):
        cache = tq.KvCache([tq.Layer(2, head_dim=64), tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64))], device="cuda:0")
        q = normal(8, 64)
        for layer in range(2):
            out, lse = cache.attend(q, layer=layer, return_lse=True)
            self.assertFalse(out.any())
            self.assertTrue(torch.isneginf(lse).all())
        k = normal(300, 2, 64, dtype=torch.bfloat16)
        cache.prefill(k, k)
        held = held_by_cache(k, None, 0, 0)
        self.close(cache.attend(q), attention(q, held, held, 1 / 8)[0], ATTENTION_ERROR)
        self.assertEqual(cache.scores(q).shape, (8, 0))

    def test_errors(self):
        cache = tq.KvCache(tq.Layer(2, tq.KeyCodec(64), tq.ValueCodec(64)), device="cuda")
        k, q = normal(5, 2, 64), normal(4, 64)
        for error, pattern, call in (
                (ValueError, "k is on the host, the cache is on GPU 0", lambda: cache.append(k.cpu(), k)),
                (TypeError, "v is float16", lambda: cache.append(k, k.half())),
                (ValueError, r"must be \(any, 2, 64\)", lambda: cache.append(k[0], k[0])),
                (ValueError, "contiguous", lambda: cache.append(k[::2], k[::2])),
                (tq.UsageError, "3 query heads", lambda: cache.attend(q[:3])),
                (tq.UsageError, "1 to 16", lambda: cache.attend(normal(34, 64))),
                (tq.MachineError, "no GPU 99", lambda: tq.KvCache(tq.Layer(2, head_dim=64), device=99)),
                (tq.UsageError, "not empty|holds", lambda: (cache.append(k, k), cache.prefill(k, k)))):
            with self.subTest(pattern=pattern), self.assertRaisesRegex(error, pattern):
                call()

    def test_memory_comes_back(self):
        layer, k = tq.Layer(8, tq.KeyCodec(128), tq.ValueCodec(128)), normal(20_000, 8, 128, dtype=torch.float16)

        def free_bytes():
            torch.cuda.synchronize()
            return torch.cuda.mem_get_info()[0]

        def work():
            cache = tq.KvCache(layer, recent=0, device="cuda")
            cache.append(k, k)
            return cache.attend(k[0])
        work()
        before = free_bytes()
        for _ in range(5):
            work()
        self.assertLess(before - free_bytes(), 8 << 20)


class Example(unittest.TestCase):
    def test_runs(self):
        script = os.path.join(PACKAGES, "example_torch.py")
        result = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": PACKAGES},
                                capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        print(result.stdout, file=sys.stderr)
        self.assertIn("tokens on cuda", result.stdout)


if __name__ == "__main__":
    unittest.main()
