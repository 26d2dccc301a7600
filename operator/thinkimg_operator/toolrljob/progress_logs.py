"""Reading the progress of running stages from the logs of their pods."""

from __future__ import annotations

import asyncio
import logging
import time

from thinkimg.api.pod_contract import CONTAINER, ProgressLine, progress_lines

from ..apierrors import ApiError
from ..cluster import Cluster
from ..kinds import Key
from .attempts import PodSeen
from .progress import PROGRESS_SECONDS

log = logging.getLogger(__name__)

QUICK_SECONDS = 0.2
"""What a reconciliation waits for a log at most."""


class ProgressLogs:
    """The last progress line of each running job. A log that hangs is read beside the reconciliation, and delays the
    next ones by nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lines: dict[Key, tuple[str, ProgressLine | None]] = {}
        """Pod's uid and line."""
        self._read_at: dict[Key, tuple[str, float]] = {}
        """Pod's uid, and when its log was last read, or the pod first seen to run."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._slow: set[Key] = set()
        """Those whose last reading took long: it is not waited for."""

    async def latest(self, key: Key, stage: str, pod: PodSeen | None) -> ProgressLine | None:
        """What is known of that pod, read anew when the last reading is long enough ago."""
        if pod is None:
            return None
        if pod.phase == "Running" and key not in self._tasks and self._is_due(key, pod):
            task = self._tasks[key] = asyncio.create_task(self._read(key, stage, pod))
            if key not in self._slow:
                await asyncio.wait({task}, timeout=QUICK_SECONDS)
        uid, line = self._lines.get(key, ("", None))
        return line if uid == pod.uid else None

    def _is_due(self, key: Key, pod: PodSeen) -> bool:
        """Long enough after the last reading, or after the pod was first seen to run, when its log has yet to begin."""
        now = time.monotonic()
        uid, since = self._read_at.get(key, ("", now))
        due = uid == pod.uid and now - since >= PROGRESS_SECONDS
        if due or uid != pod.uid:
            self._read_at[key] = (pod.uid, now)
        return due

    def forget(self, key: Key) -> None:
        self._lines.pop(key, None)
        self._read_at.pop(key, None)
        self._slow.discard(key)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def _read(self, key: Key, stage: str, pod: PodSeen) -> None:
        began = time.monotonic()
        try:
            text = await self._cluster.pod_log(key.namespace, pod.name, container=CONTAINER, tail=50)
        except ApiError as error:
            log.debug("no log of pod %s/%s: %s", key.namespace, pod.name, error)
            text = ""
        finally:
            self._tasks.pop(key, None)
        if time.monotonic() - began > QUICK_SECONDS:
            self._slow.add(key)
        else:
            self._slow.discard(key)
        line = next(progress_lines(text, stage), None)
        if line is not None:
            self._lines[key] = (pod.uid, line)
