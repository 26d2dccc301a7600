"""The configuration of every training stage, built as the stage builds it: TRL's, its optimiser and its schedule."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.optimization import get_scheduler

from thinkimg.api import GRPO, SFT, Stage
from thinkimg.errors import UserError
from thinkimg.jobs.preflight.findings import Finding, Loc, Plan, block_of
from thinkimg.jobs.preflight.models import Known
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.colocated import check_vllm, chosen_engine
from thinkimg.training.grpo.config import grpo_config, refuse_unfit
from thinkimg.training.session import Session
from thinkimg.training.sft import sft_config

_CORRECT = "Correct it, or leave it out for the default."


def check_training(plan: Plan, known: Known) -> Iterator[Finding]:
    """What TRL, transformers and torch refuse of a stage's settings."""
    if plan.job.spec.report_to and any(stage.sft or stage.grpo for _, stage in plan.stages()):
        yield from _reports(plan)
    for index, stage in plan.stages():
        if stage.sft or stage.grpo:
            yield from _stage(plan, index, stage, known)


def _reports(plan: Plan) -> Iterator[Finding]:
    for number, name in enumerate(plan.job.spec.report_to):
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ImportError, RuntimeError, ValueError) as error:
            remedy = f"Install it (pip install {name}), or remove it from reportTo."
            yield plan.refused(("spec", "reportTo", number), error, remedy)


def _stage(plan: Plan, index: int, stage: Stage, known: Known) -> Iterator[Finding]:
    block = stage.sft or stage.grpo
    assert block is not None
    if (block.zero_stage or block.args.get("deepspeed")) and importlib.util.find_spec("deepspeed") is None:
        loc = block_of(index, stage, "zeroStage") if block.zero_stage else block_of(index, stage, "args", "deepspeed")
        yield plan.found(loc, "DeepSpeed is not installed", "Install it (pip install deepspeed), or use zeroStage: 0.")
        return
    session = Session(
        Path(plan.run) / "stages" / stage.name,
        plan.job.spec.seed,
        stage.world_size,
        plan.job.spec.checkpoint.every_steps,
        report_to=tuple(plan.job.spec.report_to),
    )
    try:
        args: Any = _sft(block, session) if isinstance(block, SFT) else _grpo(plan, block, session, known)
    except UserError as error:
        yield plan.refused(_loc(index, stage, error.field), error, _CORRECT)
        return
    yield from _optimiser(plan, block_of(index, stage, "args"), args, known)


def _loc(index: int, stage: Stage, field: str) -> Loc:
    """The place of a field that is named from the stage's block on, with or without the block's own name."""
    parts = field.split(".") if field else []
    block = stage.type.lower()
    return block_of(index, stage, *(parts[1:] if parts[:1] == [block] else parts))


def _sft(spec: SFT, session: Session) -> Any:
    return sft_config(spec, session, 1.0 if spec.max_seconds is not None else None)


def _grpo(plan: Plan, spec: GRPO, session: Session, known: Known) -> Any:
    """Every process's share is what TRL sees here, where there is one process only; so the number of tasks is divided
    as well."""
    engine = chosen_engine(known.skeleton)
    args = grpo_config(spec, Session(**(vars(session) | {"engine": engine})))
    if "train" in plan.tasks:
        _, tasks = plan.tasks["train"]
        if tasks < spec.prompts_per_step:
            message = f"a step takes {spec.prompts_per_step} questions, but data.train has {tasks}"
            raise UserError(message, "grpo.promptsPerStep")
        refuse_unfit(args, tasks // session.world_size)
    check_vllm(args, VLLMGenerator(known.family) if engine else None)
    if spec.fork_groups and "accuracy" not in {reward.name for reward in spec.rewards}:
        raise UserError("whether tool calls went wrong is seen by the reward accuracy: add it", "grpo.forkGroups")
    return args


def _optimiser(plan: Plan, loc: Loc, args: Any, known: Known) -> Iterator[Finding]:
    """Optimisers and schedules are made when the training begins."""
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args, known.skeleton)
    except (ImportError, ValueError, TypeError) as error:
        yield plan.refused((*loc, "optim"), error, _CORRECT)
        return
    own = getattr(kind, "__module__", "").startswith("torch.optim") and "params" not in options
    weights = [torch.nn.Parameter(torch.zeros(1))]
    try:
        optimizer = kind(weights, **options) if own else torch.optim.AdamW(weights)
    except (TypeError, ValueError) as error:
        yield plan.refused((*loc, "optim_args"), error, _CORRECT)
        return
    steps = args.max_steps if args.max_steps > 0 else 100
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (TypeError, ValueError, KeyError) as error:
        yield plan.refused((*loc, "lr_scheduler_kwargs"), error, _CORRECT)
