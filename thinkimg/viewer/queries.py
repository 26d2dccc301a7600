"""Answers from the index, as plain data for the page: lists, what there is to filter by, pairs of models, curves."""

import math
import sqlite3
import threading
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thinkimg import jsonl
from thinkimg.cache import BoundedCache
from thinkimg.training_log import read_log
from thinkimg.viewer.index import Index
from thinkimg.viewer.selection import Selection

_LIST_BYTES = 256 * 1024 * 1024  # of lists that are kept
_LIST_OVERHEAD = 1024  # bytes that one takes beside its numbers, roughly
_MOST_POINTS = 400  # of a curve: more than a chart has pixels for
_MOST_RELATED = 200
_FROM = "trajectories t JOIN sources s ON s.id = t.source"
_COLUMNS = (
    "t.id, t.key, s.run, s.stage, s.model, s.mode, t.step, t.kind, t.question, t.answer, t.reference, t.status, "
    "t.correct, t.reward, t.rounds, t.calls, t.tools, t.failed, t.tokens, t.seconds, t.subject"
)
_NOT_CURVES = {"step", "seconds", "seconds_rollout", "collapse", "masked_by", "epoch"}


class Queries:
    """Of one index. Safe to use from several threads."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._lock = threading.Lock()
        self._version = -1
        self._lists: BoundedCache[tuple[int, Selection], array[int]] = BoundedCache(_LIST_BYTES)
        self._facets: dict[str, Any] | None = None

    # ---- lists -------------------------------------------------------------------------------------------------------

    def matching(self, selection: Selection) -> "array[int]":
        """Numbers of the trajectories, in order: 8 bytes each, so that any part of a long list is at hand."""
        with self._lock:
            self._forget_old()
            key = (self._version, selection)
        return self._lists.get_or_make(key, lambda: self._numbers(selection), _list_size)

    def _numbers(self, selection: Selection) -> "array[int]":
        where, values = selection.conditions()
        return array(
            "q",
            (
                row[0]
                for row in self.index.rows(
                    f"SELECT t.id FROM {_FROM} WHERE {where} ORDER BY {selection.order()}", values
                )
            ),
        )

    def _forget_old(self) -> None:
        if (version := self.index.version) != self._version:
            self._version = version
            self._lists.clear()
            self._facets = None

    def page(self, selection: Selection, offset: int, limit: int) -> dict[str, Any]:
        """`{"total", "offset", "rows": [...]}`: one part of a list."""
        matching = self.matching(selection)
        return {
            "total": len(matching),
            "offset": offset,
            "rows": self.rows_of(matching[offset : offset + limit]),
        }

    def rows_of(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        wanted = list(numbers)
        places = ", ".join("?" * len(wanted))
        found = {
            row["id"]: describe(row)
            for row in self.index.rows(f"SELECT {_COLUMNS} FROM {_FROM} WHERE t.id IN ({places})", wanted)
        }
        return [found[number] for number in wanted if number in found]

    def position(self, selection: Selection, key: str) -> int | None:
        """Where a trajectory stands in a list; None if it is not in it."""
        row = self.index.rows("SELECT id FROM trajectories WHERE key = ?", (key,))
        try:
            return self.matching(selection).index(row[0]["id"]) if row else None
        except ValueError:
            return None

    def related(self, key: str) -> list[dict[str, Any]]:
        """Others on the same question about the same picture: of other models first, then of its own group."""
        rows = self.index.rows(
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE t.subject = (SELECT subject FROM trajectories WHERE key = ?) "
            "AND t.key != ? ORDER BY t.id LIMIT ?",
            (key, key, _MOST_RELATED),
        )
        return [describe(row) for row in rows]

    # ---- what there is -----------------------------------------------------------------------------------------------

    def facets(self) -> dict[str, Any]:
        """What can be filtered by, with how many trajectories each. Steps are at most 200, evenly chosen."""
        with self._lock:
            self._forget_old()
            if self._facets is not None:
                return self._facets
        rows = self.index.rows
        sources = rows(
            "SELECT s.run, s.stage, s.model, s.mode, count(*) AS count FROM trajectories t "
            "JOIN sources s ON s.id = t.source GROUP BY t.source ORDER BY min(t.id)"
        )
        low, high = rows("SELECT min(reward), max(reward) FROM trajectories")[0]
        steps = [row[0] for row in rows("SELECT DISTINCT step FROM trajectories WHERE step IS NOT NULL ORDER BY step")]
        every = max(1, math.ceil(len(steps) / 200))
        facets = {
            "sources": [dict(row) for row in sources],
            "total": sum(row["count"] for row in sources),
            "tools": _counts(rows("SELECT tool, count(*) FROM calls GROUP BY tool ORDER BY 2 DESC")),
            "errors": _counts(rows("SELECT kind, count(*) FROM faults GROUP BY kind ORDER BY 2 DESC")),
            "statuses": _counts(rows("SELECT status, count(*) FROM trajectories GROUP BY 1 ORDER BY 2 DESC")),
            "kinds": _counts(rows("SELECT kind, count(*) FROM trajectories WHERE kind != '' GROUP BY 1 ORDER BY 1")),
            "steps": steps[::every],
            "reward": [low, high],
        }
        with self._lock:
            self._facets = facets
        return facets

    def problems(self) -> dict[str, Any]:
        """Lines that are no trajectory: how many, and the first of them."""
        found = self.index.rows(
            "SELECT f.path, p.line, p.message FROM problems p JOIN files f ON f.id = p.file "
            "ORDER BY f.id, p.line LIMIT 20"
        )
        count = self.index.rows("SELECT count(*) FROM problems")[0][0]
        return {"count": count, "first": [f"{row['path']}, line {row['line']}: {row['message']}" for row in found]}

    # ---- two models on the same questions ----------------------------------------------------------------------------

    def pairs(
        self, left: Mapping[str, str], right: Mapping[str, str], outcome: str, offset: int, limit: int
    ) -> dict[str, Any]:
        """Questions that both sources answered, each with the first trajectory of either.

        Args:
            left, right: `run`, `stage`, `model`, `mode` of a source.
            outcome: `left` (only the left one is right), `right`, `both`, `neither`, or "".

        Returns:
            `{"total", "counts": {"left", "right", "both", "neither"}, "rows": [{"left": row, "right": row}]}`
        """
        sides = [self._source(side) for side in (left, right)]
        together = (
            "FROM (SELECT subject, min(id) AS id FROM trajectories WHERE source = ? GROUP BY subject) a "
            "JOIN (SELECT subject, min(id) AS id FROM trajectories WHERE source = ? GROUP BY subject) b "
            "USING (subject) JOIN trajectories l ON l.id = a.id JOIN trajectories r ON r.id = b.id"
        )
        tests = {
            "left": "l.correct = 1 AND r.correct IS NOT 1",
            "right": "r.correct = 1 AND l.correct IS NOT 1",
            "both": "l.correct = 1 AND r.correct = 1",
            "neither": "l.correct IS NOT 1 AND r.correct IS NOT 1",
        }
        sums = ", ".join(f"total({test})" for test in tests.values())
        counts = dict(zip(tests, map(int, self.index.rows(f"SELECT {sums} {together}", sides)[0]), strict=True))
        rows = self.index.rows(
            f"SELECT l.id, r.id {together} WHERE {tests.get(outcome, '1')} ORDER BY l.id LIMIT ? OFFSET ?",
            (*sides, limit, offset),
        )
        described = {row["id"]: row for row in self.rows_of({number for row in rows for number in tuple(row)})}
        return {
            "total": counts[outcome] if outcome in counts else sum(counts.values()),
            "offset": offset,
            "counts": counts,
            "rows": [{"left": described[row[0]], "right": described[row[1]]} for row in rows],
        }

    def _source(self, names: Mapping[str, str]) -> int:
        row = self.index.rows(
            "SELECT id FROM sources WHERE run = ? AND stage = ? AND model = ? AND mode = ?",
            [names.get(name, "") for name in ("run", "stage", "model", "mode")],
        )
        return row[0]["id"] if row else -1

    # ---- curves ------------------------------------------------------------------------------------------------------

    def curves(self) -> list[dict[str, Any]]:
        """Of every stage that learned: columns over steps, from its log, or from its trajectories if it left no log.

        Returns:
            `[{"run", "stage", "steps": [...], "values": {name: [...]}, "tools": {...}, "chains": {...}, "errors":
            {...}, "every"}]`; `every` steps are averaged to one point. A value that no step logged is None.
        """
        logged = [
            curve
            for run in self.index.runs
            for log in run.logs()
            if (curve := _curve(run.name, log.parent.name, _logged(log)))
        ]
        known = {(curve["run"], curve["stage"]) for curve in logged}
        return logged + [curve for curve in self._seen_curves() if (curve["run"], curve["stage"]) not in known]

    def _seen_curves(self) -> list[dict[str, Any]]:
        """Means over the trajectories of each step."""
        rows = self.index.rows(
            "SELECT s.run, s.stage, t.step, avg(t.reward) AS reward, avg(t.correct) AS accuracy, "
            f"avg(t.calls) AS tool_calls, count(*) AS count FROM {_FROM} WHERE t.step IS NOT NULL GROUP BY 1, 2, 3"
        )
        calls = self.index.rows(
            f"SELECT s.run, s.stage, t.step, c.tool, sum(c.number) FROM {_FROM} JOIN calls c ON c.trajectory = t.id "
            "WHERE t.step IS NOT NULL GROUP BY 1, 2, 3, 4"
        )
        by_step: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for row in rows:
            step = {name: row[name] for name in ("reward", "accuracy", "tool_calls")}
            by_step.setdefault((row["run"], row["stage"]), {})[row["step"]] = step | {
                "tools": {},
                "count": row["count"],
            }
        for run, stage, number, tool, total in calls:
            step = by_step[run, stage][number]
            step["tools"][tool] = total / step["count"]
        found = []
        for (run, stage), steps in by_step.items():
            records = [
                {"step": number, **{name: value for name, value in step.items() if name != "count"}}
                for number, step in steps.items()
            ]
            if len(records) > 1 and (curve := _curve(run, stage, records)):
                found.append(curve)
        return found


def _list_size(numbers: "array[int]") -> int:
    return _LIST_OVERHEAD + numbers.itemsize * len(numbers)


def describe(row: sqlite3.Row) -> dict[str, Any]:
    """A line of a list."""
    record = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    record["correct"] = None if row["correct"] is None else bool(row["correct"])
    return record


def _counts(rows: list[sqlite3.Row]) -> list[dict[str, Any]]:
    return [{"name": row[0], "count": row[1]} for row in rows]


def _logged(log: Path) -> list[dict[str, Any]]:
    """What each step logged, and no more: a field that a log does not have has no curve."""
    return [line.model_dump(exclude_unset=True) for line in read_log(log, live=True)]


def _curve(run: str, stage: str, records: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not records:
        return None
    names = dict.fromkeys(
        name
        for record in records
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NOT_CURVES
    )
    every = math.ceil(len(records) / _MOST_POINTS)
    groups = [records[start : start + every] for start in range(0, len(records), every)]

    def shares(field: str) -> dict[str, list[float | None]]:
        """Names that a step does not mention did not happen in it."""
        totals: dict[str, float] = {}
        for record in records:
            for name, value in (record.get(field) or {}).items():
                totals[name] = totals.get(name, 0.0) + value
        ranked = sorted(totals, key=lambda name: -totals[name])
        return {
            name: [_mean([(record.get(field) or {}).get(name, 0.0) for record in group]) for group in groups]
            for name in ranked
        }

    return {
        "run": run,
        "stage": stage,
        "every": every,
        "steps": [group[-1]["step"] for group in groups],
        "values": {name: [_mean([record.get(name) for record in group]) for group in groups] for name in names},
        **{field: shares(field) for field in ("tools", "chains", "errors")},
    }


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return round(sum(known) / len(known), 5) if known else None


def compact_json(value: Any) -> bytes:
    return jsonl.text_of(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
