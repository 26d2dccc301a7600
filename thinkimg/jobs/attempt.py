"""Attempts of a stage: each leaves its number in the stage's folder, and one that finds a higher number saves nothing.

A node that was given up may still run a rank; what it computes must not mix with the attempt that took over.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from thinkimg.api.pod_contract import Variable
from thinkimg.errors import InfrastructureError
from thinkimg.jobs.layout import IDENTITY
from thinkimg.training.checkpoints import complete_checkpoints

_FILE = "attempt"
_OF_THE_RUNNER = {"output.log", "servers", IDENTITY}
"""What `thinkimg run` keeps in the folder while the stage works in it."""
_BESIDE_CHECKPOINTS = {"log.jsonl", "trajectories", "extended"}
"""What training goes on writing after a resume."""


class SupersededError(InfrastructureError):
    """A later attempt works on this stage."""


def next_attempt(folder: Path) -> int:
    """The number of the attempt that is to follow those of a stage's folder."""
    return _seen(folder) + 1


def begin_attempt(folder: Path, goes_on_from: Collection[str] = ()) -> None:
    """Take the folder over: leave the number, and remove what an earlier attempt left but for complete checkpoints and
    what belongs to them. For one process of the attempt.

    Args:
        goes_on_from: names of what the stage continues, whether or not there is a checkpoint.

    Raises:
        SupersededError: a later attempt has begun.
    """
    check_attempt(folder)
    before = _seen(folder)
    number = attempt_number() or before + 1
    partial = folder / f"{_FILE}.{os.getpid()}.partial"
    partial.write_text(f"{number}\n")
    partial.replace(folder / _FILE)  # first: from now on the earlier attempt saves nothing
    if before < number:
        for path in _left_over(folder, goes_on_from):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _left_over(folder: Path, goes_on_from: Collection[str]) -> list[Path]:
    complete = {path.name for path in complete_checkpoints(folder)}
    kept = {_FILE, *goes_on_from} | _OF_THE_RUNNER | complete | (_BESIDE_CHECKPOINTS if complete else set())
    return [path for path in folder.iterdir() if path.name not in kept]


def check_attempt(folder: Path) -> None:
    """To be called before anything is saved.

    Raises:
        SupersededError: a later attempt has begun.
    """
    number, seen = attempt_number(), _seen(folder)
    if number is not None and seen > number:
        raise SupersededError(f"attempt {number} ends without saving: attempt {seen} works on {folder}")


def attempt_number() -> int | None:
    """This process's attempt, as whoever started it counts; None for a stage that somebody started by hand."""
    text = os.environ.get(Variable.ATTEMPT, "")
    return int(text) if text.isdigit() else None


def _seen(folder: Path) -> int:
    try:
        text = (folder / _FILE).read_text().strip()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() else 0
