"""Which trajectories go into the page: a fair sample of everything a run wrote, never chosen by its result."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.message import Content
from thinkimg.trajectory import Trajectory, Turn
from thinkimg.trajectory.files import own_file
from thinkimg.viewer.discovery import is_evaluated, own_files, step_of

Mode = Literal["greedy", "sampled", "training", "examples"]
"""Of a source; beside these a control's name."""
MOST_STEPS = 24  # per training stage: enough to see it learn, few enough to read quickly


@dataclass(frozen=True)
class Candidate:
    """A trajectory on disk, not yet parsed: its line, the folder of its pictures and the training step."""

    line: str = field(repr=False)
    folder: Path
    step: int | None

    def load(self) -> Trajectory:
        """The record; pictures are references without bytes (`picture_path` finds those).

        Raises:
            UserError: it is no trajectory of this version.
        """
        record = jsonl.parse(self.line)
        try:
            images = {name: Image.from_reference(reference) for name, reference in record["images"].items()}
            return Trajectory.model_validate(record | {"images": images})
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"it cannot be shown: {error}", f"{self.folder.parent}: a trajectory") from error

    def picture_path(self, image: Image) -> Path | None:
        return own_file(self.folder, image.sha256 + image.suffix)


@dataclass
class Source:
    """Trajectories of one kind: a model's greedy answers, a stage's rollouts.

    Attributes:
        stage, model: names in the manifest; of rollouts and examples the model is the stage itself.
        total: how many the run wrote.
        candidates: in the order in which they are to be shown first; maybe fewer than `total`.
    """

    stage: str
    model: str
    mode: Mode | str
    total: int = 0
    candidates: list[Candidate] = field(default_factory=list)


def find_sources(run: Path) -> list[Source]:
    """Everything below `RUN/stages`: evaluated models first, then training, then examples."""
    evaluated = [
        _read_source(path.parent.parent.name, path.parent.name, mode, [path])
        for mode, path in sorted((path.stem, path) for path in own_files(run, "stages/*/*/*.jsonl"))
        if is_evaluated(mode) and path.parent.name != "trajectories"
    ]
    trained, examples = [], []
    kept: dict[Path, list[Path]] = {}
    for path in own_files(run, "stages/*/trajectories/*.jsonl"):
        kept.setdefault(path.parent, []).append(path)
    for folder, unordered in kept.items():
        paths = sorted(unordered, key=lambda path: (step_of(path) or 0, path.name))
        steps = [path for path in paths if step_of(path) is not None]
        others = [path for path in paths if step_of(path) is None]
        if steps:
            trained.append(_read_source(folder.parent.name, folder.parent.name, "training", steps))
        if others:
            examples.append(_read_source(folder.parent.name, folder.parent.name, "examples", others))
    return [source for source in (*evaluated, *trained, *examples) if source.total]


def interleave(sources: list[Source]) -> Iterator[tuple[Source, Candidate]]:
    """One of each source in turn, until all are given."""
    longest = max((len(source.candidates) for source in sources), default=0)
    for number in range(longest):
        for source in sources:
            if number < len(source.candidates):
                yield source, source.candidates[number]


def _read_source(stage: str, model: str, mode: str, paths: list[Path]) -> Source:
    """Same questions first in every source of the run, so that models can be compared; steps in turn."""
    source = Source(stage, model, mode)
    columns: list[list[Candidate]] = []
    chosen = set(_spread(paths, MOST_STEPS))
    for path in paths:
        lines = list(jsonl.lines(path))
        source.total += len(lines)
        if path in chosen:
            ordered = sorted((_rank(path, line.number, line.text), line.text) for line in lines)
            columns.append([Candidate(line, path.parent / "images", step_of(path)) for _, line in ordered])
    for number in range(max(map(len, columns), default=0)):
        source.candidates += [column[number] for column in columns if number < len(column)]
    return source


def _rank(path: Path, number: int, line: str) -> tuple[str, int]:
    """A hash of the question orders it at random, but alike everywhere; a group of rollouts stays together."""
    try:
        record = jsonl.parse(line)
        question = str((record.get("meta") or {}).get("question_id", record["question"]))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}, line {number}: not a trajectory: {error}") from error
    return hashlib.sha256(question.encode("utf-8", "replace")).hexdigest(), number


