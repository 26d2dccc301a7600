"""Batches: they form, they are bounded, and what is no longer wanted is left out of them."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.serving.batching import Batcher
from thinkimg.tools.tool import ToolResult


class Recorder:
    """Doubles numbers, remembers its batches, and waits in the first one until it may go on."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        if not held:
            self.go_on.set()

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        numbers = [call["n"] for call in calls]
        self.batches.append(numbers)
        assert self.go_on.wait(5)
        if -1 in numbers:
            raise RuntimeError("one call breaks the batch")
        if -2 in numbers:
            raise InfrastructureError("the device is gone")
        return [ModelError("odd") if n % 2 else ToolResult(str(2 * n)) for n in numbers]


def soon() -> float:
    return time.monotonic() + 30


async def begun(recorder: Recorder, batches: int) -> None:
    async with asyncio.timeout(10):
        while len(recorder.batches) < batches:
            await asyncio.sleep(0.002)


def test_calls_that_come_together_are_computed_together_and_keep_their_places() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        batcher = Batcher("Double", recorder.run_batch, max_size=8, max_wait_seconds=0.2)
        outcomes = await asyncio.gather(*(batcher.submit({"n": n}, soon()) for n in (2, 3, 4)))
        assert recorder.batches == [[2, 3, 4]]
        assert [type(outcome) for outcome in outcomes] == [ToolResult, ModelError, ToolResult]
        assert [o.text for o in outcomes if isinstance(o, ToolResult)] == ["4", "8"]

    asyncio.run(scenario())


def test_a_full_batch_does_not_wait_and_no_batch_is_larger() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        batcher = Batcher("Double", recorder.run_batch, max_size=2, max_wait_seconds=60)
        started = time.monotonic()
        await asyncio.gather(*(batcher.submit({"n": 2 * n}, soon()) for n in range(6)))
        assert [len(batch) for batch in recorder.batches] == [2, 2, 2]
        assert time.monotonic() - started < 50

    asyncio.run(scenario())


def test_a_call_alone_waits_no_longer_than_it_must() -> None:
    async def scenario() -> None:
        waited: list[float] = []
        batcher = Batcher("Double", Recorder().run_batch, 8, 0.05, waited.extend)
        await batcher.submit({"n": 2}, soon())
        assert len(waited) == 1
        assert waited[0] >= 0.05

    asyncio.run(scenario())


def test_the_next_batch_gathers_while_one_is_computed() -> None:
    async def scenario() -> None:
        recorder = Recorder(held=True)
        batcher = Batcher("Double", recorder.run_batch, max_size=8, max_wait_seconds=0)
        first = asyncio.create_task(batcher.submit({"n": 0}, soon()))
        await begun(recorder, 1)
        others = [asyncio.create_task(batcher.submit({"n": n}, soon())) for n in (2, 4, 6)]
        await asyncio.sleep(0)
        assert batcher.waiting == 3
        recorder.go_on.set()
        await asyncio.gather(first, *others)
        assert recorder.batches == [[0], [2, 4, 6]]

    asyncio.run(scenario())


def test_what_was_given_up_or_is_too_late_is_not_computed() -> None:
    async def scenario() -> None:
        recorder = Recorder(held=True)
        batcher = Batcher("Double", recorder.run_batch, max_size=8, max_wait_seconds=0)
        first = asyncio.create_task(batcher.submit({"n": 0}, soon()))
        await begun(recorder, 1)
        given_up = asyncio.create_task(batcher.submit({"n": 2}, soon()))
        late = asyncio.create_task(batcher.submit({"n": 4}, time.monotonic() + 0.01))
        wanted = asyncio.create_task(batcher.submit({"n": 6}, soon()))
        await asyncio.sleep(0.05)
        given_up.cancel()
        recorder.go_on.set()
        await asyncio.gather(first, wanted)
        assert recorder.batches == [[0], [6]]
        late.cancel()

    asyncio.run(scenario())


def test_a_call_that_breaks_its_batch_does_not_break_its_neighbours() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        batcher = Batcher("Double", recorder.run_batch, max_size=3, max_wait_seconds=1)
        outcomes = await asyncio.gather(*(batcher.submit({"n": n}, soon()) for n in (2, -1, 4)))
        assert [type(outcome) for outcome in outcomes] == [ToolResult, RuntimeError, ToolResult]
        assert recorder.batches == [[2, -1, 4], [2], [-1], [4]]

    asyncio.run(scenario())


def test_a_device_that_is_gone_is_asked_once() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        batcher = Batcher("Double", recorder.run_batch, max_size=2, max_wait_seconds=1)
        outcomes = await asyncio.gather(*(batcher.submit({"n": n}, soon()) for n in (2, -2)))
        assert [type(outcome) for outcome in outcomes] == [InfrastructureError, InfrastructureError]
        assert recorder.batches == [[2, -2]]

    asyncio.run(scenario())
