"""Places for requests under way: so many for all callers, and of these a share for each."""

from collections.abc import Iterator
from contextlib import contextmanager

from thinkimg.gateway.callers import Caller, Callers
from thinkimg.gateway.config import Limits
from thinkimg.gateway.refusals import refuse
from thinkimg.serving.health import Health

_RETRY_SECONDS = 0.1


class Slots:
    """To be used from one event loop.

    Attributes:
        taken: by all callers together.
    """

    def __init__(self, limits: Limits, callers: Callers, health: Health) -> None:
        self._limits = limits
        self._callers = callers
        self._health = health
        self.taken = 0
        self._bytes = 0

    def enter(self, caller: Caller) -> None:
        """A request begins; `leave` must follow. Raises `Refusal` 429."""
        if self.taken >= self._limits.in_flight:
            detail = f"{self.taken} requests are under way"
            self._health.full("requests", f"{detail}, as many as may be")
            raise _overloaded(detail)
        if caller.in_flight >= self._most(caller):
            raise _overloaded(f"{caller.in_flight} requests of this key are under way, as many as it may have")
        self._take(caller, 1)

    def leave(self, caller: Caller) -> None:
        self._take(caller, -1)

    @contextmanager
    def more(self, caller: Caller, wanted: int) -> Iterator[int]:
        """Further places for the calls of one request, while the block lasts: `wanted`, or as many as there are."""
        free = min(self._limits.in_flight - self.taken, self._most(caller) - caller.in_flight)
        count = max(0, min(wanted, free))
        self._take(caller, count)
        try:
            yield count
        finally:
            self._take(caller, -count)

    def hold(self, caller: Caller | None, size: int) -> None:
        """Bytes of a body; negative when they are given back. Raises `Refusal` 429 where all bodies, or those of this
        caller, are too much."""
        held = caller.body_bytes if caller else 0
        most = max(self._callers.share(self._limits.pending_bytes), self._limits.body_bytes)
        too_much = self._bytes + size > self._limits.pending_bytes
        if size > 0 and (too_much or held + size > most):
            if too_much:
                self._health.full("bytes", f"requests of {self._bytes:,} bytes are under way, as many as may be")
            raise _overloaded(f"requests of {self._bytes:,} bytes are under way, {held:,} of them of this caller")
        self._bytes += size
        self._health.taken("bytes", self._bytes, self._limits.pending_bytes)
        if caller:
            caller.body_bytes += size

    def _most(self, caller: Caller) -> int:
        own = caller.key.in_flight if caller.key else None
        return self._callers.share(self._limits.in_flight) if own is None else own

    def _take(self, caller: Caller, count: int) -> None:
        self.taken += count
        self._health.taken("requests", self.taken, self._limits.in_flight)
        caller.in_flight += count


def _overloaded(detail: str) -> Exception:
    return refuse(429, "overloaded", detail, retry_after_seconds=_RETRY_SECONDS)
