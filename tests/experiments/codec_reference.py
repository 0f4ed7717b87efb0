"""The codec and its metrics in float64 NumPy, written from their definitions and sharing nothing with the program.

Vectors are rows. An artefact's layer and a capture's layer are read with h5py as they are stored.
"""

import functools

import h5py
import numpy as np

HOLDOUT_BLOCK = 128  # tokens of one part are cut at multiples of this

FIT, HELD_OUT = 0, 1
METRICS = ("relative_mse", "cosine", "softmax_kl", "top1_agreement", "output_error")


# Random objects.

def paley_12():
    """I + C, C the skew conference matrix of the squares modulo 11."""
    squares = {a * a % 11 for a in range(1, 11)}
    h = np.ones((12, 12))
    h[1:, 0] = -1
    for i in range(11):
        for j in range(11):
            h[1 + i, 1 + j] = 1 if i == j or (i - j) % 11 in squares else -1
    return h


def hadamard(order):
    h = paley_12() if order % 3 == 0 else np.ones((1, 1))
    while h.shape[0] < order:
        h = np.kron(h, [[1, 1], [1, -1]])
    assert h.shape[0] == order and np.array_equal(h @ h.T, order * np.eye(order))
    return h


def signed_hadamard(group):
    """P H D / sqrt(d) of stored signs and permutation."""
    permutation = group["permutation"][()].astype(int)
    signs = 1 - 2.0 * np.unpackbits(group["sign_bits"][()], bitorder="little")
    d = len(permutation)
    return (hadamard(d) * signs)[permutation] / np.sqrt(d)


def rotation_matrix(group):
    return group["matrix"][()].astype(float) if "matrix" in group else signed_hadamard(group)


def sketch_matrix(group):
    if "matrix" in group:
        return group["matrix"][()].astype(float)
    d = len(group["permutation"])
    return np.sqrt(d) * signed_hadamard(group)


# Tables.

class Table:
    def __init__(self, centroids, boundaries=None):
        self.centroids = np.asarray(centroids, float)
        if boundaries is None:
            inner = (self.centroids[1:] + self.centroids[:-1]) / 2
        else:
            inner = np.asarray(boundaries, float)[1:-1]
        self.inner = inner

    def indices(self, y):
        # boundaries[i] < y <= boundaries[i + 1]
        return np.searchsorted(self.inner, y, side="left")


@functools.lru_cache
def sphere_table(d, bits):
    """Lloyd-Max for one coordinate of a uniform direction."""
    edges = np.linspace(-1, 1, 200_001)
    middles = (edges[1:] + edges[:-1]) / 2
    density = (1 - middles**2) ** ((d - 3) / 2)
    start = (2 * np.arange(2**bits) + 1 - 2**bits) / 2**bits * 3 / np.sqrt(d)
    return lloyd_max(edges, density, start)


def fitted_table(coordinates, d, start):
    """Lloyd-Max for a sample. As a step function a finite sample has many fixed points near each other; in a histogram
    of the documented bins, each taken as uniform, there is one.
    """
    reach = min(1, 12 / np.sqrt(d))
    counts, edges = np.histogram(np.clip(coordinates, -reach, reach), bins=8192, range=(-reach, reach))
    return lloyd_max(edges, counts, start.centroids)


def lloyd_max(edges, weights, centroids):
    """For a density that is constant between neighbouring edges."""
    mass = np.concatenate([[0], np.cumsum(weights)]).astype(float)
    moment = np.concatenate([[0], np.cumsum(weights * (edges[1:] + edges[:-1]) / 2)])
    for _ in range(20000):
        cuts = np.concatenate([edges[:1], (centroids[1:] + centroids[:-1]) / 2, edges[-1:]])
        mass_below = np.interp(cuts, edges, mass)
        bins = np.minimum(np.searchsorted(edges, cuts, side="right") - 1, len(weights) - 1)
        moment_below = moment[bins] + (mass_below - mass[bins]) * (cuts + edges[bins]) / 2
        means = np.diff(moment_below) / np.diff(mass_below)
        moved = np.abs(means - centroids).max()
        centroids = means
        if moved < 1e-12:
            break
    return Table(centroids)


