"""Rules between the fields of a ToolRLJob. One function each; the CRD says the same in CEL, so both refuse alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .resource import Violation, suggestion
from .stages import BASE, TRAINED_TYPES, Stage
from .uris import scheme_of

if TYPE_CHECKING:
    from .toolrljob import ToolRLJobSpec


def violations_of_job(spec: ToolRLJobSpec) -> Iterator[Violation]:
    """Every broken rule of the job, placed relative to `spec`."""
    yield from _repeated(("stages",), "name", [stage.name for stage in spec.stages])
    yield from _repeated(("tools",), "name", [tool.name for tool in spec.tools])
    yield from _repeated(("env",), "name", [variable.name for variable in spec.env])
    yield from _repeated(("seeds",), None, spec.seeds)
    for index, stage in enumerate(spec.stages):
        here: tuple[str | int, ...] = ("stages", index)
        yield from _start(spec, stage, index, (*here, "from"))
        yield from _length(spec, stage, index, (*here, "sft", "maxSeconds", "fromStage"))
        yield from _trajectories(spec, stage, index, (*here, "sft", "dataFrom"))
        yield from _rows(spec, stage, index, (*here, "evaluate", "models"))
        yield from _split(spec, stage, (*here, "evaluate", "split"))
        if stage.uses_tools and not spec.tools:
            message = f'stage "{stage.name}" calls tools, but there are none'
            yield Violation(("tools",), message, "Name VisionTools in spec.tools, or set toolUse: Disabled.")
    yield from _failure_rules(spec)


def _repeated(loc: tuple[str | int, ...], field: str | None, values: Sequence[str | int]) -> Iterator[Violation]:
    for index, value in enumerate(values):
        if value in values[:index]:
            place: tuple[str | int, ...] = (*loc, index, field) if field else (*loc, index)
            shown = f'"{value}"' if isinstance(value, str) else str(value)
            yield Violation(place, f"{shown} is there twice", "Names are unique: rename or remove one.")


def _unknown_stage(
    spec: ToolRLJobSpec, name: str, index: int, allowed: list[str], wanted: str, loc: tuple[str | int, ...]
) -> Iterator[Violation]:
    """Why `name` is not one of the `allowed` stages before stage `index`; nothing when it is."""
    if name in allowed:
        return
    position = next((i for i, stage in enumerate(spec.stages) if stage.name == name), None)
    may_be = f"Name {wanted}: {', '.join(allowed)}." if allowed else f"There is no {wanted.removeprefix('an ')} yet."
    if position is None:
        yield Violation(loc, f'there is no stage "{name}"', suggestion(name, allowed) if allowed else may_be)
    elif position > index:
        yield Violation(loc, f'"{name}" is a later stage', may_be)
    elif position == index:
        yield Violation(loc, f'"{name}" is this stage itself', may_be)
    else:
        yield Violation(loc, f'"{name}" is of type {spec.stages[position].type}', may_be)


def _models_before(spec: ToolRLJobSpec, index: int) -> list[str]:
    return [BASE, *(stage.name for stage in spec.stages[:index] if stage.type in TRAINED_TYPES)]


def _start(spec: ToolRLJobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    allowed = _models_before(spec, index)
    yield from _unknown_stage(spec, stage.from_, index, allowed, "an earlier stage of type SFT or GRPO, or base", loc)


def _length(spec: ToolRLJobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.sft and stage.sft.max_seconds:
        allowed = [earlier.name for earlier in spec.stages[:index]]
        yield from _unknown_stage(spec, stage.sft.max_seconds.from_stage, index, allowed, "an earlier stage", loc)


def _trajectories(spec: ToolRLJobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.sft is None:
        return
    allowed = [earlier.name for earlier in spec.stages[:index] if earlier.type == "Synthesize"]
    if stage.sft.data_from is not None:
        wanted = "an earlier stage of type Synthesize"
        yield from _unknown_stage(spec, stage.sft.data_from, index, allowed, wanted, loc)
    elif not allowed and scheme_of(spec.data.train.uri) == "charts":
        message = "charts:// has questions but no trajectories to learn from"
        yield Violation(loc[:-1], message, "Put a stage of type Synthesize before this one.")


def _rows(spec: ToolRLJobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.evaluate is None:
        return
    allowed = _models_before(spec, index)
    for row, name in enumerate(stage.evaluate.models):
        wanted = "an earlier stage of type SFT or GRPO, or base"
        yield from _unknown_stage(spec, name, index, allowed, wanted, (*loc, row))
        if name in stage.evaluate.models[:row]:
            yield Violation((*loc, row), f'"{name}" is there twice', "Keep one of them.")


def _split(spec: ToolRLJobSpec, stage: Stage, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.evaluate and getattr(spec.data, stage.evaluate.split) is None:
        split = stage.evaluate.split
        yield Violation(loc, f"there is no data.{split}", f"Add spec.data.{split}, or evaluate another split.")


def _failure_rules(spec: ToolRLJobSpec) -> Iterator[Violation]:
    known = [stage.name for stage in spec.stages]
    for i, rule in enumerate(spec.failure_policy.rules):
        for j, name in enumerate(rule.stages):
            if name not in known:
                loc = ("failurePolicy", "rules", i, "stages", j)
                yield Violation(loc, f'there is no stage "{name}"', suggestion(name, known))
