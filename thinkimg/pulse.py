"""Is it hung, or does it wait for its turn? No clock of one trajectory can tell, so what moves in this process says so.

Whatever trajectories wait for beats `PULSE`: an engine at each of its steps, the agent at each reply and each call that
has come back, for whichever trajectory it was. A wait counts as a hang only when nothing has moved for anybody.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from thinkimg.errors import InfrastructureError

_LOOKS = 20
"""How often a wait is looked at before it is called a hang."""


class HangError(InfrastructureError):
    """Nothing has moved for too long. Nobody's mistake: it may be tried again."""


class Pulse:
    """Signs of life, of any thread.

    Attributes:
        beats: how often something was finished. Only a change of it means something.
    """

    def __init__(self) -> None:
        self.beats = 0
        self._computing = 0
        self._lock = threading.Lock()

    def beat(self) -> None:
        self.beats += 1

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The block computes in this process, for however long: that is no hang, and to begin anew would not be
        faster."""
        with self._lock:
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                self.beats += 1

    @property
    def is_computing(self) -> bool:
        return self._computing > 0

    @asynccontextmanager
    async def unless_hung(self, seconds: float) -> AsyncIterator[None]:
        """End the block when there was no sign of life for `seconds`.

        Raises:
            HangError: then.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                watch = asyncio.create_task(self._expire(limit, seconds))
                try:
                    yield
                finally:
                    watch.cancel()
        except TimeoutError as error:
            if not limit.expired():  # somebody else's
                raise
            raise HangError(f"hung: nothing has moved for {seconds:g} s") from error

    async def _expire(self, limit: asyncio.Timeout, seconds: float) -> None:
        """Silence is counted in looks, not read from a clock: a machine that slept, or an event loop that was busy, has
        missed looks, and nobody hung meanwhile."""
        quiet = 0
        while quiet < _LOOKS:
            beats = self.beats
            await asyncio.sleep(seconds / _LOOKS)
            quiet = quiet + 1 if beats == self.beats and not self.is_computing else 0
        limit.reschedule(0)


PULSE = Pulse()
"""This process's."""
