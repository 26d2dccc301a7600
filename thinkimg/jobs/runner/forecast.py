"""How long a run will take. What a stage does is counted in units; what a unit costs is learnt from the stages of this
run that are finished, and for the demo's model, before any is, from a run on two quiet cores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from thinkimg.api import BASE, Stage, ToolRLJob, scheme_of
from thinkimg.data.chart_rows import chart_options
from thinkimg.figures import duration
from thinkimg.models.trained import trained_with_tools
from thinkimg.results import AnyDone, GRPODone, SFTDone

Unit = Literal[
    "base", "trajectory", "text example", "tool example", "text rollout", "tool rollout", "text answer", "tool answer"
]


class Cost(NamedTuple):
    """Of one unit of the demo's model: seconds on two quiet cores, and tokens that are generated and trained on."""

    seconds: float
    tokens: float = 0.0


COSTS: Mapping[Unit, Cost] = {
    "base": Cost(310.0),
    "trajectory": Cost(0.055),
    "text example": Cost(0.0085, 35),
    "tool example": Cost(0.015, 73),
    "text rollout": Cost(0.018, 43),
    "tool rollout": Cost(0.035, 53),
    "text answer": Cost(0.02),
    "tool answer": Cost(0.06),
}
"""Measured by `make demo`. For another model they are wrong by one factor for each type of stage, which its first
finished stage of the type tells."""
_EARLIEST = 0.05
"""Share of a stage from which on its own speed says how long it takes."""


@dataclass(frozen=True)
class Left:
    """What is left of a run.

    Attributes:
        seconds: of the stages that can be told.
        unknown: stages that cannot: none of their type is finished, and their model is not the demo's.
    """

    seconds: float
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.unknown:
            return f"about {rounded(self.seconds)} left"
        names = self.unknown[0] if len(self.unknown) == 1 else f"{self.unknown[0]} and {len(self.unknown) - 1} more"
        known = f"about {rounded(self.seconds)} left, and " if self.seconds else ""
        return f"{known}{names} cannot be foretold yet"


