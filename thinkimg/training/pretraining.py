"""Base pre-training of a model made from scratch, on text alone: a language model that can copy what it has read.

What makes tool use learnable later is recall from the context ("Fig 34 ... Fig" -> "34"); a model without it cannot use
what a tool tells it. No picture and no tool call is seen here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

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
        Muon(matrices, muon_learning_rate),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before it is applied (Jordan et al. 2024), in the parameters' own dtype.

    `torch.optim.Muon` computes in bfloat16, which a CPU without instructions for it emulates: twenty times slower.
    Matrices of one shape are orthogonalised together.

    Args:
        matrices: parameters with two dimensions.
        lr: learning rate; a tall matrix's is multiplied by the root of rows over columns.
    """

    def __init__(
        self, matrices: Sequence[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; matrices without a gradient are left alone."""
        for group in self.param_groups:
            trained = [matrix for matrix in group["params"] if matrix.grad is not None]
            for same_shape in _by_shape(trained):
                self._update(same_shape, group)

    def _update(self, matrices: Sequence[torch.nn.Parameter], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        directions = []
        for matrix in matrices:
            average = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
            gradient = cast(torch.Tensor, matrix.grad)
            average.lerp_(gradient, 1 - momentum)
            directions.append(torch.lerp(gradient, average, momentum))  # Nesterov's
        rows, columns = matrices[0].shape
        lr = group["lr"]
        for matrix, update in zip(matrices, orthogonalise(torch.stack(directions)), strict=True):
            matrix.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * max(1, rows / columns) ** 0.5)


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Quintic Newton-Schulz iteration, coefficients of Jordan et al. 2024. Shape in and out: (count, rows, columns).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _by_shape(matrices: Sequence[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    groups: dict[torch.Size, list[torch.nn.Parameter]] = {}
    for matrix in matrices:
        groups.setdefault(matrix.shape, []).append(matrix)
    return list(groups.values())


def _cosine(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then down to 5 %."""
    return lambda step: min((step + 1) / 20, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
