"""A full disk is the infrastructure's, and one sentence, whichever library could not write."""

import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from thinkimg import jsonl
from thinkimg.cli.app import _exit_code_of
from thinkimg.errors import UserError, full_disk
from thinkimg.trajectory import Trajectory
from thinkimg.trajectory.store import ITEM, Store

TENSORS = {"weights": torch.zeros(200_000)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "torch": lambda path: torch.save(TENSORS, path),
    "safetensors": lambda path: safetensors.torch.save_file(TENSORS, path),
    "log": lambda path: jsonl.append("x" * 200_000, path),
}


def _write(name: str, path: Path) -> None:
    """In a process of its own, whose files may not become large: a disk that fills up, without privileges."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        WRITERS[name](path)
    except Exception as error:
        raise SystemExit(_exit_code_of(error)) from None


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_ends_a_command_with_70(name: str, tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_write, args=(name, tmp_path / "file"))
    process.start()
    process.join(60)
    assert process.exitcode == 70


def _fill(path: Path, append: Callable[[Path, str], None]) -> None:
    """In a process of its own: small lines, one that finds no room, and small ones again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    append(path, "first")
    for _ in range(2):
        try:
            append(path, "x" * 200_000)
        except OSError:
            append(path, "after")
            continue
        raise SystemExit(1)
    raise SystemExit(0)


def _append_answer(path: Path, text: str) -> None:
    store = _STORES.setdefault(path, Store(path))
    if store not in _OPENED:
        store.__enter__()
        _OPENED.append(store)
    trajectory = Trajectory(question=text)
    trajectory.meta |= {"task": f"{len(store)} {text[:9]}", ITEM: ""}
    store.append(trajectory)


_STORES: dict[Path, Store] = {}
_OPENED: list[Store] = []
APPENDING: dict[str, Callable[[Path, str], None]] = {
    "a log": lambda path, text: jsonl.append({"text": text}, path),
    "answers": _append_answer,
}


@pytest.mark.parametrize("name", APPENDING)
def test_a_disk_that_fills_up_while_a_line_is_added_leaves_a_file_that_opens(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(path, APPENDING[name]))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert len(list(jsonl.read(path))) == 3, "the first, and one after each that found no room"
    if name == "answers":
        with Store(path) as store:
            assert len(store) == 3
            assert [store.load(one).question for one in store.names] == ["first", "after", "after"]


def test_the_system_says_so_in_its_own_words() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    said = str(full_disk(error.value))
    assert said.startswith("the disk is full: a file could not be written ([Errno 28] No space left on device)")


def test_other_errors_are_none_of_it() -> None:
    assert full_disk(PermissionError(13, "Permission denied")) is None
    assert full_disk(RuntimeError("shapes differ")) is None
    assert full_disk(UserError("No space left on device is what my file says")) is None
