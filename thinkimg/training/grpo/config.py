"""A GRPO block as TRL's configuration, and what is refused because it could not be computed rightly."""

from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig

from thinkimg.api import GRPO, ImportanceCorrection
from thinkimg.errors import UserError
from thinkimg.training.configs import deepspeed_options, without_compiled_collectives
from thinkimg.training.session import Session

SCHEDULER = "constant_with_warmup"
"""Of the learning rate; `args.lr_scheduler_type` and `args.warmup_steps` say otherwise."""

CORRECTIONS = {
    "TokenTruncate": "token_truncate",
    "TokenMask": "token_mask",
    "SequenceTruncate": "sequence_truncate",
    "SequenceMask": "sequence_mask",
}
"""`importanceCorrection.mode` as TRL names it."""


def grpo_config(spec: GRPO, session: Session) -> GRPOConfig:
    """TRL's configuration: one optimiser step per generation batch, on policy, nothing written but checkpoints. What
    `spec.args` says wins.

    Raises:
        UserError: rows that do not divide evenly; a loss that several processes would not compute alike; a value in
            `spec.args` that TRL refuses.
    """
    world_size = session.world_size
    if spec.prompts_per_step % world_size:
        raise UserError(
            f"{spec.prompts_per_step} is not a multiple of {world_size} processes: a group would straddle ranks",
            "grpo.promptsPerStep",
        )
    if world_size > 1:
        _refuse_unequal(spec)
    rows, micro = spec.rows_per_process(world_size), spec.rows_per_pass(world_size)
    if not micro or rows % micro:
        raise UserError(f"{rows} rows per process cannot be cut into passes of {micro}", "grpo.microBatch")
    options = session.arguments | {
        "max_steps": spec.max_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": rows // micro,
        "num_generations": spec.num_generations,
        "max_completion_length": spec.max_tokens_per_turn * spec.max_rounds,  # what dr_grpo divides by
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": SCHEDULER,
        "temperature": spec.temperature,
        "beta": spec.beta,
        "loss_type": spec.loss_type,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,  # the loss must see the distribution that was sampled from
        "logging_steps": 1,
        "log_multimodal": False,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        **_level_of(spec),
        **_corrected(spec.importance_correction),
        **deepspeed_options(spec.zero_stage),
        **session.engine,
        **{name: value for name, value in spec.args.items() if name != "gradient_accumulation_steps"},
    }
    without_compiled_collectives(options)
    try:
        return GRPOConfig(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the configuration: {error}", "grpo.args") from error


def _level_of(spec: GRPO) -> dict[str, Any]:
    """`luspo` is made for ratios of whole sequences."""
    return {"importance_sampling_level": "sequence"} if spec.loss_type == "luspo" else {}


def _corrected(correction: ImportanceCorrection | None) -> dict[str, Any]:
    if correction is None:
        return {}
    return {
        "vllm_importance_sampling_mode": CORRECTIONS[correction.mode],
        "vllm_importance_sampling_clip_min": correction.clip_min,
        "vllm_importance_sampling_clip_max": correction.clip_max,
    }


def _refuse_unequal(spec: GRPO) -> None:
    """What is a mean over one process's tokens: the gradient would depend on who got which question."""
    remedy = "the processes' tokens are not equally many, so that the gradient would depend on who got which question"
    if spec.loss_type == "bnpo":
        raise UserError(
            f"bnpo divides by the tokens of one process: {remedy}; use dapo or one process", "grpo.lossType"
        )
    if any(spec.args.get(name) for name in ("entropy_coef", "use_adaptive_entropy")):
        raise UserError(f"the entropy bonus is a mean over one process's tokens: {remedy}", "grpo.args.entropy_coef")


def refuse_unfit(args: GRPOConfig, tasks: int) -> None:
    """A configuration of TRL's that `ToolGRPOTrainer` cannot follow with so many tasks.

    Raises:
        UserError: `mask_truncated_completions`; groups that straddle ranks; too few tasks.
    """
    if args.mask_truncated_completions:
        raise UserError(
            "TRL's mask_truncated_completions shifts image grids between samples; set maskTruncated instead",
            "grpo.args.mask_truncated_completions",
        )
    per_rank = args.per_device_train_batch_size * (args.steps_per_generation or 1)
    size = args.num_generations or 1
    if per_rank % size:
        raise UserError(
            f"{per_rank} rows per rank are not whole groups of {size}: a group would straddle ranks; "
            "make promptsPerStep a multiple of the number of processes",
            "grpo.promptsPerStep",
        )
    groups = (args.generation_batch_size or per_rank) // size
    if tasks < groups:
        raise UserError(f"a step takes {groups} tasks, but there are {tasks}", "grpo.promptsPerStep")
