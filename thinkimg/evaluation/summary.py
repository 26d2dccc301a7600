"""From answers to figures: one row per answer, and what a set of rows says. Rows are read one by one and not kept."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinkimg.evaluation.metrics import bootstrap_interval, wilson_interval
from thinkimg.results import AnswerFigures, AnswerRow, KindFigures, ModelFigures, Score


def row_of(record: Mapping[str, Any]) -> AnswerRow:
    """The row of a trajectory's JSON."""
    turns = record["turns"]
    calls = [block for turn in turns for block in turn["message"]["content"] if block["type"] == "tool_result"]
    meta = record["meta"]
    return AnswerRow(
        id=str(meta.get("task", record["id"])),
        kind=str(meta.get("kind") or "other"),
        answer=record["answer"],
        reference=record["reference"],
        status=record["status"],
        correct=record["correct"] is True,
        scores=dict(record["rewards"]),
        rounds=sum(turn["message"]["role"] == "assistant" for turn in turns),
        tools=dict(Counter(call["name"] for call in calls).most_common()),
        errors=dict(Counter(call["error"] for call in calls if call["error"]).most_common()),
        malformed=int(meta.get("malformed", 0)),
    )


@dataclass
class Summary:
    """Sums over rows. An answer that the infrastructure ended is nobody's: counted in `infrastructure`, not in `n`."""

    infrastructure: int = 0
    right: int = 0
    calls: int = 0
    malformed: int = 0
    rounds: int = 0
    status: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    values: dict[str, array[float]] = field(default_factory=dict)
    kinds: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))

    @property
    def n(self) -> int:
        return sum(len(values) for values in self.kinds.values())

    @property
    def accuracy(self) -> float | None:
        return self.right / self.n if self.n else None

    def add(self, row: AnswerRow) -> None:
        self.status[row.status] += 1
        if row.status == "infrastructure":
            self.infrastructure += 1
            return
        self.right += row.correct
        self.rounds += row.rounds
        self.malformed += row.malformed
        self.tools.update(row.tools)
        self.errors.update(row.errors)
        self.calls += sum(row.tools.values())
        self.kinds[row.kind].append(float(row.correct))
        for name, value in row.scores.items():
            if value is not None:
                self.values.setdefault(name, array("d")).append(value)

    def accuracy_of(self, kind: str) -> float | None:
        values = self.kinds.get(kind)
        return float(np.mean(values)) if values else None

    def figures(self) -> AnswerFigures:
        """The same for the same answers, whenever they were given."""
        return AnswerFigures(
            n=self.n,
            accuracy=self.accuracy,
            ci95=wilson_interval(self.right, self.n),
            scores={name: _mean(values) for name, values in self.values.items()},
            tool_calls_per_answer=self.calls / self.n if self.n else 0.0,
            rounds_per_answer=self.rounds / self.n if self.n else 0.0,
            tools=dict(self.tools.most_common()),
            errors=dict(self.errors.most_common()),
            malformed=self.malformed,
            status=dict(sorted(self.status.items())),
            infrastructure=self.infrastructure,
            by_kind={
                kind: KindFigures(accuracy=self.accuracy_of(kind), n=len(self.kinds[kind]))
                for kind in sorted(self.kinds)
            },
        )


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
        **dict(first.figures()), accuracy_sampled=second.accuracy, n_sampled=second.n, seconds=seconds
    )
    for kind, found in figures.by_kind.items():
        found.accuracy_sampled = second.accuracy_of(kind)
    return figures


def _mean(values: array[float]) -> Score:
    """Shares get Wilson's interval, partial credit a bootstrap."""
    points = np.frombuffer(values)
    if np.isin(points, (0.0, 1.0)).all():
        bounds = wilson_interval(int(points.sum()), len(points))
    else:
        bounds = bootstrap_interval([points.tolist()], resamples=2000)
    return Score(mean=float(points.mean()), ci95=bounds)