@dataclass
class Forecast:
    """Of one run of a job.

    Attributes:
        took: seconds of each finished stage that was seen from its beginning to its end.
        tokens: that each finished training processed.
    """

    job: ToolRLJob
    took: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)

    @property
    def is_demo_model(self) -> bool:
        return scheme_of(self.job.spec.model.uri) == "preset"

    def finished(self, name: str, done: AnyDone, seconds: float | None) -> None:
        """A stage has ended; `seconds` is None where it was not seen whole."""
        if seconds is not None:
            self.took[name] = seconds
        if isinstance(done, SFTDone | GRPODone) and done.tokens is not None:
            self.tokens[name] = done.tokens.total

    def seconds(self, name: str) -> float | None:
        """How long the stage takes from its beginning; None if nothing tells."""
        if name in self.took:
            return self.took[name]
        as_long_as = self._as_long_as(name)
        if as_long_as is not None:
            return self.seconds(as_long_as)
        expected, pace = self._expected(name), self._pace(name)
        return None if expected is None or pace is None else expected * pace

    def left(self, to_do: list[str], elapsed: float = 0.0, share: float | None = None) -> Left:
        """Of these stages, the first of which runs for `elapsed` seconds and has done so large a `share` of its steps
        (None: it has not said)."""
        if not to_do:
            return Left(0.0)
        running, *to_come = to_do
        told = {name: self.seconds(name) for name in to_come}
        told = {running: self._left_of(running, elapsed, share), **told}
        unknown = tuple(name for name, seconds in told.items() if seconds is None)
        return Left(sum(seconds or 0.0 for seconds in told.values()), unknown)

    def _left_of(self, name: str, elapsed: float, share: float | None) -> float | None:
        done = self._share_of_time(name, share or 0.0)
        if done >= _EARLIEST:
            return elapsed * (1 - done) / done
        whole = self.seconds(name)
        return None if whole is None else max(whole - elapsed, 0.1 * whole)

    def _pace(self, name: str) -> float | None:
        """Seconds here for one second there: of the finished stages of this type, else of all of the demo's model."""
        expected = {one: self._expected(one) for one in self.took}
        known = {one: seconds for one, seconds in expected.items() if seconds}
        alike = [one for one in known if _type_of(self.job, one) == _type_of(self.job, name)]
        if not alike and not self.is_demo_model:
            return None
        if chosen := alike or list(known):
            return sum(self.took[one] for one in chosen) / sum(known[one] for one in chosen)
        return 1.0

    def _as_long_as(self, name: str) -> str | None:
        sft = None if name == BASE else self.job.spec.stage(name).sft
        return sft.max_seconds.from_stage if sft and sft.max_seconds else None

    def _share_of_time(self, name: str, share: float) -> float:
        """What of a stage's time is over when so large a share of its steps is done. The answers of an evaluation do
        not cost the same, and after the steps of a training a gate may follow."""
        works = [(amount, COSTS[unit].seconds) for unit, amount in self._works(name) if amount]
        counted = works if _type_of(self.job, name) == "Evaluate" else works[:1]
        whole, left, over = sum(amount * cost for amount, cost in works), share * sum(n for n, _ in counted), 0.0
        for amount, cost in counted:
            over += min(left, amount) * cost
            left -= min(left, amount)
        return over / whole if whole else share

    # ---- what a stage does: units, and how many of each

    def _expected(self, name: str) -> float | None:
        """Seconds at the pace of `COSTS`; None if what the stage does cannot be counted."""
        works = list(self._works(name))
        if any(amount is None for _, amount in works):
            return None
        return sum((amount or 0.0) * COSTS[unit].seconds for unit, amount in works)

    def _works(self, name: str) -> Iterator[tuple[Unit, float | None]]:
        """What the stage does: units and how many of each, its steps first."""
        if name == BASE:
            yield "base", 1.0 if self.is_demo_model else 0.0
            return
        stage = self.job.spec.stage(name)
        if stage.synthesize:
            yield "trajectory", None if stage.synthesize.planner.model else stage.synthesize.trajectories
        elif stage.sft:
            yield _unit(stage.sft.tool_use == "Enabled", "example"), self._examples(stage)
            if stage.sft.gate:
                yield _unit(stage.sft.tool_use == "Enabled", "answer"), stage.sft.gate.questions
        elif stage.grpo:
            yield _unit(stage.grpo.tool_use == "Enabled", "rollout"), _rollouts(stage)
        elif stage.evaluate:
            yield from self._answers(stage)

    def _examples(self, stage: Stage) -> float | None:
        sft = stage.sft
        assert sft is not None
        if sft.max_steps:
            return sft.max_steps * sft.batch_size
        if sft.max_tokens:
            tokens = self._tokens(sft.max_tokens.from_stage)
            return None if tokens is None else tokens / COSTS[_unit(sft.tool_use == "Enabled", "example")].tokens
        source = self.job.spec.data_stage(stage)
        if source is None or source.synthesize is None:
            return None
        return (sft.epochs or 1.0) * source.synthesize.trajectories

    def _tokens(self, name: str) -> float | None:
        """That a training processes, before its end at the demo's length of examples and rollouts."""
        if name in self.tokens:
            return self.tokens[name]
        unit, amount = next(iter(self._works(name)))
        return None if amount is None else amount * COSTS[unit].tokens

    def _answers(self, stage: Stage) -> Iterator[tuple[Unit, float | None]]:
        settings, count = stage.evaluate, questions_of(self.job, stage)
        assert settings is not None
        times = settings.answers_per_question
        for model in settings.models:
            yield _unit(trained_with_tools(self.job, model), "answer"), None if count is None else count * times


def rounded(seconds: float) -> str:
    """As exact as a forecast can be: `20 s`, `4 min`, `2 h 10 min`."""
    if seconds < 60:
        return f"{max(10, 10 * round(seconds / 10))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return duration(600 * round(seconds / 600)).removesuffix(" 00 min")


def _type_of(job: ToolRLJob, name: str) -> str:
    return BASE if name == BASE else job.spec.stage(name).type


def _unit(tools: bool, what: str) -> Unit:
    unit: Unit = f"{'tool' if tools else 'text'} {what}"  # type: ignore[assignment]  # the six of them are units
    return unit


def _rollouts(stage: Stage) -> float:
    assert stage.grpo is not None
    return stage.grpo.max_steps * stage.grpo.prompts_per_step * stage.grpo.num_generations


def questions_of(job: ToolRLJob, stage: Stage) -> int | None:
    """Of an Evaluate stage; None where only reading the data would tell."""
    assert stage.evaluate is not None
    source = getattr(job.spec.data, stage.evaluate.split)
    held = chart_options(source.uri)["questions"] if source and scheme_of(source.uri) == "charts" else None
    wanted = [count for count in (held, stage.evaluate.questions) if count is not None]
    return min(wanted, default=None)
