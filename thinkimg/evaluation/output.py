"""The folder of one model on one task:

    settings.json         what was asked of whom; a run with other settings is refused
    trajectories.jsonl    every answer with its conversation, pictures beside it in images/; grows while it runs
    items.jsonl           one line per question, in order: answer, scores, tools, errors
    results.json          the figures
    costs.json            time, tokens, money: what differs from run to run
    control-KIND-SCOPE/   the same files of the same questions with changed pictures

items.jsonl and results.json are the same however often the evaluation was interrupted. With `--shard` each process
writes trajectories.I-of-N.jsonl, and the last one to finish puts all together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkimg import jsonl
from thinkimg.api import Control
from thinkimg.evaluation.claim import check_rest, claim
from thinkimg.evaluation.compare import right_of
from thinkimg.evaluation.evaluate import WHOLE, Shard
from thinkimg.evaluation.lmms import LmmsTask
from thinkimg.evaluation.owed import control_figures
from thinkimg.evaluation.summary import Summary, row_of
from thinkimg.jsonfile import read, write
from thinkimg.results import (
    AnswerRow,
    EvaluationCosts,
    EvaluationResults,
    EvaluationSettings,
    EvaluationShard,
    Percentiles,
)
from thinkimg.trajectory.store import Store, lock, merge_parts, part_of

RESULTS, ITEMS, COSTS = "results.json", "items.jsonl", "costs.json"
TRAJECTORIES = "trajectories.jsonl"


@dataclass(frozen=True)
class Output:
    """The files of one model on one task.

    Attributes:
        settings: all that an answer depends on.
        file: of the trajectories, elsewhere than in the folder.
        adopts: answers that others gave may be there, whose settings nobody knows.
    """

    folder: Path
    settings: EvaluationSettings
    shard: Shard = WHOLE
    file: Path | None = None
    adopts: bool = False

    @property
    def trajectories(self) -> Path:
        return self.file or self.folder / TRAJECTORIES

    def part(self, index: int) -> Path:
        return part_of(self.trajectories, index, self.shard.count)

    @property
    def store(self) -> Path:
        """Where this process appends."""
        return self.trajectories if self.shard.count == 1 else self.part(self.shard.index)

    def under(self, control: Control) -> "Output":
        """Of the same questions with changed pictures: a folder of its own in this one."""
        settings = self.settings.model_copy(update={"control": control.kind, "control_scope": control.scope})
        return Output(self.folder / control.name, settings, self.shard)

    def add_controls(self) -> EvaluationResults | None:
        """Put what finished controls say into the results; None while there are none, or answers of other shards are
        missing."""
        if not (self.folder / RESULTS).exists() or not any(self.folder.glob("control-*")):
            return None
        with lock(self.folder / "merge.lock", wait=True):
            results = read(self.folder / RESULTS, EvaluationResults)
            true = right_of(_rows(self.folder / ITEMS))
            results.controls = [
                control_figures(control, [true], [right_of(_rows(folder / ITEMS))])
                for folder in sorted(self.folder.glob("control-*"))
                if (folder / RESULTS).exists() and (control := Control.of(folder.name)) is not None
            ]
            write(self.folder / RESULTS, results)
            return results

    def claim(self) -> list[str]:
        """See `thinkimg.evaluation.claim.claim`."""
        return claim(self.folder, self.settings, None if self.adopts else self.store)

    def check_rest(self, store: Store, names: Sequence[str], unknown: Sequence[str]) -> None:
        """See `thinkimg.evaluation.claim.check_rest`. `names` are those of this process' questions."""
        rest = sum(not store.finished(name) for name in names)
        shared = self.shard.count > 1 or len(store) > 0
        check_rest(self.folder, self.settings, rest, len(names), unknown, shared)

    def finish(self, store: Store, names: Sequence[str], seconds: float) -> EvaluationResults | None:
        """Put this process' answers in order; write the results, or None while other shards are missing.

        Args:
            names: of this process' questions, in order.
            seconds: wall time of this process.
        """
        store.put_in_order(names)
        if self.shard.count > 1:
            write(self._done(self.shard.index), EvaluationShard(questions=len(names), seconds=seconds))
            with lock(self.folder / "merge.lock", wait=True):
                if not all(self._done(index).exists() for index in range(self.shard.count)):
                    return None
                merge_parts([self.part(index) for index in range(self.shard.count)], self.trajectories)
                return self._write_results(None)
        return self._write_results(seconds)

    def add_harness(self, task: LmmsTask) -> EvaluationResults:
        """The results, with what lmms-eval makes of all answers."""
        answers = {row["id"]: row["answer"] for row in jsonl.read(self.folder / ITEMS)}
        results = read(self.folder / RESULTS, EvaluationResults)
        results = results.model_copy(update={"lmms_eval": task.aggregate(answers)})
        write(self.folder / RESULTS, results)
        return results

    def _done(self, index: int) -> Path:
        return self.folder / f"shard.{index}-of-{self.shard.count}.json"

    def _write_results(self, seconds: float | None) -> EvaluationResults:
        summary, costs = Summary(), _Costs()

        def items() -> Iterator[dict[str, Any]]:
            for record in jsonl.read(self.trajectories):
                row = row_of(record)
                summary.add(row)
                costs.add(record)
                yield row.model_dump(mode="json")

        jsonl.write(items(), self.folder / ITEMS)
        task = self.settings.task
        results = EvaluationResults(task=task, model=self.settings.name, **dict(summary.figures(task)))
        write(self.folder / COSTS, costs.totals(seconds))
        write(self.folder / RESULTS, results)
        return results


def _rows(path: Path) -> Iterator[AnswerRow]:
    return (AnswerRow.model_validate(row) for row in jsonl.read(path))


class _Costs:
    """Time, tokens and money of all answers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tool_seconds: dict[str, list[float]] = {}
        self.usage = {"prompt_tokens": 0.0, "completion_tokens": 0.0, "cost": 0.0}

    def add(self, record: dict[str, Any]) -> None:
        self.seconds.append(record["seconds"])
        for name, value in (record["meta"].get("usage") or {}).items():
            self.usage[name] += value
        for turn in record["turns"]:
            for block in turn["message"]["content"]:
                if block["type"] == "tool_result" and not block["cached"]:
                    self.tool_seconds.setdefault(block["name"], []).append(block["seconds"])

    def totals(self, seconds: float | None) -> EvaluationCosts:
        """`seconds` is the wall time of the last run, if it is known."""
        return EvaluationCosts(
            wall_seconds=seconds,
            seconds_per_answer=_percentiles(self.seconds),
            tool_seconds={name: _percentiles(values) for name, values in sorted(self.tool_seconds.items())},
            prompt_tokens=int(self.usage["prompt_tokens"]),
            completion_tokens=int(self.usage["completion_tokens"]),
            cost=self.usage["cost"],
        )


def _percentiles(values: Sequence[float]) -> Percentiles | None:
    if not values:
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return Percentiles(mean=float(np.mean(values)), p50=float(p50), p95=float(p95))
