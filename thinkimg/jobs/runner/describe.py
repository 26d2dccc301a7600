"""What a stage will do, and what it ended with, in words: for the list at a run's beginning and for its lines."""

from collections.abc import Sequence
from pathlib import Path

from thinkimg import jsonl
from thinkimg.api import BASE, Stage, ToolRLJob, scheme_of
from thinkimg.figures import accuracy, percent
from thinkimg.jobs.runner.forecast import questions_of
from thinkimg.results import AnyDone, BaseDone, EvaluateDone, GRPODone, SFTDone, SynthesizeDone
from thinkimg.training_log import GRPOLine

_LAST = 10
"""Steps at the end of a training over which its figures are averaged."""


def describe(job: ToolRLJob, name: str) -> str:
    """In words, for a list of the stages to come."""
    if name == BASE:
        return f"make the model {job.spec.model.uri}" if scheme_of(job.spec.model.uri) == "preset" else "take the model"
    stage = job.spec.stage(name)
    if stage.synthesize:
        planner = stage.synthesize.planner.model
        who = f"by {planner.name}" if planner else "by the scripted planner"
        return f"make {stage.synthesize.trajectories:,} trajectories {who}"
    if stage.sft:
        return f"learn {_length_of_sft(stage)}{_without_tools(stage.sft.tool_use)}"
    if stage.grpo:
        grpo = stage.grpo
        rollouts = f"{grpo.prompts_per_step} questions × {grpo.num_generations} rollouts"
        return f"RL, {grpo.max_steps:,} steps of {rollouts}{_without_tools(grpo.tool_use)}"
    assert stage.evaluate is not None
    count = questions_of(job, stage)
    asked = f"{count:,} questions" if count else f"the {stage.evaluate.split} questions"
    models = len(stage.evaluate.models)
    return f"ask {models} model{'s' if models > 1 else ''} {asked}"


def _length_of_sft(stage: Stage) -> str:
    sft = stage.sft
    assert sft is not None
    if sft.max_tokens:
        return f"as many tokens as {sft.max_tokens.from_stage}"
    if sft.max_seconds:
        return f"for as long as {sft.max_seconds.from_stage} took"
    if sft.max_steps:
        return f"{sft.max_steps:,} steps of {sft.batch_size} trajectories"
    return f"{sft.epochs or 1:g} passes over the trajectories"


def _without_tools(tool_use: str) -> str:
    return ", without tools" if tool_use == "Disabled" else ""


def outcome(done: AnyDone, log: Path) -> str:
    """What a finished stage found; empty if it says nothing.

    Args:
        log: the stage's `log.jsonl`.
    """
    if isinstance(done, SynthesizeDone):
        made = done.kept + sum(done.dropped.values())
        return f"kept {done.kept:,} of {made:,} trajectories"
    if isinstance(done, EvaluateDone):
        right = [f"{model} {accuracy(figures.accuracy, figures.bounds)}" for model, figures in done.models.items()]
        return "right: " + ", ".join(right)
    if isinstance(done, GRPODone):
        return _outcome_of_rl(log)
    parts = [f"loss {done.loss:.3g}"] if isinstance(done, BaseDone | SFTDone) and done.loss is not None else []
    if isinstance(done, SFTDone) and done.gate_accuracy is not None:
        parts.append(f"{percent(done.gate_accuracy)} of sampled answers right")
    return ", ".join(parts)


def _outcome_of_rl(log: Path) -> str:
    lines = [GRPOLine.model_validate(record) for record in jsonl.read(log)] if log.exists() else []
    if not lines:
        return ""
    first, last = _right(lines[:_LAST]), _right(lines[-_LAST:])
    return f"{first} of rollouts right at first, {last} at the end"


def _right(lines: Sequence[GRPOLine]) -> str:
    shares = [line.accuracy for line in lines if line.accuracy is not None]
    return percent(sum(shares) / len(shares)) if shares else percent(None)
