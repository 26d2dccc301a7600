"""Rules between the fields of a ToolRLJob. One function each; the CRD says the same in CEL, so both refuse alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .controls import NO_TOOLS
from .data import Data
from .failurepolicy import FailurePolicy
from .pods import EnvVar
from .resource import Rule, Violation, suggestion
from .stages import BASE, TRAINED_TYPES, Stage
from .uris import scheme_of

_TRAINED = f"t.type in {list(TRAINED_TYPES)}"
_SYNTHESIZE = "t.type == 'Synthesize'"
_WITHOUT_TOOLS = f"{NO_TOOLS.remedy[:-1]}, or evaluate it in a stage of its own."
_MODELS = f"Name an earlier stage of type SFT or GRPO, or {BASE}."


def _each(condition: str) -> str:
    """True when `condition` holds for every stage `s` at position `i`."""
    return f"self.stages.all(i, s, {condition})"


def _earlier(name: str, kind: str = "true") -> str:
    """True when a stage before position `i` is called `name` and `kind` holds for it, as `t`."""
    return f"self.stages.exists(j, t, j < i && t.name == {name} && {kind})"


JOB_RULES = (
    Rule(
        _each(f"s.from == '{BASE}' || {_earlier('s.from', _TRAINED)}"),
        f"stages[].from names no earlier stage that trains a model. {_MODELS}",
    ),
    Rule(
        _each(f"!has(s.sft) || !has(s.sft.maxSeconds) || {_earlier('s.sft.maxSeconds.fromStage')}"),
        "sft.maxSeconds.fromStage names no earlier stage. Name one whose time this stage shall take.",
    ),
    Rule(
        _each(f"!has(s.sft) || !has(s.sft.maxTokens) || {_earlier('s.sft.maxTokens.fromStage', _TRAINED)}"),
        "sft.maxTokens.fromStage names no earlier stage of type SFT or GRPO. Name one, for its tokens.",
    ),
    Rule(
        _each(f"!has(s.sft) || !has(s.sft.dataFrom) || {_earlier('s.sft.dataFrom', _SYNTHESIZE)}"),
        "sft.dataFrom names no earlier stage of type Synthesize. Name one, or remove it.",
    ),
    Rule(
        "has(self.data.trajectories) || !self.data.train.uri.startsWith('charts://') || "
        + _each("!has(s.sft) || has(s.sft.dataFrom) || self.stages.exists(j, t, j < i && t.type == 'Synthesize')"),
        "an SFT stage has no trajectories to learn from: charts:// has questions only. Put a stage of type Synthesize "
        "before it, or name a file in data.trajectories.",
    ),
    Rule(
        _each(f"!has(s.evaluate) || s.evaluate.models.all(m, m == '{BASE}' || {_earlier('m', _TRAINED)})"),
        f"evaluate.models names something that is no earlier stage with a model. {_MODELS}",
    ),
    Rule(
        "self.stages.all(s, !has(s.evaluate) || !has(s.evaluate.control) || s.evaluate.controlScope != 'tools' || "
        f"s.evaluate.models.all(m, m == '{BASE}' ? has(self.tools) && self.tools.size() > 0 : "
        "!self.stages.exists(t, t.name == m && ((has(t.sft) && t.sft.toolUse == 'Disabled') || "
        "(has(t.grpo) && t.grpo.toolUse == 'Disabled')))))",
        f"evaluate.controlScope is tools, and one of evaluate.models was trained without. {_WITHOUT_TOOLS}",
    ),
    Rule(
        "self.stages.all(s, !has(s.evaluate) || s.evaluate.split == 'train' || (s.evaluate.split == 'test' ? "
        "has(self.data.test) : has(self.data.validation)))",
        "a stage evaluates a split that spec.data does not have. Add spec.data.test or spec.data.validation, or "
        "evaluate another split.",
    ),
    Rule(
        "(has(self.tools) && self.tools.size() > 0) || !self.stages.exists(s, "
        "(has(s.synthesize) && s.synthesize.toolUse == 'Enabled') || (has(s.grpo) && s.grpo.toolUse == 'Enabled'))",
        "a stage calls tools, but there are none. Name VisionTools in spec.tools, or set toolUse: Disabled.",
    ),
    Rule(
        "!has(self.failurePolicy.rules) || self.failurePolicy.rules.all(r, !has(r.stages) || "
        "r.stages.all(name, self.stages.exists(s, s.name == name)))",
        "failurePolicy.rules[].stages names a stage that does not exist. Correct the name.",
    ),
)


class Named(Protocol):
    """Something with a name that is to be unique."""

    name: str


class JobSpec(Protocol):
    """The fields of a ToolRLJob's spec that rules speak of."""

    stages: list[Stage]
    env: list[EnvVar]
    seeds: list[int]
    data: Data
    failure_policy: FailurePolicy

    @property
    def tools(self) -> Sequence[Named]: ...


