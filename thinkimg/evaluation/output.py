"""The folder of one model on one task:

    settings.json         what was asked of whom; a run with other settings is refused
    trajectories.jsonl    every answer with its conversation, pictures beside it in images/; grows while it runs
    items.jsonl           one line per question, in order: answer, scores, tools, errors
    results.json          the figures
    costs.json            time, tokens, money: what differs from run to run

items.jsonl and results.json are the same however often the evaluation was interrupted. With `--shard` each process
writes trajectories.I-of-N.jsonl, and the last one to finish puts all together.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.evaluate import WHOLE, Shard
from thinkimg.evaluation.summary import Summary, row_of
from thinkimg.jsonfile import read, write
from thinkimg.results import EvaluationCosts, EvaluationResults, EvaluationSettings, EvaluationShard, Percentiles
from thinkimg.trajectory.store import Store, lock

RESULTS, ITEMS, COSTS, SETTINGS = "results.json", "items.jsonl", "costs.json", "settings.json"
TRAJECTORIES = "trajectories.jsonl"


@dataclass(frozen=True)
class Output:
    """The files of one model on one task.

    Attributes:
        settings: all that an answer depends on.
        file: of the trajectories, elsewhere than in the folder.
    """

    folder: Path
    settings: EvaluationSettings
    shard: Shard = WHOLE
    file: Path | None = None

    @property
    def trajectories(self) -> Path:
        return self.file or self.folder / TRAJECTORIES

    def part(self, index: int) -> Path:
        return self.trajectories.with_name(f"{self.trajectories.stem}.{index}-of-{self.shard.count}.jsonl")

    @property
    def store(self) -> Path:
        """Where this process appends."""
        return self.trajectories if self.shard.count == 1 else self.part(self.shard.index)

    def claim(self) -> None:
        """Raises `UserError` if the folder holds an evaluation with other settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        partial = self.folder / f"{SETTINGS}.{os.getpid()}.partial"
        write(partial, self.settings)
        try:
            path.hardlink_to(partial)  # one of several processes is the first
        except FileExistsError:
            self._compare(read(path, EvaluationSettings))
        finally:
            partial.unlink()

    def _compare(self, before: EvaluationSettings) -> None:
        for name, (then, now) in before.differences(self.settings).items():
            raise UserError(
                f"it was begun with {name} = {then!r}, now it is {now!r}; choose another output, or delete this one",
                str(self.folder),
            )

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
                self._merge()
                return self._write_results(None)
        return self._write_results(seconds)

    def _done(self, index: int) -> Path:
        return self.folder / f"shard.{index}-of-{self.shard.count}.json"

    def _merge(self) -> None:
        """Question k is line k // N of part k % N."""
        partial = self.trajectories.with_name(self.trajectories.name + ".partial")
        files = [self.part(index).open("rb") for index in range(self.shard.count)]
        try:
            with partial.open("wb") as out:
                number = 0
                while line := files[number % len(files)].readline():
                    out.write(line)
                    number += 1
        finally:
            for file in files:
                file.close()
        partial.replace(self.trajectories)

    def _write_results(self, seconds: float | None) -> EvaluationResults:
        summary, costs = Summary(), _Costs()

        def items() -> Iterator[dict[str, Any]]:
            for record in jsonl.read(self.trajectories):
                row = row_of(record)
                summary.add(row)
                costs.add(record)
                yield row.model_dump(mode="json")

        jsonl.write(items(), self.folder / ITEMS)
        results = EvaluationResults(task=self.settings.task, model=self.settings.name, **dict(summary.figures()))
        write(self.folder / COSTS, costs.totals(seconds))
        write(self.folder / RESULTS, results)
        return results


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
