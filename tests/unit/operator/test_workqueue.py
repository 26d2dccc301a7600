"""The work queue, under a clock that jumps: no test waits."""

import asyncio
import selectors
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thinkimg_operator.kinds import Key
from thinkimg_operator.metrics import Metrics
from thinkimg_operator.workqueue import Priority, WorkQueue

A, B, C = (Key("VisionTool", "team", name) for name in "abc")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("nothing is going to happen any more")
        self.loop.now += max(timeout, 0)
        return super().select(0)


def run(scenario):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(scenario())


def queue(**options) -> WorkQueue:
    return WorkQueue("test", Metrics(), clock=asyncio.get_running_loop().time, **options)


async def drained(work: WorkQueue) -> list[Key]:
    taken = []
    while len(work):
        key = await work.get()
        taken.append(key)
        work.done(key)
    return taken


def test_a_key_added_often_is_worked_on_once():
    async def scenario():
        work = queue()
        for key in (A, B, A, A):
            work.add(key)
        assert await drained(work) == [A, B]

    run(scenario)


def test_a_change_goes_before_the_resync_also_when_it_comes_later():
    async def scenario():
        work = queue()
        work.add(A, Priority.RESYNC)
        work.add(B, Priority.RESYNC)
        work.add(C, Priority.CHANGE)
        work.add(B, Priority.CHANGE)
        work.add(C, Priority.RESYNC)
        assert await drained(work) == [C, B, A]

    run(scenario)


def test_an_ending_overtakes_news_of_the_same_object_and_of_others_that_wait_already():
    async def scenario():
        work = queue()
        work.add_after(A, 1, Priority.NEWS)
        work.add_after(B, 1, Priority.NEWS)
        work.add_after(B, 2, Priority.CHANGE)
        await asyncio.sleep(3)
        assert await drained(work) == [B, A]

    run(scenario)


def test_what_is_added_during_work_is_worked_on_again_and_never_twice_at_a_time():
    async def scenario():
        work = queue()
        work.add(A)
        key = await work.get()
        work.add(A)
        work.add(A)
        assert len(work) == 0
        work.done(key)
        assert await drained(work) == [A]

    run(scenario)


def test_the_earliest_delay_counts_and_work_cancels_it():
    async def scenario():
        loop = asyncio.get_running_loop()
        work = queue()
        work.add_after(A, 10)
        work.add_after(A, 5)
        work.add_after(A, 20)
        key = await work.get()
        assert (key, loop.time()) == (A, 5)
        work.done(key)
        work.add_after(A, 10)
        work.add_after(A, 20, Priority.NEWS)
        work.add(A)
        work.done(await work.get())
        await asyncio.sleep(30)
        assert len(work) == 0

    run(scenario)


def test_failures_wait_longer_each_time_up_to_a_limit_until_one_succeeds():
    async def scenario():
        work = queue(first_backoff=1, longest_backoff=8)
        pauses = []
        for _ in range(6):
            work.add(A)
            key = await work.get()
            pauses.append(work.retry(key))
            work.done(key)
        for pause, nominal in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
            assert 0.8 * nominal <= pause <= 1.2 * nominal
        assert work.retry(A, at_least=30) == 30
        work.forget_failures(A)
        assert work.retry(A) <= 1.2

    run(scenario)


def test_a_waiting_worker_is_woken_and_a_cancelled_one_takes_nothing_with_it():
    async def scenario():
        work = queue()
        impatient = asyncio.create_task(work.get())
        patient = asyncio.create_task(work.get())
        await asyncio.sleep(0)
        impatient.cancel()
        work.add_after(A, 3)
        assert await patient == A

    run(scenario)


def test_ages_tell_a_stuck_queue():
    async def scenario():
        work = queue()
        assert (work.longest_waiting, work.longest_working, work.idle) == (0, 0, True)
        work.add(A)
        work.add(B)
        await asyncio.sleep(2)
        key = await work.get()
        await asyncio.sleep(3)
        assert (work.longest_waiting, work.longest_working, work.idle) == (5, 3, False)
        work.done(key)
        assert work.longest_working == 0

    run(scenario)


@pytest.mark.parametrize("workers", [1, 4])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    adds=st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.sampled_from(Priority), st.integers(0, 5), st.booleans()), max_size=20
    )
)
def test_nothing_added_is_lost_whatever_the_order(workers, adds):
    """After the last add of a key there is always a start of work on it; and never two at a time."""

    async def scenario():
        loop = asyncio.get_running_loop()
        work = queue()
        started = defaultdict(lambda: -1.0)
        running = set()

        async def worker():
            while True:
                key = await work.get()
                assert key not in running
                running.add(key)
                started[key] = loop.time()
                await asyncio.sleep(0.5)
                running.discard(key)
                work.done(key)

        tasks = [asyncio.create_task(worker()) for _ in range(workers)]
        added = {}
        for key, priority, pause, delayed in adds:
            if delayed:
                work.add_after(key, pause, priority)
            else:
                work.add(key, priority)
            added[key] = loop.time()
            await asyncio.sleep(pause / 10)
        await asyncio.sleep(100)
        assert work.idle
        assert all(started[key] >= when for key, when in added.items())
        for task in tasks:
            assert not task.done()
            task.cancel()

    run(scenario)
