"""A training that went wrong ends before it saves anything over something good, and one that taught nothing says so."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import TrainerCallback

from thinkimg.errors import UserError
from thinkimg.training.checkpoints import on_any_rank

_REMEDY = "nothing of it is saved; a lower learning rate (or args.max_grad_norm) is the usual remedy"


class Soundness(TrainerCallback):
    """Looks at weights before the first step, at gradients before each step, and at the trained weights after it; on
    every rank, and all ranks end together. It stands before the callbacks that save.

    Args:
        block: `sft` or `grpo`: whose field messages name.
        allow_no_learning: a training without any gradient is meant.
        reasons: why there may have been none.
    """

    def __init__(self, block: str, allow_no_learning: bool, reasons: Callable[[], str]) -> None:
        self.block, self.allow_no_learning, self.reasons = block, allow_no_learning, reasons
        self.greatest: float | None = None
        """Of what was seen of gradients; None where nothing could be."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        named = list(model.named_parameters())
        if bad := _not_finite(named):
            raise UserError(f"the model to start from has weights that are not finite, {bad} first", "model")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """DeepSpeed holds the gradients elsewhere; there the weights tell."""
        gradients = [(name, each.grad) for name, each in model.named_parameters() if each.grad is not None]
        if not gradients:
            return
        self._saw(max(_largest(each for _, each in gradients), default=0.0))
        if not args.fp16:  # its scaler passes over steps that are not finite
            # Clipping has spread it to all of them by now, so that the first one's name would say nothing.
            self._refuse("a gradient", "in this process" if _not_finite(gradients) else "", state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self._refuse("a weight", _not_finite(trained), state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """The loss of a step on rank 0, which is the mean over the ranks; so all see the same."""
        if not logs or "loss" not in logs:
            return
        if (norm := logs.get("grad_norm")) is not None and math.isfinite(norm):
            self._saw(float(norm))
        self._refuse("the loss", "" if math.isfinite(logs["loss"]) else f"{logs['loss']}", state.global_step)

    def conclude(self, trainer: Any) -> None:
        """To be called after the training, unless it was interrupted.

        Raises:
            UserError: no step of it, those before a resume included, had a gradient.
        """
        if any(getattr(each, "ended", False) for each in trainer.callback_handler.callbacks):
            return
        logged = [line["grad_norm"] for line in trainer.state.log_history if line.get("grad_norm") is not None]
        seen = [*logged, *([] if self.greatest is None else [self.greatest])]
        if seen and not any(seen) and not self.allow_no_learning:
            steps = trainer.state.global_step
            raise UserError(
                f"nothing was learnt: none of {steps} steps had a gradient; {self.reasons()}. If that is meant, say "
                "allowNoLearning: true",
                f"{self.block}.allowNoLearning",
            )

    def _saw(self, gradient: float) -> None:
        if math.isfinite(gradient):
            self.greatest = max(gradient, self.greatest or 0.0)

    def _refuse(self, what: str, bad: str, step: int) -> None:
        if on_any_rank(bool(bad)):
            where = f" ({bad})" if bad else " in another process"
            raise UserError(f"{what} is not finite{where} in step {step}: {_REMEDY}", self.block)


def _not_finite(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The name of the first tensor with a value that is not finite; empty where there is none. Of parameters that
    ZeRO-3 has shared out, this process's part is looked at."""
    parts = [(name, getattr(each, "ds_tensor", each).detach()) for name, each in named]
    parts = [(name, each) for name, each in parts if each.numel() and each.is_floating_point()]
    for (name, _), value in zip(parts, _largest(each for _, each in parts), strict=True):
        if not math.isfinite(value):
            return name
    return ""


def _largest(tensors: Iterable[torch.Tensor]) -> list[float]:
    """Of each the greatest absolute value; NaN where there is one."""
    found = [torch.linalg.vector_norm(each, math.inf).float() for each in tensors if each.numel()]
    if not found:
        return []
    values: list[float] = torch.stack([each.to(found[0].device) for each in found]).tolist()
    return values
