"""One batch of the GRPO trainer, as TRL gets it, and what its loss does to the weights."""

import torch

from thinkimg.training.grpo import ToolGRPOTrainer


def rows_of(trainer: ToolGRPOTrainer, count: int) -> list[dict]:
    """What TRL's sampler would hand over: `count` tasks, each repeated."""
    return [trainer.train_dataset[n] for n in range(count) for _ in range(trainer.num_generations)]


def prepare(trainer: ToolGRPOTrainer, count: int) -> dict:
    """One generation batch as TRL's loss gets it."""
    trainer.model.train()
    return trainer._generate_and_score_completions(rows_of(trainer, count))


def gradients(trainer: ToolGRPOTrainer, batch: dict) -> dict[str, torch.Tensor]:
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
