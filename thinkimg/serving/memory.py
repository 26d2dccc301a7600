"""What a server may take of memory, and how freed memory goes back to the system.

glibc keeps what lies between blocks in use, and pictures are large: after a
while a server would hold several times what it uses."""

import asyncio
import contextlib
import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path

_SECONDS = 5.0


def _find_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; other C libraries have none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_trim = _find_trim()

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of this container, by version 2 and 1 of control groups."""


def memory_limit(files: Iterable[Path] = _LIMITS) -> int | None:
    """Bytes that this container may take; None where nothing says so, as on a machine without containers."""
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
    return None


def at_most(most: int, share: float, files: Iterable[Path] = _LIMITS) -> int:
    """A default of so many bytes, or the share of this container's memory where that is less: limits of a program
    follow from those of the container that it runs in."""
    limit = memory_limit(files)
    return most if limit is None else max(1024, min(most, int(limit * share)))


_M_ARENA_MAX = -8  # malloc.h


def share_one_arena() -> None:
    """To be called before threads start: each would get a memory arena of its own, and of all arenas but the first,
    `malloc_trim` leaves the unused end as it is."""
    if _trim is not None:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


async def give_memory_back() -> None:
    """Runs until it is cancelled."""
    while _trim is not None:
        await asyncio.sleep(_SECONDS)
        await asyncio.to_thread(_trim, 0)
