"""Gives freed memory back to the system. glibc keeps what lies between blocks in use, and pictures are large: after a
while a server would hold several times what it uses."""

import asyncio
import ctypes
from collections.abc import Callable

_SECONDS = 5.0


def _find_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; other C libraries have none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_trim = _find_trim()


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
