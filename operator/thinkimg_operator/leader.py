"""Who of several operator processes may write: a Lease, held by one of them at a time.

The rules are those of client-go's leader election: a candidate waits until the record has not changed for the lease's
duration *by its own clock*, so clocks of different machines are never compared. A Lease does not fence: a process that
was paused believes in it until it looks. Therefore `holds` asks the monotonic clock, every write asks `holds`, and so
does every connection before bytes leave (`fence.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from .apierrors import ApiError
from .cluster import Cluster
from .kinds import KINDS, Body, Key
from .metrics import Metrics

log = logging.getLogger(__name__)

LEASE = "thinkimg-operator"
"""Name of the Lease."""
LEASE_SECONDS = 10.0
"""After that, a lease that is not renewed may be taken: a crash costs that much."""
RENEW_SECONDS = 2.0
"""Pause between renewals; candidates look twice as often."""
RENEW_WITHIN_SECONDS = 6.0
"""A process stops writing when its last renewal is that long ago. Less than `LEASE_SECONDS` by what a request may be
under way."""


class LeadershipLostError(Exception):
    """Another process holds the lease, or it could not be renewed in time: this process has to end."""


class Leader:
    """This process's side of the election."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str, *, metrics: Metrics | None = None) -> None:
        """
        Args:
            cluster: one that may always write, as it is used before this process leads.
        """
        self.identity = identity
        self._cluster = cluster
        self._key = Key("Lease", namespace, LEASE)
        self._valid_until = float("-inf")
        self._lease: Body | None = None
        self._observed: Body = {}
        self._observed_at = float("-inf")
        self._gauge = (metrics or Metrics()).leader.labels(LEASE)
        self._gauge.set_function(lambda: float(self.holds()))

    def holds(self) -> bool:
        """Whether this process may write now."""
        return time.monotonic() < self._valid_until

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        waiting_for = None
        while True:
            try:
                if await self._try_to_take():
                    log.info("leading", extra={"identity": self.identity})
                    return
                if waiting_for != (holder := self._observed.get("holderIdentity")):
                    log.info("waiting for %s to give up the lease", holder)
                    waiting_for = holder
            except ApiError as error:
                log.warning("the lease cannot be read or taken: %s", error)
            await asyncio.sleep(RENEW_SECONDS / 2)

    async def keep(self) -> None:
        """Renew until it fails. Raises `LeadershipLostError`; never returns."""
        pause = RENEW_SECONDS
        while True:
            await asyncio.sleep(pause)
            left = self._valid_until - time.monotonic()
            if left <= 0 or self._lease is None:
                raise LeadershipLostError("the lease was not renewed in time")
            try:
                async with asyncio.timeout(left):
                    await self._renew(self._lease)
                pause = RENEW_SECONDS
            except (ApiError, TimeoutError) as error:
                log.warning("the lease was not renewed: %s", error or "timeout")
                pause = min(RENEW_SECONDS / 4, max(left, 0))

    async def release(self) -> None:
        """Let another process lead at once. Afterwards `holds` is False."""
        if not self.holds() or self._lease is None:
            return
        self._valid_until = float("-inf")
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
        try:
            await self._cluster.replace({**self._lease, "spec": spec})
            log.info("lease released")
        except ApiError as error:
            log.warning("the lease was not released: %s", error)

    async def _try_to_take(self) -> bool:
        asked = time.monotonic()
        lease = await self._cluster.get(self._key)
        if lease is None:
            created = await self._create()
            if created is not None:
                self._hold(created, asked)
            return created is not None
        spec = lease.get("spec") or {}
        if spec != self._observed:
            self._observed, self._observed_at = spec, time.monotonic()
        holder = spec.get("holderIdentity")
        if holder and time.monotonic() < self._observed_at + float(spec.get("leaseDurationSeconds") or LEASE_SECONDS):
            return False
        taken = self._spec(_micro_time(), int(spec.get("leaseTransitions") or 0) + 1)
        asked = time.monotonic()
        try:
            self._hold(await self._cluster.replace({**lease, "spec": taken}), asked)
        except ApiError as error:
            if error.conflict:  # another candidate was faster
                return False
            raise
        return True

    async def _create(self) -> Body | None:
        body = {
            "apiVersion": KINDS["Lease"].api_version,
            "kind": "Lease",
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
            "spec": self._spec(_micro_time(), 0),
        }
        applied = await self._cluster.create(body)
        lease = await self._cluster.get(self._key) if applied.created else None
        return lease if lease and lease["spec"].get("holderIdentity") == self.identity else None

    async def _renew(self, lease: Body) -> None:
        asked = time.monotonic()
        spec = {**lease["spec"], "renewTime": _micro_time()}
        try:
            self._hold(await self._cluster.replace({**lease, "spec": spec}), asked)
        except ApiError as error:
            if not error.conflict and not error.not_found:
                raise
            current = await self._cluster.get(self._key)
            if current is None or current["spec"].get("holderIdentity") != self.identity:
                self._valid_until = float("-inf")
                raise LeadershipLostError("another process holds the lease") from error
            self._lease = current  # somebody labelled it; or our own last renewal landed without an answer

    def _spec(self, acquired: str, transitions: int) -> Body:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(LEASE_SECONDS),
            "acquireTime": acquired,
            "renewTime": acquired,
            "leaseTransitions": transitions,
        }

    def _hold(self, lease: Body, asked: float) -> None:
        """Others count from when they see the renewal, which is after `asked`."""
        self._lease = lease
        self._valid_until = asked + RENEW_WITHIN_SECONDS


def _micro_time() -> str:
    """`metav1.MicroTime`: six digits always, or it does not parse."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
