"""The queue between watches and workers: one entry per object, urgent ones first, failures with a growing pause.

The rules are those of client-go's workqueue, which controllers rely on: a key that is added while it is being worked
on is worked on once more afterwards, never twice at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from .kinds import Body, Key
from .metrics import Metrics


class Priority(IntEnum):
    """Lower goes first."""

    CHANGE = 0
    """The object was made or changed, or a child of it is ending."""
    NEWS = 1
    """Its children are on their way. Work that is begun can wait for work that is not, and meanwhile more of its news
    comes in one piece."""
    RESYNC = 2
    """Start-up and resync: everything is looked at again, and nothing is known to have happened."""


@dataclass(frozen=True)
class Requeue:
    """Look at the object again without an event: a deadline, a back-off, a poll."""

    after: float
    """Seconds."""
    priority: Priority = Priority.CHANGE


class Reconciler(Protocol):
    """Makes one kind of object true. Called by one worker at a time for a key, by many for different keys."""

    @property
    def kind(self) -> str:
        """The kind whose keys it gets."""
        ...

    @property
    def child_kinds(self) -> Sequence[str]:
        """Kinds that it applies: resyncs list them, so that changes nobody watched are healed."""
        ...

    async def reconcile(self, key: Key) -> Requeue | None:
        """Compare the world with what it should be, write the difference. Any exception means: again, later."""
        ...

    def interested(self, body: Body) -> Iterable[Key]:
        """Keys to look at when an object that they do not own changes, as jobs that wait for a VisionTool."""
        ...


class WorkQueue:
    """De-duplicated keys with priorities, delays and per-key back-off. For one event loop."""

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        *,
        first_backoff: float = 0.1,
        longest_backoff: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._heap: list[tuple[Priority, int, Key]] = []
        """May hold a key twice when its priority rose; `_waiting` tells which entry counts."""
        self._waiting: dict[Key, Priority] = {}
        self._waiting_since: dict[Key, float] = {}
        self._working_since: dict[Key, float] = {}
        self._again: dict[Key, Priority] = {}
        """Keys that were added while they were being worked on."""
        self._timers: dict[tuple[Key, Priority], asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._available = asyncio.Semaphore(0)
        """As many as `_waiting` has keys."""
        self._first_backoff = first_backoff
        self._longest_backoff = longest_backoff
        self._adds = metrics.queue_adds.labels(name)
        self._retries = metrics.queue_retries.labels(name)
        self._queue_seconds = metrics.queue_seconds.labels(name)
        self._work_seconds = metrics.work_seconds.labels(name)
        metrics.queue_depth.labels(name).set_function(lambda: len(self._waiting))
        metrics.unfinished_seconds.labels(name).set_function(self._unfinished)
        metrics.longest_running_seconds.labels(name).set_function(lambda: self.longest_working)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is worked on; delayed keys do not count."""
        return not self._waiting and not self._working_since

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working_since)

    @property
    def longest_waiting(self) -> float:
        """Seconds that the oldest waiting key has waited; 0 when none waits."""
        return self._since(self._waiting_since)

    @property
    def longest_working(self) -> float:
        """Seconds that the slowest worker has spent on its key; 0 when none works."""
        return self._since(self._working_since)

    def _since(self, moments: Mapping[Key, float]) -> float:
        return max(self._clock() - min(moments.values()), 0.0) if moments else 0.0

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """Have the key worked on soon. Once, however often it is added before that."""
        if key in self._working_since:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        known = self._waiting.get(key)
        if known is not None and known <= priority:
            return
        self._waiting[key] = priority
        heapq.heappush(self._heap, (priority, next(self._order), key))
        if known is None:
            self._waiting_since[key] = self._clock()
            self._adds.inc()
            self._available.release()

    def add_after(self, key: Key, seconds: float, priority: Priority = Priority.CHANGE) -> None:
        """Work on the key in `seconds`. If it is worked on earlier, the next time follows from that outcome."""
        if seconds <= 0:
            self.add(key, priority)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get((key, priority))
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key, priority] = loop.call_later(seconds, self._expired, key, priority)

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Have a key that failed worked on again; the pause doubles with each failure in a row.

        `at_least`: seconds that the API server asked for (`Retry-After`). Returns the pause.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(self._first_backoff * 2 ** min(failures, 30), self._longest_backoff)
        pause = max(
            pause * random.uniform(0.8, 1.2), at_least
        )  # many keys fail at once; they should not return at once
        self._retries.inc()
        self.add_after(key, pause)
        return pause

    def forget_failures(self, key: Key) -> None:
        """The key succeeded: its next failure starts with the first pause."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key, most urgent first. The caller says `done` when it is through with it."""
        await self._available.acquire()
        while True:
            priority, _, key = heapq.heappop(self._heap)
            if self._waiting.get(key) == priority:
                break
        del self._waiting[key]
        self._queue_seconds.observe(self._clock() - self._waiting_since.pop(key))
        for each in Priority:
            timer = self._timers.pop((key, each), None)
            if timer is not None:
                timer.cancel()
        self._working_since[key] = self._clock()
        return key

    def done(self, key: Key) -> None:
        """The key from `get` has been worked on; added meanwhile, it waits again now."""
        self._work_seconds.observe(self._clock() - self._working_since.pop(key))
        if key in self._again:
            self.add(key, self._again.pop(key))

    def _expired(self, key: Key, priority: Priority) -> None:
        self._timers.pop((key, priority), None)
        self.add(key, priority)

    def _unfinished(self) -> float:
        now = self._clock()
        return sum(now - since for since in self._working_since.values())
