"""The folder of one model on one task:

    settings.json         what was asked of whom; a run with other settings is refused
    trajectories.jsonl    every answer with its conversation, pictures beside it in images/; grows while it runs
    items.jsonl           one line per question, in order: answer, scores, tools, errors
    results.json          the figures
    costs.json            time, tokens, money: what differs from run to run

items.jsonl and results.json are the same however often the evaluation was interrupted. With `--shard` each process
writes trajectories.I-of-N.jsonl, and the last one to finish puts all together.
"""

import json
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
from thinkimg.trajectory.store import Store, lock

RESULTS, ITEMS, COSTS, SETTINGS = "results.json", "items.jsonl", "costs.json", "settings.json"


@dataclass(frozen=True)
class Output:
    """Attributes:
    settings: all that an answer depends on, as JSON; `shards` among them.
    file: of the trajectories, elsewhere than in the folder.
    """

    folder: Path
    settings: dict[str, Any]
    shard: Shard = WHOLE
    file: Path | None = None

    @property
    def trajectories(self) -> Path:
        return self.file or self.folder / "trajectories.jsonl"

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
        partial.write_text(json.dumps(self.settings, indent=1) + "\n", encoding="utf-8")
        try:
            path.hardlink_to(partial)  # one of several processes is the first
        except FileExistsError:
            self._compare(json.loads(path.read_text(encoding="utf-8")))
        finally:
            partial.unlink()

    def _compare(self, before: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.settings))
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise UserError(
                    f"it was begun with {name} = {before.get(name)!r}, now it is {now.get(name)!r}; "
                    "choose another output, or delete this one",
                    str(self.folder),
                )

    def finish(self, store: Store, names: Sequence[str], seconds: float) -> dict[str, Any] | None:
        """Put this process' answers in order; write the results, or None while other shards are missing.

        Args:
            names: of this process' questions, in order.
            seconds: wall time of this process.
        """
        store.put_in_order(names)
        if self.shard.count > 1:
            _write_json(self._done(self.shard.index), {"questions": len(names), "seconds": seconds})
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

    def _write_results(self, seconds: float | None) -> dict[str, Any]:
        summary, costs = Summary(), _Costs()

        def items() -> Iterator[dict[str, Any]]:
            for record in jsonl.read(self.trajectories):
                row = row_of(record)
                summary.add(row)
                costs.add(record)
                yield row.as_document()

        jsonl.write(items(), self.folder / ITEMS)
        results = {"task": self.settings["task"], "model": self.settings["name"], **summary.document()}
        _write_json(self.folder / COSTS, costs.document(seconds))
        _write_json(self.folder / RESULTS, results)
        return results


class _Costs:
    """Time, tokens and money of all answers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tool_seconds: dict[str, list[float]] = {}
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0}

    def add(self, record: dict[str, Any]) -> None:
        self.seconds.append(record["seconds"])
        for name, value in (record["meta"].get("usage") or {}).items():
            self.usage[name] += value
        for turn in record["turns"]:
            for block in turn["message"]["content"]:
                if block["type"] == "tool_result" and not block["cached"]:
                    self.tool_seconds.setdefault(block["name"], []).append(block["seconds"])

    def document(self, seconds: float | None) -> dict[str, Any]:
        """Wall time of the last run, if it is known; latency of a question; and of a tool's calls that were sent."""
        return {
            "wall_seconds": seconds,
            "seconds_per_answer": _percentiles(self.seconds),
            "tool_seconds": {name: _percentiles(values) for name, values in sorted(self.tool_seconds.items())},
            **self.usage,
        }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return {"mean": float(np.mean(values)), "p50": float(p50), "p95": float(p95)}


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
