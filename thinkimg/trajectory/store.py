"""What an agent has answered so far: one file of trajectories, appended to as they finish; no kill can spoil it.

The file is JSON lines of `thinkimg.trajectory.Trajectory` with pictures beside it in `images/`, whole at any moment up
to its last line; a line that a kill cut off is dropped when the file is opened again.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.trajectory.files import save_images
from thinkimg.trajectory.record import LOST, Trajectory
from thinkimg.trajectory.task import Task

ITEM = "item"
"""Key of `Trajectory.meta`: digest of the question, its reference and its pictures."""


def digest_of(task: Task) -> str:
    """What must be the same for an answer to count as this question's answer."""
    parts = [task.question, task.reference or "", *(image.sha256 for image in task.images)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Line:
    offset: int
    length: int
    digest: str
    again: bool  # ended by the infrastructure: nobody's answer, to be asked again


class Store:
    """Answers by question. To be used as a context manager, which holds the file's lock.

    Args:
        path: of the trajectories; its folder is made.

    Raises:
        UserError: another process works on the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> "Store":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.path.with_name(self.path.name + ".lock"))
        self._lock.__enter__()
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._lines)

    def answered(self, task: Task) -> bool:
        """Whether the question needs no further attempt.

        Raises:
            UserError: the answer in the file is to another question or picture of the same name.
        """
        line = self._lines.get(task.id)
        if line is None:
            return False
        if line.digest and line.digest != digest_of(task):  # without one, nothing is known of the question
            raise UserError(
                f"question {task.id!r} is not the one that was answered here before: the data has changed; "
                "choose another output, or delete this one",
                str(self.path),
            )
        return not line.again

    def append(self, trajectory: Trajectory) -> None:
        """Add an answer; one to the same question replaces it when the file is put in order."""
        save_images(trajectory.images.values(), self.path.parent / "images")
        key = _key({"meta": trajectory.meta, "status": trajectory.status})
        self._write(jsonl.as_line(trajectory.model_dump_json()).encode(), *key)

    @property
    def names(self) -> list[str]:
        """Of all questions that have an answer, in the order of the file."""
        return list(self._lines)

    def holds(self, name: str) -> bool:
        return name in self._lines

    def finished(self, name: str) -> bool:
        """Whether the question of this name needs no further attempt."""
        return name in self._lines and not self._lines[name].again

    def record(self, name: str) -> dict[str, Any]:
        """The JSON of the answer to a question."""
        return jsonl.parse(self._read(self._lines[name]))

    def load(self, name: str) -> Trajectory:
        """The answer to a question, its pictures as references without bytes."""
        record = self.record(name)
        record["images"] = {handle: Image.from_reference(reference) for handle, reference in record["images"].items()}
        return Trajectory.model_validate(record)

    def put_in_order(self, ids: Iterable[str]) -> None:
        """Rewrite the file: one line per question, in this order. A reader sees the old file or the new one."""
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            for name in ids:
                file.write(self._read(self._lines[name]))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._file.close()
        self._open()

    # ---- the file ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._file: BinaryIO = self.path.open("a+b", buffering=0)
        self._lines.clear()
        self._end = 0
        with self.path.open("rb") as file:
            for raw in file:
                try:
                    found = _key(jsonl.parse(raw)) if raw.endswith(b"\n") else None
                except (ValueError, LookupError, TypeError):
                    found = None
                if found is None:  # cut off by a kill, and so the last one
                    break
                name, digest, again = found
                self._lines[name] = _Line(self._end, len(raw), digest, again)
                self._end += len(raw)
            rest = file.read().strip(b"\0\n ")
        if rest and found is None and b"\n" in rest:
            raise UserError("a line in its middle is not a trajectory of an evaluation", str(self.path))
        self._file.truncate(self._end)

    def _write(self, raw: bytes, name: str, digest: str, again: bool) -> None:
        written = 0
        try:
            while written < len(raw):
                written += self._file.write(raw[written:])
        except BaseException:  # a full disk: the file ends again where its last whole line does
            self._file.truncate(self._end)
            raise
        self._lines[name] = _Line(self._end, len(raw), digest, again)
        self._end += len(raw)

    def _read(self, line: _Line) -> bytes:
        return os.pread(self._file.fileno(), line.length, line.offset)


def _key(record: dict[str, Any]) -> tuple[str, str, bool]:
    return str(record["meta"]["task"]), str(record["meta"][ITEM]), record["status"] in LOST


def part_of(path: Path, index: int, count: int) -> Path:
    """The file of one of `count` processes that answer together."""
    return path.with_name(f"{path.stem}.{index}-of-{count}.jsonl")


def merge_parts(parts: Sequence[Path], path: Path) -> None:
    """All parts, each in order, as one file: question k is line k // N of part k % N."""
    partial = path.with_name(path.name + ".partial")
    with ExitStack() as opened, partial.open("wb") as out:
        files = [opened.enter_context(part.open("rb")) for part in parts]
        number = 0
        while line := files[number % len(files)].readline():
            out.write(line)
            number += 1
    partial.replace(path)


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Held while the block lasts; the kernel frees it, however the process ends.

    Raises:
        UserError: another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                "another process is writing this output; wait for it, choose another, or give each process its part "
                "with --shard I/N",
                str(path.parent),
            ) from None
        yield
