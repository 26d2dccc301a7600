"""From answers to figures: one row per answer, and what a set of rows says. Rows are read one by one and not kept."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinkimg.evaluation.intervals import Answer, Interval, bounds_of, mean_over
from thinkimg.evaluation.roles import role_of
from thinkimg.evaluation.samples import Samples, read_as
from thinkimg.evaluation.scorers import JUDGES
from thinkimg.results import AnswerFigures, AnswerRow, KindFigures, ModelFigures, Score
from thinkimg.trajectory import LOST


def row_of(record: Mapping[str, Any]) -> AnswerRow:
    """The row of a trajectory's JSON."""
    turns = record["turns"]
    calls = [block for turn in turns for block in turn["message"]["content"] if block["type"] == "tool_result"]
    meta = record["meta"]
    return AnswerRow(
        id=str(meta.get("task", record["id"])),
        picture=_pictures_of(record),
        sample_of=str(meta.get("sample_of", "")),
        sample_seed=meta.get("sample_seed"),
        read_as=read_as(record["answer"], meta.get("options")) if "sample_of" in meta else None,
        kind=str(meta.get("kind") or "other"),
        answer=record["answer"],
        reference=record["reference"],
        status=record["status"],
        correct=record["correct"] is True,
        scores=dict(record["rewards"]),
        judged_by=str(meta.get("judged_by") or ""),
        rounds=sum(turn["message"]["role"] == "assistant" for turn in turns),
        tools=dict(Counter(call["name"] for call in calls).most_common()),
        errors=dict(Counter(call["error"] for call in calls if call["error"]).most_common()),
        malformed=int(meta.get("malformed", 0)),
    )


def _pictures_of(record: Mapping[str, Any]) -> str:
    """What the question is about: the same for all questions about it, and under a control."""
    asked = next((turn["message"]["content"] for turn in record["turns"] if turn["message"]["role"] == "user"), ())
    shown = [record["images"][block["handle"]]["sha256"] for block in asked if block["type"] == "image"]
    if isinstance(control := record["meta"].get("control"), dict):
        shown = control["pictures"]
    return hashlib.sha256("".join(shown).encode()).hexdigest()[:16] if shown else ""


def answer_of(row: AnswerRow, value: float) -> Answer:
    """Its value, and the picture it is about."""
    return Answer(value, picture_of(row))


def picture_of(row: AnswerRow) -> str:
    """What an answer is about; of one without a picture, the question."""
    return row.picture or f"question {row.sample_of or row.id}"


@dataclass
class Summary:
    """Sums over rows. An answer that the infrastructure ended is nobody's: counted in `infrastructure`, not in `n`, and
    no share is told as if it had not been asked for."""

    infrastructure: int = 0
    calls: int = 0
    malformed: int = 0
    rounds: int = 0
    status: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    answers: list[Answer] = field(default_factory=list)
    """1.0 for a right one."""
    values: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    """By scorer."""
    judges: set[str] = field(default_factory=set)
    kinds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: Counter[str] = field(default_factory=Counter)
    """By kind."""
    samples: Samples = field(default_factory=Samples)

    @property
    def n(self) -> int:
        return len(self.answers)

    @property
    def right(self) -> float:
        return sum(answer.value for answer in self.answers)

    @property
    def accuracy(self) -> float | None:
        return self.right / self.n if self.n and not self.infrastructure else None

    @property
    def bounds(self) -> Interval | None:
        return bounds_of(self.right, self.n, self.infrastructure)

    def add(self, row: AnswerRow) -> None:
        self.status[row.status] += 1
        if row.sample_of:
            self.samples.add(row)
        if row.status in LOST:
            self.infrastructure += 1
            self.lost[row.kind] += 1
            return
        self.answers.append(answer_of(row, float(row.correct)))
        self.rounds += row.rounds
        self.malformed += row.malformed
        self.tools.update(row.tools)
        self.errors.update(row.errors)
        self.calls += sum(row.tools.values())
        self.kinds[row.kind].append(float(row.correct))
        self.judges |= {row.judged_by} - {""}
        for name, value in row.scores.items():
            if value is not None:
                self.values[name].append(answer_of(row, value))

    def accuracy_of(self, kind: str) -> float | None:
        values = self.kinds.get(kind)
        return sum(values) / len(values) if values and not self.lost[kind] else None

    def figures(self, task: str = "") -> AnswerFigures:
        """The same for the same answers, whenever they were given.

        Args:
            task: a benchmark's name, which says what kind its scorers are.
        """
        return AnswerFigures(
            n=self.n,
            accuracy=self.accuracy,
            bounds=self.bounds,
            ci95=None if self.infrastructure else mean_over([self.answers]).ci95 if self.n else (0.0, 1.0),
            scores={name: self._score(name, values, task) for name, values in self.values.items()},
            tool_calls_per_answer=self.calls / self.n if self.n else 0.0,
            rounds_per_answer=self.rounds / self.n if self.n else 0.0,
            tools=dict(self.tools.most_common()),
            errors=dict(self.errors.most_common()),
            malformed=self.malformed,
            status=dict(sorted(self.status.items())),
            infrastructure=self.infrastructure,
            samples=self.samples.figures(),
            refused=self.status["refused"],
            context_full=self.status["tokens"],
            by_kind={
                kind: KindFigures(
                    accuracy=self.accuracy_of(kind),
                    n=len(self.kinds[kind]),
                    bounds=bounds_of(sum(self.kinds[kind]), len(self.kinds[kind]), self.lost[kind]),
                )
                for kind in sorted({*self.kinds, *self.lost})
            },
        )

    def _score(self, name: str, values: Sequence[Answer], task: str) -> Score:
        said = Score(
            role=role_of(name, task, self.judges),
            judged_by=", ".join(sorted(self.judges)) if name in JUDGES else "",
            mean=None,
        )
        if lost := self.infrastructure:
            said.bounds = bounds_of(sum(answer.value for answer in values), len(values), lost)
            return said
        found = mean_over([values], resamples=2000)
        return said.model_copy(update={"mean": found.mean, "ci95": found.ci95})


def summary_of(rows: Iterable[AnswerRow]) -> Summary:
    summary = Summary()
    for row in rows:
        summary.add(row)
    return summary


def summarise(
    greedy: Iterable[AnswerRow], sampled: Iterable[AnswerRow] = (), seconds: float | None = None
) -> ModelFigures:
    """One model in a run's table.

    Args:
        greedy, sampled: rows of scored answers. Without sampled ones, `accuracy_sampled` is None.
        seconds: wall time of the evaluation.
    """
    first, second = summary_of(greedy), summary_of(sampled)
    figures = ModelFigures(
        **{**dict(first.figures()), "samples": second.samples.figures()},
        accuracy_sampled=second.accuracy,
        n_sampled=second.n,
        infrastructure_sampled=second.infrastructure,
        refused_sampled=second.status["refused"],
        context_full_sampled=second.status["tokens"],
        bounds_sampled=second.bounds,
        seconds=seconds,
    )
    for kind, found in figures.by_kind.items():
        found.accuracy_sampled = second.accuracy_of(kind)
    return figures
