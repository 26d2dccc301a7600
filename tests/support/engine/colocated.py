"""What tests ask of the engine in a trainer's process."""

from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.models.chat import encode_context
from thinkimg.models.generator import GenerationRequest
from thinkimg.training.grpo import Row, ToolGRPOTrainer
from thinkimg.trajectory import Trajectory

TASKS, GENERATIONS = 8, 8


ENGINE = {"use_vllm": True, "vllm_max_model_length": 1024, "vllm_gpu_memory_utilization": 0.2}


def rollouts(trainer: ToolGRPOTrainer) -> dict[str, Any]:
    """One generation batch: trajectories from the engine, log-probabilities from the trainer."""
    trainer.model.train()
    inputs = [trainer.train_dataset[number] for number in range(TASKS) for _ in range(GENERATIONS)]
    trainer._generate_and_score_completions(inputs)
    return scored(trainer)  # all rows, in order: what is trained on leaves out those without advantage


def differences(rows: Sequence[Row], batch: dict[str, Any]) -> torch.Tensor:
    """Of the model's own tokens: engine's log-probability minus trainer's."""
    assert all(row.masked is None for row in rows)
    own, engine = (
        torch.zeros_like(batch["old_per_token_logps"], dtype=torch.bool),
        torch.zeros_like(batch["old_per_token_logps"]),
    )
    for number, row in enumerate(rows):
        own[number, : len(row.mask)] = torch.tensor(row.mask, dtype=torch.bool)
        engine[number, : len(row.logprobs)] = torch.tensor(row.logprobs)
    return (engine - batch["old_per_token_logps"])[own].abs()


def scored(trainer: ToolGRPOTrainer) -> dict[str, Any]:
    """TRL's scoring of the rows that the trainer holds now."""
    inputs = [{"prompt": group.task.question, "task": 0} for group in trainer.groups for _ in group.rows]
    return super(ToolGRPOTrainer, trainer)._generate_and_score_completions(inputs)


def request(trainer: ToolGRPOTrainer, *pictures: Image, seed: int = 0, **changes: Any) -> GenerationRequest:
    made = Trajectory(question="what is")
    handles = [made.add_image(image) for image in pictures]
    made.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text="what is"))
    (tokens,) = encode_context(trainer.family, made)
    return GenerationRequest(**{"tokens": tokens, "images": made.ordered_images, "max_tokens": 10, "temperature": 1.0,
                                "seed": seed} | changes)  # fmt: skip