def violations_of_job(spec: JobSpec) -> Iterator[Violation]:
    """Every broken rule of the job, placed relative to `spec`."""
    yield from _repeated(("stages",), "name", [stage.name for stage in spec.stages])
    yield from _repeated(("tools",), "name", [tool.name for tool in spec.tools])
    yield from _repeated(("env",), "name", [variable.name for variable in spec.env])
    yield from _repeated(("seeds",), None, spec.seeds)
    for index, stage in enumerate(spec.stages):
        here: tuple[str | int, ...] = ("stages", index)
        yield from _start(spec, stage, index, (*here, "from"))
        yield from _length(spec, stage, index, (*here, "sft"))
        yield from _trajectories(spec, stage, index, (*here, "sft", "dataFrom"))
        yield from _rows(spec, stage, index, (*here, "evaluate", "models"))
        yield from _split(spec, stage, (*here, "evaluate", "split"))
        yield from _changed_pictures(spec, stage, (*here, "evaluate", "controlScope"))
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
    spec: JobSpec, name: str, index: int, allowed: list[str], wanted: str, loc: tuple[str | int, ...]
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


def _models_before(spec: JobSpec, index: int) -> list[str]:
    return [BASE, *(stage.name for stage in spec.stages[:index] if stage.type in TRAINED_TYPES)]


def _start(spec: JobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    allowed = _models_before(spec, index)
    yield from _unknown_stage(spec, stage.from_, index, allowed, "an earlier stage of type SFT or GRPO, or base", loc)


def _length(spec: JobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.sft and stage.sft.max_seconds:
        allowed = [earlier.name for earlier in spec.stages[:index]]
        place = (*loc, "maxSeconds", "fromStage")
        yield from _unknown_stage(spec, stage.sft.max_seconds.from_stage, index, allowed, "an earlier stage", place)
    if stage.sft and stage.sft.max_tokens:
        allowed = [earlier.name for earlier in spec.stages[:index] if earlier.type in TRAINED_TYPES]
        wanted, place = "an earlier stage of type SFT or GRPO", (*loc, "maxTokens", "fromStage")
        yield from _unknown_stage(spec, stage.sft.max_tokens.from_stage, index, allowed, wanted, place)


def _trajectories(spec: JobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.sft is None:
        return
    allowed = [earlier.name for earlier in spec.stages[:index] if earlier.type == "Synthesize"]
    if stage.sft.data_from is not None:
        wanted = "an earlier stage of type Synthesize"
        yield from _unknown_stage(spec, stage.sft.data_from, index, allowed, wanted, loc)
    elif not allowed and spec.data.trajectories is None and scheme_of(spec.data.train.uri) == "charts":
        message = "charts:// has questions but no trajectories to learn from"
        yield Violation(loc[:-1], message, "Put a stage of type Synthesize before this one.")


def _rows(spec: JobSpec, stage: Stage, index: int, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.evaluate is None:
        return
    allowed = _models_before(spec, index)
    for row, name in enumerate(stage.evaluate.models):
        wanted = "an earlier stage of type SFT or GRPO, or base"
        yield from _unknown_stage(spec, name, index, allowed, wanted, (*loc, row))
        if name in stage.evaluate.models[:row]:
            yield Violation((*loc, row), f'"{name}" is there twice', "Keep one of them.")


def _split(spec: JobSpec, stage: Stage, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    if stage.evaluate and getattr(spec.data, stage.evaluate.split) is None:
        split = stage.evaluate.split
        yield Violation(loc, f"there is no data.{split}", f"Add spec.data.{split}, or evaluate another split.")


def _changed_pictures(spec: JobSpec, stage: Stage, loc: tuple[str | int, ...]) -> Iterator[Violation]:
    control = stage.evaluate.changed_pictures if stage.evaluate else None
    if stage.evaluate is None or control is None or control.refused(tools=False) is None:
        return
    without = [other.name for other in spec.stages if (other.sft or other.grpo) and not other.trains_with_tools]
    without += [] if spec.tools else [BASE]
    if names := [name for name in stage.evaluate.models if name in without]:
        yield Violation(loc, f"{', '.join(names)}: {NO_TOOLS.message}", _WITHOUT_TOOLS)


def _failure_rules(spec: JobSpec) -> Iterator[Violation]:
    known = [stage.name for stage in spec.stages]
    for i, rule in enumerate(spec.failure_policy.rules):
        for j, name in enumerate(rule.stages):
            if name not in known:
                loc = ("failurePolicy", "rules", i, "stages", j)
                yield Violation(loc, f'there is no stage "{name}"', suggestion(name, known))
