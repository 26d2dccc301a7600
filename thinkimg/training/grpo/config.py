"""A GRPO block as TRL's configuration, and what is refused because it could not be computed rightly."""

from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig

from thinkimg.api import GRPO, ImportanceCorrection
from thinkimg.errors import UserError
from thinkimg.models.generator import Filters
from thinkimg.training.configs import build, deepspeed_options, without_compiled_collectives
from thinkimg.training.precision import precision_options
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


COMPANIONS: dict[str, dict[str, Any]] = {
    "luspo": {"importance_sampling_level": "sequence"},
    "cispo": {"epsilon_high": 5.0},
    "vespo": {"vllm_importance_sampling_mode": "token_truncate"},
}
"""What a loss is made with, unless `args` says otherwise: `luspo` takes ratios of whole sequences (arXiv 2602.05261);
`cispo` cuts the ratio itself at 5 (arXiv 2510.13786; TRL's own default of 0.2 would scale every gradient by it);
`vespo` weighs sequences itself, and takes corrections of tokens only."""


def grpo_config(spec: GRPO, session: Session) -> GRPOConfig:
    """TRL's configuration: one optimiser step per generation batch, on policy, nothing written but checkpoints. What
    `spec.args` says wins.

    Raises:
        UserError: rows that do not divide evenly; fsdp; a correction of sequences for vespo where vLLM samples; a value
            in `spec.args` that TRL refuses.
    """
    world_size = session.world_size
    if spec.prompts_per_step % world_size:
        raise UserError(
            f"{spec.prompts_per_step} is not a multiple of {world_size} processes: a group would straddle ranks",
            "grpo.promptsPerStep",
        )
    if spec.args.get("fsdp"):
        raise UserError("rollouts need the whole model, which fsdp does not gather; use zeroStage: 3", "grpo.args.fsdp")
    corrected = spec.importance_correction
    if spec.loss_type == "vespo" and session.engine and corrected and corrected.mode.startswith("Sequence"):
        raise UserError(
            "vespo weighs sequences itself; use TokenTruncate or TokenMask", "grpo.importanceCorrection.mode"
        )
    rows, micro = spec.rows_per_process(world_size), spec.rows_per_pass(world_size)
    if not micro or rows % micro:
        raise UserError(f"{rows} rows per process cannot be cut into passes of {micro}", "grpo.microBatch")
    Filters.of(spec.args, "grpo.args")
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
        "gradient_checkpointing": torch.cuda.is_available(),
        "disable_dropout": True,  # the loss must see the distribution that was sampled from
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it shows a loss that is not finite as 0
        "log_multimodal": False,
        # A process may have no picture in a step: nobody waits for gradients of its vision tower.
        "ddp_find_unused_parameters": True if world_size > 1 else None,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        **COMPANIONS.get(spec.loss_type, {}),
        **_corrected(spec.importance_correction),
        **deepspeed_options(spec.zero_stage),
        **precision_options(spec.args, "grpo.args"),
        **session.engine,
        **{name: value for name, value in spec.args.items() if name != "gradient_accumulation_steps"},
    }
    without_compiled_collectives(options)
    return build(GRPOConfig, options, spec.args, "grpo.args")


def _corrected(correction: ImportanceCorrection | None) -> dict[str, Any]:
    if correction is None:
        return {}
    return {
        "vllm_importance_sampling_mode": CORRECTIONS[correction.mode],
        "vllm_importance_sampling_clip_min": correction.clip_min,
        "vllm_importance_sampling_clip_max": correction.clip_max,
    }


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
