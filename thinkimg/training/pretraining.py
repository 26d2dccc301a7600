"""Base pre-training of a model made from scratch, on text alone: a language model that can copy what it has read.

What makes tool use learnable later is recall from the context ("Fig 34 ... Fig" -> "34"); a model without it cannot use
what a tool tells it. No picture and no tool call is seen here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from thinkimg.training.collator import Collator, Sample


def pretrain(
    model: Any,
    collator: Collator,
    batches: Iterator[Sequence[Sample]],
    steps: int,
    learning_rate: float = 2.5e-3,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """AdamW, cosine schedule with 20 warm-up steps, gradient norm clipped at 1. Returns the last loss (nats a token)."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 20, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
    )
    model.train()
    loss = torch.tensor(math.nan)
    for step in range(1, steps + 1):
        loss = model(**collator(next(batches))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        progress(step, loss.item())
    model.eval()
    return loss.item()
