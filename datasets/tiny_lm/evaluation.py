"""What a trained model is worth: loss on held-out text, and whether it copies values from far back."""

import collections
import json
import math

import torch
import torch.nn.functional as F

ROWS = 16
DISTANCE_STEP = 256


def windows_loss(model, text, context):
    """Mean nats a byte of `text` (all but its first), each byte predicted from at least context / 2 bytes before it,
    or from all there are."""
    device = next(model.parameters()).device
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    half, total = context // 2, 0.0
    begins = list(range(0, max(1, len(tokens) - 1 - half), half))
    for first in range(0, len(begins), ROWS):
        some = begins[first:first + ROWS]
        # The last window is shorter than the others: padded at its end, which causal attention does not see.
        rows = torch.stack([F.pad(row, (0, context + 1 - len(row))) for row in
                            (tokens[begin:begin + context + 1] for begin in some)]).to(device)
        logits = model(rows[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
        for begin, row in zip(some, losses.view(len(some), context).double().cpu()):
            total += row[half if begin else 0:len(tokens) - 1 - begin].sum().item()
    return total / (len(tokens) - 1)


def retrieval_accuracy(model, lines):
    """Of the documents of a retrieval file (retrieval_text.py): {distance up to: (queries, answered right)}. An answer is
    right if each of its bytes is the likeliest one after the true bytes before it."""
    device = next(model.parameters()).device
    documents = [json.loads(line) for line in lines]
    counts = collections.Counter()
    for first in range(0, len(documents), ROWS):
        some = documents[first:first + ROWS]
        rows = torch.stack([torch.frombuffer(bytearray(document["text"].encode()), dtype=torch.uint8).long()
                            for document in some]).to(device)
        right = (model(rows[:, :-1]).argmax(-1) == rows[:, 1:]).cpu()
        for row, document in zip(right, some):
            for query in document["queries"]:
                begin = query["answer_start"] - 1  # row[i] says whether byte i + 1 was predicted
                upto = math.ceil(query["distance"] / DISTANCE_STEP) * DISTANCE_STEP
                counts[upto, bool(row[begin:begin + query["answer_length"]].all())] += 1
    return {upto: (counts[upto, True] + counts[upto, False], counts[upto, True])
            for upto in sorted({upto for upto, _ in counts})}


@torch.no_grad()
def evaluate(model, heldout, retrieval_lines):
    """The figures for the card; `model` as it ships."""
    return {"loss": windows_loss(model, heldout, model.config.max_position_embeddings),
            "retrieval": retrieval_accuracy(model, retrieval_lines)}
