"""One optimiser step after another: batches, the learning rate, and the loss."""

import math
import random

import torch
import torch.nn.functional as F

import retrieval_text

PEAK_RATE, LAST_RATE = 2e-3, 1e-4
WARM_UP_STEPS = 300
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
RETRIEVAL_SHARE = 0.2
RETRIEVAL_POOL = 16384

OPTIMISER = (f"AdamW, learning rate {PEAK_RATE:g} to {LAST_RATE:g} by a cosine, warm-up of {WARM_UP_STEPS} steps or a "
             f"tenth, betas {BETAS[0]} and {BETAS[1]}, weight decay {WEIGHT_DECAY}, gradient norm at most {CLIP:g}")


def to_device(data, device):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)


class Batches:
    """Rows of `length` bytes: windows at random places of the text, then rows of key-value documents."""

    def __init__(self, text, length, rows, seed, device):
        self.retrieval_rows = max(1, round(rows * RETRIEVAL_SHARE))
        self.text_rows = rows - self.retrieval_rows
        self.text = to_device(text, device)
        generator = random.Random(f"training {seed}")
        pool = b"".join(retrieval_text.training_row(generator, length) for _ in range(RETRIEVAL_POOL))
        self.pool = to_device(pool, device).view(RETRIEVAL_POOL, length)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.offsets = torch.arange(length, device=device)

    def below(self, limit, count):
        return torch.randint(limit, (count,), generator=self.generator, device=self.offsets.device)

    def next(self):
        begins = self.below(len(self.text) - len(self.offsets) + 1, self.text_rows)
        windows = self.text[begins[:, None] + self.offsets]
        return torch.cat([windows, self.pool[self.below(RETRIEVAL_POOL, self.retrieval_rows)]]).long()


def row_losses(model, rows):
    """Mean nats a byte of each row."""
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=rows.device.type == "cuda"):
        logits = model(rows[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
    return losses.view(len(rows), -1).mean(1)


def learning_rate(step, planned):
    """Linear warm-up, then a cosine down to LAST_RATE at `planned` steps; None: not known yet, during the warm-up."""
    warm_up = WARM_UP_STEPS if planned is None else max(1, min(WARM_UP_STEPS, planned // 10))
    if planned is None or step < warm_up:
        return PEAK_RATE * min(1, (step + 1) / warm_up)
    done = (step - warm_up) / max(1, planned - warm_up)
    return LAST_RATE + (PEAK_RATE - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


class Trainer:
    def __init__(self, model, batches, compiled, say):
        self.model, self.batches, self.say = model, batches, say
        weights = list(model.parameters())
        self.optimiser = torch.optim.AdamW(
            [{"params": [weight for weight in weights if weight.dim() == 2], "weight_decay": WEIGHT_DECAY},
             {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0}],
            lr=PEAK_RATE, betas=BETAS, fused=True)
        self.losses = torch.compile(row_losses) if compiled else row_losses
        self.steps = 0

    def gradients(self, rows):
        losses = self.losses(self.model, rows)
        losses.mean().backward()
        return losses.detach()

    def step(self, planned):
        """One optimiser step of `planned`; mean losses (2) of its text and of its key-value documents, on the device."""
        rows = self.batches.next()
        try:
            losses = self.gradients(rows)
        except Exception as error:  # whatever a compiler can throw; without one the same step is only slower
            if self.steps or self.losses is row_losses:
                raise
            self.say(f"torch.compile failed, going on without it: {type(error).__name__}: {str(error)[:500]}")
            self.losses = row_losses
            self.optimiser.zero_grad()
            losses = self.gradients(rows)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.steps, planned)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.steps += 1
        return torch.stack([losses[:self.batches.text_rows].mean(), losses[self.batches.text_rows:].mean()])