def mean_of_cells(coordinates, table):
    """Of the sample itself: a Lloyd-Max table's centroids."""
    indices = table.indices(coordinates.ravel())
    counts = np.bincount(indices, minlength=len(table.centroids))
    return np.bincount(indices, coordinates.ravel(), len(table.centroids)) / counts


# Codecs.

def half(x):
    return np.asarray(x).astype(np.float16).astype(float)


def norms(x):
    return np.sqrt((x * x).sum(-1, keepdims=True))


def rotated_codec(x, rotation, table, scale):
    n = norms(x)
    y = x / n @ rotation.T
    c = table.centroids[table.indices(y)]
    if scale == "nc":
        g = n / norms(c)
    elif scale == "ls":
        g = n * (y * c).sum(-1, keepdims=True) / (c * c).sum(-1, keepdims=True)
    else:
        g = n
    return half(g) * c @ rotation


def residuals(x, rotation, sketch, table):
    """r and g = S^T sign(S r) in the rotated frame, and n c + r = Pi x."""
    n = norms(x)
    y = x / n @ rotation.T
    c = table.centroids[table.indices(y)]
    r = n * (y - c)
    return r, np.where(r @ sketch.T > 0, 1.0, -1.0) @ sketch, n, c


def prod_codec(x, rotation, sketch, table, alpha):
    d = x.shape[-1]
    r, g, n, c = residuals(x, rotation, sketch, table)
    return (half(n) * c + alpha / d * half(norms(r)) * g) @ rotation


def group_codec(x, bits, group_size):
    groups = x.reshape(*x.shape[:-1], -1, group_size)
    zero = half(groups.min(-1, keepdims=True))
    step = half((groups.max(-1, keepdims=True) - groups.min(-1, keepdims=True)) / (2**bits - 1))
    codes = np.clip(np.rint((groups - zero) / np.where(step > 0, step, 1)), 0, 2**bits - 1)
    return (zero + step * np.where(step > 0, codes, 0)).reshape(x.shape)


def least_squares_alpha(x, rotation, sketch, table):
    d = x.shape[-1]
    r, g, _, _ = residuals(x, rotation, sketch, table)
    rn = norms(r)
    return d * (rn * r * g).sum() / (rn**2 * g * g).sum()


# A stored capture and a stored artefact.

