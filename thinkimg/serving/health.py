"""What a server says of itself to whoever probes it: `/readyz` and `/livez`, the same for all servers.

Not ready is a server that cannot take work: it loads, it drains, or it has had more than it can hold for ten seconds.
A full moment is no overload: it is answered 429, and callers come again. Whoever took the server out of its Service for
it would give its work to the others, and fill their queues. Overload ends when a quarter is free.

Not alive is a server that is worth no waiting: its loop answers nobody, or nobody has looked after its connections for
a minute. Work, however much, is no reason to kill it.
"""

import time
from collections.abc import Callable

from starlette.responses import PlainTextResponse, Response

LASTING_SECONDS = 10.0
"""How long there must be too much until a server says that it is not ready."""
STUCK_SECONDS = 60.0
FREE_AGAIN = 3 / 4
"""Of what may be held: below it there is no overload any more."""


class Health:
    """Of one process. To be told from its event loop or its threads.

    Args:
        unready: why it cannot take work at all (`loading`, `draining`), or None.
        clock: seconds that only grow.
    """

    def __init__(
        self, unready: Callable[[], str | None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unready = unready
        self._clock = clock
        self._since: dict[str, tuple[float, str]] = {}
        self._beat: float | None = None

    def full(self, what: str, detail: str) -> None:
        """Something was refused because there was no room for it.

        Args:
            detail: for `/readyz`; the one of the first time stays.
        """
        self._since.setdefault(what, (self._clock(), detail))

    def taken(self, what: str, now: float, most: float) -> None:
        """So much of it is taken now: below `FREE_AGAIN` of the most that may be, there is room again."""
        if self._since and now < FREE_AGAIN * most:
            self.free(what)

    def free(self, what: str) -> None:
        """There is room again."""
        self._since.pop(what, None)

    def beat(self) -> None:
        """The connections are looked after."""
        self._beat = self._clock()

    @property
    def overload(self) -> str | None:
        """What there has been too much of for `LASTING_SECONDS`."""
        now = self._clock()
        lasting = [detail for started, detail in list(self._since.values()) if now - started >= LASTING_SECONDS]
        return "; ".join(lasting) or None

    def readyz(self) -> Response:
        """200, or 503 with the reason."""
        why = self._unready()
        if why is None and (overload := self.overload):
            why = f"overloaded for {LASTING_SECONDS:g} s: {overload}"
        return PlainTextResponse("ready\n" if why is None else f"not ready: {why}\n", 200 if why is None else 503)

    def livez(self) -> Response:
        """200, or 503 with the reason. A loop that is stuck gives no answer."""
        if self._beat is not None and self._clock() - self._beat > STUCK_SECONDS:
            return PlainTextResponse("stuck: nobody looks after the connections\n", 503)
        return PlainTextResponse("alive\n")
