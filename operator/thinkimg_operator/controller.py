"""Workers that take keys from the queue to a reconciler, and the resync that hands over every object now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from .apierrors import ApiError, NotLeadingError
from .cache import Cache
from .cluster import Cluster
from .conditions import is_true
from .kinds import KINDS, Body, Key, key_of, owner_of
from .metrics import Metrics
from .ownership import SELECT_OURS
from .workqueue import Priority, Reconciler, Requeue, WorkQueue

log = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.1
"""Events of children come in flurries (a Deployment's counts, one by one); one look at their end is enough."""
_RESYNC_PAGE = 500


class Controller:
    """One kind: its reconciler, its queue, its workers."""

    def __init__(self, reconciler: Reconciler, cluster: Cluster, metrics: Metrics, workers: int = 16) -> None:
        self.reconciler = reconciler
        self.kind = reconciler.kind
        name = self.kind.lower()
        self.queue = WorkQueue(name, metrics)
        self.last_done = time.monotonic()
        """When a worker last finished a key."""
        self._cluster = cluster
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics = metrics
        self._seconds = metrics.reconcile_seconds.labels(name)
        self._errors = metrics.reconcile_errors.labels(name)
        self._active = metrics.active_workers.labels(name)
        metrics.max_workers.labels(name).set(workers)

    def start(self) -> None:
        """Begin to work. Call it when the cache knows what exists."""
        self._tasks = [asyncio.create_task(self._work(), name=f"{self.kind} worker {i}") for i in range(self._workers)]

    async def stop(self, within: float) -> None:
        """Let reconciliations that are under way finish for at most `within` seconds; start no others."""
        deadline = time.monotonic() + within
        self._workers = 0
        while self.queue.working and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def failed_worker(self) -> BaseException | None:
        """The exception that ended a worker; None while all workers run."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def _work(self) -> None:
        while self._workers:
            key = await self.queue.get()
            if not self._workers:
                return
            try:
                with self._active.track_inprogress(), self._seconds.time():
                    outcome = await self._reconcile(key)
            finally:
                self.queue.done(key)
                self.last_done = time.monotonic()
            if outcome is not None:
                self.queue.add_after(key, outcome.after, outcome.priority)

    async def _reconcile(self, key: Key) -> Requeue | None:
        """One reconciliation; a failure puts the key back with a growing pause."""
        try:
            outcome = await self.reconciler.reconcile(key)
        except NotLeadingError:
            raise
        except ApiError as error:
            pause = self.queue.retry(key, at_least=error.retry_after)
            self._failed(key)
            level = logging.DEBUG if error.conflict else logging.WARNING
            log.log(level, "again in %.1f s: %s", pause, error, extra={"key": str(key)})
        except Exception:
            pause = self.queue.retry(key)
            self._failed(key)
            log.exception("again in %.1f s", pause, extra={"key": str(key)})
        else:
            self.queue.forget_failures(key)
            self._count(key, "requeue_after" if outcome else "success")
            return outcome
        return None

    def _failed(self, key: Key) -> None:
        self._errors.inc()
        self._count(key, "error")

    def _count(self, key: Key, result: str) -> None:
        self._metrics.reconcile.labels(key.kind.lower(), result).inc()


def is_ending(type_: str | None, body: Body) -> bool:
    """Whether a child is deleted or fails. Such news has priority over children that start."""
    return (
        type_ == "DELETED"
        or "deletionTimestamp" in body["metadata"]
        or body.get("status", {}).get("phase") == "Failed"
        or any(is_true(body, name) for name in ("Failed", "FailureTarget", "DisruptionTarget"))
    )


class Hub:
    """Passes news from watches and lists to the controllers of the kinds concerned."""

    def __init__(self, cluster: Cluster, controllers: Sequence[Controller], metrics: Metrics) -> None:
        self.controllers = {controller.kind: controller for controller in controllers}
        self._cluster = cluster
        self._metrics = metrics
        self._watched: dict[str, float] = {}
        """Kinds with a watch, and when it last delivered something (monotonic)."""
        self.unseen: dict[Key, tuple[int, float]] = {}
        """Versions that a list showed and the watch had not delivered: version, and when the list was read."""

    @property
    def cache(self) -> Cache:
        return self._cluster.cache

    def event(self, kind: str, type_: str | None, body: Body) -> None:
        """A watch delivers: `type_` is ADDED, MODIFIED, DELETED, or None for what existed before."""
        self._metrics.watch_events.labels(kind).inc()
        self._watched[kind] = time.monotonic()
        key = key_of(body)
        behind = self.unseen.get(key)
        if behind is not None and int(body["metadata"]["resourceVersion"]) >= behind[0]:
            del self.unseen[key]
        gone = type_ == "DELETED"
        news = self.cache.forget(key, uid=body["metadata"]["uid"]) if gone else self.cache.observe(body)
        priority = self._priority(type_, body)
        if news or type_ is None:
            self.notify(key, body, priority, gone=gone)
        else:  # the echo of our own write: others may wait for it, as jobs do for a tool's status
            self._tell_interested(body, priority)

    def _priority(self, type_: str | None, body: Body) -> Priority:
        """An object without a status has not been looked at yet: it counts as changed, also when a list shows it."""
        if type_ is None and body.get("status"):
            return Priority.RESYNC
        return Priority.CHANGE if body["kind"] in self.controllers or is_ending(type_, body) else Priority.NEWS

    def notify(self, key: Key, body: Body, priority: Priority, *, gone: bool = False) -> None:
        """Have the object, or its owner, reconciled; and whoever else asked to hear of the kind."""
        controller = self.controllers.get(key.kind)
        if controller is not None:
            if not gone:
                self.cache.deliver(body)
            controller.queue.add(key, priority)
        else:
            owner = owner_of(body)
            if owner is not None and owner.kind in self.controllers:
                self.controllers[owner.kind].queue.add_after(owner, _COALESCE_SECONDS, priority)
        self._tell_interested(body, priority)

    def _tell_interested(self, body: Body, priority: Priority) -> None:
        for other in self.controllers.values():
            for interested in other.reconciler.interested(body):
                other.queue.add_after(interested, _COALESCE_SECONDS, priority)

    async def learn(self) -> None:
        """Fill the cache with all children, before the first reconciliation.

        Raises:
            ApiError: 404 while the custom resources are not installed; kopf would never begin to watch them.
        """
        for kind in self.controllers:
            async for _ in self._cluster.pages(kind, page=1):
                break
        for kind in self._child_kinds():
            await self._list(kind)

    async def resync(self) -> None:
        """Read everything in pages and have every object reconciled, after changes and before nothing else.

        It heals what no watch reports: deleted or edited Services, policies and budgets; and events that were lost.
        """
        started = time.monotonic()
        for kind in self._child_kinds():
            for owner in await self._list(kind):
                self.controllers[owner.kind].queue.add(owner, Priority.RESYNC)
        for kind, controller in self.controllers.items():
            await self._resync_kind(kind, controller)
        self._metrics.resyncs.inc()
        self._metrics.resync_seconds.set(time.monotonic() - started)

    async def _resync_kind(self, kind: str, controller: Controller) -> None:
        listed: list[Key] = []
        version = 0
        async for items, as_of in self._cluster.pages(kind, page=_RESYNC_PAGE):
            version = version or as_of
            for body in items:
                self.compare_with_watch(body)
                listed.append(key_of(body))
                self.notify(listed[-1], body, Priority.RESYNC)
            while len(controller.queue) > _RESYNC_PAGE:  # bodies wait in memory: no more than two pages of them
                await asyncio.sleep(0.05)
        for key in self.cache.forget_unlisted(kind, listed, version):
            controller.queue.add(key, Priority.RESYNC)
        self.stop_expecting(kind, listed)

    async def _list(self, kind: str) -> set[Key]:
        """Compare the cache with a list of a child kind; returns the owners of what differs."""
        listed: list[Key] = []
        owners: set[Key] = set()
        version = 0
        async for items, as_of in self._cluster.pages(kind, labels=SELECT_OURS, page=_RESYNC_PAGE):
            version = version or as_of
            for body in items:
                listed.append(key_of(body))
                self.compare_with_watch(body)
                owner = owner_of(body)
                if self.cache.observe(body) and owner is not None and owner.kind in self.controllers:
                    owners.add(owner)
        self.cache.forget_unlisted(kind, listed, version)
        self.stop_expecting(kind, listed)
        return owners

    def compare_with_watch(self, body: Body) -> None:
        key = key_of(body)
        if key.kind not in self._watched:
            return
        seen = self.cache.get(key)
        version = int(body["metadata"]["resourceVersion"])
        if seen is None or seen.resource_version < version:
            self.unseen[key] = (version, time.monotonic())

    def stop_expecting(self, kind: str, listed: Sequence[Key]) -> None:
        """Expect no more versions of deleted objects: a watch that reconnects does not report deletions in between."""
        shown = set(listed)
        self.unseen = {key: seen for key, seen in self.unseen.items() if key.kind != kind or key in shown}

    def _child_kinds(self) -> list[str]:
        kinds = {kind for c in self.controllers.values() for kind in c.reconciler.child_kinds}
        return [kind for kind in KINDS if kind in kinds]

    # ---- health -----------------------------------------------------------------------------------------------------

    def sick(self, *, watch_seconds: float = 60.0, stuck_seconds: float = 120.0) -> str:
        """Why this process should be restarted; empty when it should not.

        A watch is dead when a list showed a version that it has not delivered `watch_seconds` later. A queue is stuck
        when a key is worked on for `stuck_seconds`, or keys wait and none was finished for as long.
        """
        now = time.monotonic()
        for key, (version, since) in self.unseen.items():
            if now - since > watch_seconds:
                return f"the watch of {key.kind} is dead: it has not shown version {version} of {key}"
        for controller in self.controllers.values():
            failure = controller.failed_worker()
            if failure is not None:
                return f"a worker of {controller.kind} has ended: {failure}"
            if controller.queue.longest_working > stuck_seconds:
                return f"a worker of {controller.kind} has been at one object for {stuck_seconds:g} s"
            if controller.queue.longest_waiting > stuck_seconds and now - controller.last_done > stuck_seconds:
                return f"the queue of {controller.kind} is stuck"
        return ""
