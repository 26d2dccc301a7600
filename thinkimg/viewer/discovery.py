"""Which trajectory files a path holds, and what their places say about them: run, stage, model, mode, step."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkimg import jsonl
from thinkimg.api import Control
from thinkimg.errors import UserError
from thinkimg.models.runs import REPLACED

_STEP = re.compile(r"step-(\d+)(\.rank\d+)?")
_MODE_ORDER = ("greedy", "sampled", "control", "training", "examples", "")


def order_of(mode: str) -> int:
    """Where trajectories of a mode are shown among the others."""
    return _MODE_ORDER.index("control" if Control.of(mode) else mode)


def is_evaluated(mode: str) -> bool:
    """Whether a file of this name, without its ending, has the answers of an evaluated model."""
    return mode in ("greedy", "sampled") or Control.of(mode) is not None


@dataclass(frozen=True)
class TrajectoryFile:
    """A file of JSON lines, its pictures beside it in `images/`.

    Attributes:
        run: name of its run, unique among those shown.
        stage: of the manifest; of a file outside a run, its path without ending.
        model: folder of an evaluated model, else "" (the records may say).
        mode: `greedy`, `sampled`, a control's name, `training`, `examples`, or "" where the path does not say.
        step: of training.
    """

    path: Path
    run: str
    stage: str
    model: str
    mode: str
    step: int | None


@dataclass(frozen=True)
class RunFolder:
    """A run, any folder that holds trajectory files, or one such file."""

    name: str
    path: Path

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def logs(self) -> list[Path]:
        """The training logs of its stages."""
        return own_files(self.path, "stages/*/log.jsonl") if self.path.is_dir() else []

    def files(self, known: Collection[str] = ()) -> list[TrajectoryFile]:
        """Evaluated models first, then training in the order of its steps, then examples.

        Args:
            known: paths that need not be looked into to see that they hold trajectories.
        """
        inside = (path for path in own_files(self.path, "**/*.jsonl") if self.path / REPLACED not in path.parents)
        paths = [self.path] if self.path.is_file() else list(inside)
        found = [self._describe(path) for path in paths if str(path) in known or looks_right(path)]
        return sorted(found, key=lambda file: (order_of(file.mode), file.stage, file.step or 0, file.path))

    def _describe(self, path: Path) -> TrajectoryFile:
        parts = path.relative_to(self.folder).with_suffix("").parts
        step = step_of(path)
        if parts[0] == "stages" and len(parts) == 4 and parts[2] == "trajectories":
            return TrajectoryFile(path, self.name, parts[1], "", "examples" if step is None else "training", step)
        if parts[0] == "stages" and len(parts) == 4 and is_evaluated(parts[3]):
            return TrajectoryFile(path, self.name, parts[1], parts[2], parts[3], None)
        stage = "/".join(parts if step is None else parts[:-1]) or path.stem
        return TrajectoryFile(path, self.name, stage, "", "" if step is None else "training", step)


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The runs that `thinkimg view RUN…` names; a folder of runs stands for the runs in it.

    Raises:
        UserError: a path that is not there.
    """
    roots = [root for path in paths for root in _roots(path)]
    unique = list(dict.fromkeys(roots))
    names = [root.stem if root.is_file() else root.name for root in unique]
    return [
        RunFolder(name if names.count(name) == 1 else f"{root.parent.name}/{name}", root)
        for name, root in zip(names, unique, strict=True)
    ]


def _roots(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise UserError("there is no such run folder or file of trajectories", str(path))
    path = path.resolve()
    inner = sorted(child.parent for child in path.glob("*/stages") if child.is_dir()) if path.is_dir() else []
    if inner and not (path / "stages").is_dir():
        yield from inner
    else:
        yield path


def own_files(root: Path, pattern: str) -> list[Path]:
    """Files below a folder, in order; none that a link leads to outside of it: a run may come from somebody else."""
    home = root.resolve()
    return sorted(path for path in root.glob(pattern) if path.resolve().is_relative_to(home))


def step_of(path: Path) -> int | None:
    """Of `step-000040.jsonl` or, from another rank, `step-000040.rank1.jsonl`."""
    match = _STEP.fullmatch(path.name.removesuffix(".jsonl"))
    return int(match[1]) if match else None


def looks_right(path: Path) -> bool:
    """Whether the first line is a trajectory, or begins like one that is being written."""
    try:
        with path.open("rb") as file:
            line = file.readline(64 * 1024 * 1024)
        if not line.endswith(b"\n"):
            return b'"turns"' in line
        record = jsonl.parse(line)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "turns" in record and "question" in record