class CaptureLayer:
    def __init__(self, file, index):
        """k, v, q: (heads, tokens or query rows, d)."""
        group = file[f"layers/{index:03}"]
        read = lambda name: group[name][()].astype(float).transpose(1, 0, 2)
        self.k, self.v = read("k"), read("v")
        self.kv_heads, self.tokens, self.head_dim = self.k.shape
        self.scale = file.attrs.get("softmax_scale", 1 / np.sqrt(self.head_dim))
        self.q = None
        if "q" in group and file.attrs["key_basis"] == "post_rope":
            self.q = read("q")
            position, sequence = file["tokens/position"][()], file["tokens/sequence_id"][()]
            q_position = file["tokens/q_position"][()]
            if "q_sequence_id" in file["tokens"]:
                q_sequence = file["tokens/q_sequence_id"][()]
            else:
                q_sequence = np.full(len(q_position), sequence[0])
            # (query rows, tokens)
            self.visible = (sequence == q_sequence[:, None]) & (position <= q_position[:, None])

    @functools.cached_property
    def exact_attention(self):
        """By query head: scores, log-softmax, softmax (query rows, tokens) and output (query rows, d)."""
        heads = []
        for head, queries in enumerate(self.q):
            kv = head // (len(self.q) // self.kv_heads)
            s = self.scale * queries @ self.k[kv].T
            log_p = log_softmax(s, self.visible)
            heads.append((s, log_p, np.exp(log_p), np.exp(log_p) @ self.v[kv]))
        return heads

    def held_out(self, holdout):
        token = np.arange(self.tokens)
        blocks = -(-self.tokens // HOLDOUT_BLOCK)
        if holdout == "tail":
            return token >= blocks // 2 * HOLDOUT_BLOCK
        return token // HOLDOUT_BLOCK % 2 == 1


class StoredLayer:
    """One layer of an artefact: how it codes keys and values."""

    def __init__(self, file, index):
        group = file[f"layers/{index:03}"]
        d = group.attrs["head_dim"]
        self.rotation = rotation_matrix(file[f"rotations/{d}"])
        self.key, self.value = ({name: v.decode() if isinstance(v, bytes) else v
                                 for name, v in group[side].attrs.items()} for side in ("key", "value"))
        self.prod = self.key["mode"] == "prod"
        self.sketch = sketch_matrix(file[f"sketches/{d}"]) if self.prod else None
        self.key_tables, self.alphas = self._tables(group["key"]), group["key/qjl_scale"][()].astype(float)
        self.value_tables = self._tables(group["value"]) if self.value["mode"] == "rotated" else None
        self.gates = {side: Gate(group[f"metrics/{side}"]) for side in ("key", "value")}

    @staticmethod
    def _tables(group):
        centroids, boundaries = np.atleast_2d(group["centroids"][()]), np.atleast_2d(group["boundaries"][()])
        return [Table(c, b) for c, b in zip(centroids, boundaries)]

    def code_keys(self, k, tables=None, alphas=None):
        tables, alphas = tables or self.key_tables, self.alphas if alphas is None else alphas
        coded = []
        for head, x in enumerate(k):
            i = head if len(tables) > 1 else 0
            j = head if len(alphas) > 1 else 0
            if self.prod:
                coded.append(prod_codec(x, self.rotation, self.sketch, tables[i], alphas[j]))
            else:
                coded.append(rotated_codec(x, self.rotation, tables[i], self.key["scale"]))
        return np.stack(coded)

    def code_values(self, v, tables=None):
        if self.value["mode"] == "group":
            return group_codec(v, self.value["bits"], self.value["group_size"])
        tables = tables or self.value_tables
        return np.stack([rotated_codec(x, self.rotation, tables[head if len(tables) > 1 else 0], self.value["scale"])
                         for head, x in enumerate(v)])


class Gate:
    def __init__(self, group):
        self.kept = int(group.attrs["kept"])
        self.reason = group.attrs["reason"].decode()
        self.scores = group["scores"][()] if "scores" in group else np.zeros((0, 2, len(METRICS)))
        self.names = [group["scores"].attrs[f"candidate_{i}"].decode() for i in range(len(self.scores))]


# Metrics.

def vector_errors(x, coded):
    """Mean over rows of ||x - x^||^2 / ||x||^2 and of the cosine."""
    xx, cc = (x * x).sum(-1), (coded * coded).sum(-1)
    return ((x - coded) ** 2).sum(-1).ravel() @ (1 / xx.ravel()) / xx.size, \
        ((x * coded).sum(-1) / np.sqrt(xx * cc)).mean()


def attention_errors(layer, keys, values, judged):
    """What replacing the keys and values by others does, over queries that see a token with judged[token].

    inner_product_* are over the visible pairs of judged tokens; `queries` is how many were judged.
    """
    kl, agree, error, pairs = [], [], [], []
    group = len(layer.q) // layer.kv_heads
    counts = (layer.visible & judged).any(-1)
    visible = layer.visible[counts]
    for head, queries in enumerate(layer.q[:, counts]):
        s, exact, p, o = (whole[counts] for whole in layer.exact_attention[head])
        t = layer.scale * queries @ keys[head // group].T
        coded = log_softmax(t, visible)
        p_coded = np.exp(coded)
        kl.append((p * np.where(visible, exact, 0) - p * np.where(visible, coded, 0)).sum(-1))
        agree.append(exact.argmax(-1) == coded.argmax(-1))
        error.append(((o - p_coded @ values[head // group]) ** 2).sum(-1) / (o * o).sum(-1))
        pairs.append(np.stack([s[visible & judged], t[visible & judged]]))
    s, t = np.concatenate(pairs, axis=1)
    kl, agree, error = map(np.concatenate, (kl, agree, error))
    return dict(softmax_kl=kl.mean(), top1_agreement=agree.mean(), output_error=error.mean(), queries=len(kl),
                inner_product_bias=s @ t / (s @ s) - 1,
                inner_product_error=np.sqrt((t - s) @ (t - s) / (s @ s)))


def log_softmax(scores, visible):
    masked = np.where(visible, scores, -np.inf)
    shifted = masked - masked.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def open_layers(capture, artefact):
    """[(CaptureLayer, StoredLayer)]"""
    with h5py.File(capture, "r") as c, h5py.File(artefact, "r") as a:
        return [(CaptureLayer(c, i), StoredLayer(a, i)) for i in range(len(c["layers"]))]
