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
    learning_rate: float = 3e-3,
    muon_learning_rate: float = 2e-2,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train `model` in place; returns the last loss (nats a token).

    The text layers' matrices are trained by Muon (Jordan et al. 2024), the rest by AdamW: with AdamW alone recall was
    not found within the steps that a demo can wait for. Cosine schedule, 20 warm-up steps, gradient norm clipped at 1.
    """
    optimisers = _optimisers(model, learning_rate, muon_learning_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(steps)) for optimiser in optimisers]
    model.train()
    loss = torch.tensor(math.nan)
    for step in range(1, steps + 1):
        loss = model(**collator(next(batches))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
        progress(step, loss.item())
    model.eval()
    return loss.item()


def _optimisers(model: Any, learning_rate: float, muon_learning_rate: float) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [tensor for name, tensor in named if tensor.ndim == 2 and "language_model.layers" in name]
    chosen = {id(tensor) for tensor in matrices}
    others = [tensor for _, tensor in named if id(tensor) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _cosine(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then down to 5 %."""
    return lambda step: min((step + 1) / 20, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
