"""`Batcher`: puts calls of one tool together, so that a model computes several in one pass.

The first call of a batch waits `max_wait_seconds` for others; a full batch starts at once. While a batch is computed,
the next one gathers: under load batches fill by themselves and the wait costs nothing. All methods are called on the
event loop; batches run in one thread, because a model on a device is not called twice at the same time.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.tools.tool import ToolResult

Outcome = ToolResult | ModelError | Exception
"""What became of one call: a result, the model's fault, or a failure of the tool."""
RunBatch = Callable[[Sequence[Mapping[str, Any]]], Sequence[ToolResult | ModelError]]
log = logging.getLogger(__name__)


@dataclass
class _Waiting:
    arguments: Mapping[str, Any]
    deadline: float
    arrived: float
    outcome: "asyncio.Future[Outcome]"


class Batcher:
    """Batches of one tool.

    Args:
        name: of the tool, for threads and logs.
        run_batch: bound arguments of several calls -> their results, in order.
        max_size: most calls in a batch.
        max_wait_seconds: how long the first call of a batch waits for others.
        started: told of each batch, in its thread, as it begins: for every call the seconds that it has waited.
    """

    def __init__(
        self,
        name: str,
        run_batch: RunBatch,
        max_size: int,
        max_wait_seconds: float,
        started: Callable[[list[float]], None] = lambda waited: None,
    ) -> None:
        self._name = name
        self._run_batch = run_batch
        self._max_size = max_size
        self._max_wait = max_wait_seconds
        self._started = started
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"batch-{name}")

    @property
    def waiting(self) -> int:
        """Calls that no batch has taken yet."""
        return len(self._waiting)

    async def submit(self, arguments: Mapping[str, Any], deadline: float) -> Outcome:
        """Have one call computed, together with others.

        A call that is cancelled, or whose deadline has passed, before its batch begins is left out of it.

        Args:
            arguments: bound, as `Tool.bind` returns them.
            deadline: on `time.monotonic`'s clock.
        """
        item = _Waiting(arguments, deadline, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._consider()
        return await item.outcome

    def _consider(self) -> None:
        """Start a batch if one is due; see to it that the next is, when it is not."""
        if self._busy:
            return
        while self._waiting and self._waiting[0].outcome.done():  # it was cancelled
            self._waiting.popleft()
        if not self._waiting:
            return
        due = self._waiting[0].arrived + self._max_wait - time.monotonic()
        if len(self._waiting) >= self._max_size or due <= 0:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._consider()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [self._waiting.popleft() for _ in range(min(self._max_size, len(self._waiting)))]
        self._busy = True
        loop = asyncio.get_running_loop()
        self._thread.submit(self._compute, loop, batch)

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        """In the thread."""
        now = time.monotonic()
        in_time = [item for item in batch if item.deadline > now and not item.outcome.done()]
        outcomes: Sequence[Outcome] = ()
        if in_time:
            self._started([now - item.arrived for item in in_time])
            outcomes = self._outcomes([item.arguments for item in in_time])
        try:
            loop.call_soon_threadsafe(self._deliver, in_time, outcomes)
        except RuntimeError:  # the loop has ended: nobody waits any more
            log.warning("a batch of %s ended after the server", self._name)

    def _outcomes(self, calls: list[Mapping[str, Any]]) -> Sequence[Outcome]:
        """One by one where the batch fails as a whole: a bad call must not fail its neighbours."""
        try:
            outcomes = self._run_batch(calls)
            if len(outcomes) != len(calls):
                raise RuntimeError(f"{self._name} gave {len(outcomes)} results for {len(calls)} calls")
            return outcomes
        except InfrastructureError as error:
            return [error] * len(calls)
        except Exception as error:
            if len(calls) == 1:
                return [error]
            log.exception("a batch of %d calls of %s failed; they are computed one by one", len(calls), self._name)
            return [self._outcomes([call])[0] for call in calls]

    def _deliver(self, items: list[_Waiting], outcomes: Sequence[Outcome]) -> None:
        """Back on the loop. Calls that were too late have ended by their own deadline."""
        self._busy = False
        for item, outcome in zip(items, outcomes, strict=True):
            if not item.outcome.done():
                item.outcome.set_result(outcome)
        self._consider()