def _spread(paths: list[Path], most: int) -> list[Path]:
    """At most `most` of them, evenly, with the first and the last."""
    if len(paths) <= most:
        return paths
    return [paths[round(number * (len(paths) - 1) / (most - 1))] for number in range(most)]


def as_record(trajectory: Trajectory) -> dict[str, Any]:
    """What the page's script reads of a trajectory; see `report.js`."""
    return {
        "id": trajectory.id,
        "question": trajectory.question,
        "reference": trajectory.reference,
        "answer": trajectory.answer,
        "status": trajectory.status,
        "correct": trajectory.correct,
        "rewards": {name: _finite(value) for name, value in trajectory.rewards.items()},
        "seconds": _finite(trajectory.seconds),
        "meta": {key: _short(value) for key, value in trajectory.meta.items()},
        "images": {
            name: {"sha": image.sha256, "width": image.width, "height": image.height}
            for name, image in trajectory.images.items()
        },
        "turns": [_turn(turn) for turn in trajectory.turns],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    record: dict[str, Any] = {
        "role": turn.role,
        "seconds": _finite(turn.seconds),
        "finish": turn.finish,
        "blocks": [_block(block) for block in turn.message.content],
    }
    if turn.tokens is not None:
        record["tokens"] = turn.tokens
        record["mask"] = "".join("1" if flag else "0" for flag in turn.mask or [])
        record["logprobs"] = (
            [_finite(value) for value in turn.logprobs] if turn.logprobs and any(turn.mask or []) else None
        )
    return record


def _block(block: Content) -> dict[str, Any]:
    record: dict[str, Any] = block.model_dump()
    if block.type == "tool_result":
        record["overlay"] = overlay(block.data)
        record["data"] = _short(block.data)
    return record


# ---- overlays -------------------------------------------------------------------------------------------------------


def overlay(data: dict[str, Any]) -> dict[str, list[Any]]:
    """Shapes to draw on the picture a tool looked at, from a result's `data`, in percent.

    Read are `boxes` or `box` (`[x1, y1, x2, y2]`, or `{"box": [...], "label": ...}`), with `strings`, `labels` or
    `titles` in the same order as their names, and `points` or `point` (`[x, y]` or `{"x", "y", "label"}`). Whatever
    does not have this form is not drawn.

    Returns:
        `{"boxes": [[x1, y1, x2, y2, label], ...], "points": [[x, y, label], ...]}`
    """
    boxes = data.get("boxes", [data["box"]] if "box" in data else [])
    points = data.get("points", [data["point"]] if "point" in data else [])
    names: list[Any] = next(
        (data[key] for key in ("strings", "labels", "titles") if isinstance(data.get(key), list)), []
    )
    drawn_boxes, drawn_points = [], []
    for number, box in enumerate(boxes if isinstance(boxes, list) else []):
        name = names[number] if number < len(names) else ""
        if isinstance(box, dict):
            name, box = box.get("label", box.get("text", name)), box.get("box")
        if _numbers(box, 4):
            drawn_boxes.append([*box, _text(name)])
    for number, point in enumerate(points if isinstance(points, list) else []):
        name = names[number] if number < len(names) and not drawn_boxes else ""
        if isinstance(point, dict):
            name, point = point.get("label", name), [point.get("x"), point.get("y")]
        if _numbers(point, 2):
            drawn_points.append([*point, _text(name)])
    return {"boxes": drawn_boxes, "points": drawn_points}


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(one, int | float) and _finite(one) is not None for one in value)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value.get("text", "")) if isinstance(value, dict) else str(value)


def _finite(value: float | None) -> float | None:
    """Rounded for the page, and None for what JSON has no word for."""
    return round(float(value), 5) if value is not None and abs(value) < float("inf") else None


def _short(value: Any, most: int = 4000) -> Any:
    """`value` if its JSON is short (a mask is not), else a word about it."""
    try:
        length = len(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)[:most]
    if length <= most:
        return value
    if isinstance(value, dict):
        return {key: _short(inner, most // 4) for key, inner in list(value.items())[:20]}
    return f"({length:,} characters, not shown)"
