"""Replicas that die, restart, hang, lag, or come and go with a DNS name, while calls are made. All are real servers."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.support.serving.sample_servers import Start, spec
from thinkimg.client import ToolClient
from thinkimg.client.replica import Replica
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.results import ToolErrors
from thinkimg.serving import Supervisor

CALLERS = 12
DEADLINE_SECONDS = 20.0
CHART = Image.from_pixels(Pillow.effect_noise((160, 120), 60).convert("RGB"))


class Load:
    """Callers of a drawing tool, each as fast as it gets answers."""

    def __init__(self, client: ToolClient) -> None:
        self._client = client
        self._ending = False
        self.failures: list[str] = []
        self.seconds: list[float] = []

    async def caller(self, number: int) -> None:
        turn = 0
        while not self._ending:
            turn += 1
            arguments = {"image": "img_1", "y": (number * 7.3 + turn * 0.01) % 100}
            try:
                outcome = await self._client.call("DrawHorizontalLineByY", arguments, {"img_1": CHART})
                assert (outcome.result.images[0].width, outcome.result.images[0].height) == (160, 120)
                self.seconds.append(outcome.seconds)
            except Exception as error:
                self.failures.append(repr(error))

    async def more(self, calls: int) -> None:
        """Returns when so many further calls were answered."""
        wanted = len(self.seconds) + calls
        await until(lambda: len(self.seconds) >= wanted or bool(self.failures), 120)

    def end(self) -> None:
        self._ending = True


@asynccontextmanager
async def load(client: ToolClient) -> AsyncIterator[Load]:
    """Runs while the block does; then no call has failed and none has taken longer than its deadline."""
    work = Load(client)
    callers = [asyncio.create_task(work.caller(number)) for number in range(CALLERS)]
    try:
        yield work
    finally:
        work.end()
        await asyncio.gather(*callers)
    assert work.failures == []
    assert max(work.seconds) < DEADLINE_SECONDS
    assert client.stats()["DrawHorizontalLineByY"].errors == ToolErrors(model=0, infrastructure=0)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def using(work: Callable[[ToolClient], Awaitable[None]], *endpoints: str, **settings: Any) -> None:
    async def run() -> None:
        async with ToolClient(endpoints, timeout_seconds=DEADLINE_SECONDS, **settings) as client:
            await work(client)

    asyncio.run(run())


def replica_at(client: ToolClient, url: str) -> Replica:
    return next(replica for replica in client.replicas if replica.url == url)


def twins(start: Start) -> Supervisor:
    return start(spec("a", "DrawHorizontalLineByY"), spec("b", "DrawHorizontalLineByY"))


def test_a_replica_that_is_killed_under_load_costs_no_call(start: Start) -> None:
    supervisor = twins(start)

    async def work(client: ToolClient) -> None:
        async with load(client) as calls:
            await calls.more(60)
            killed = replica_at(client, supervisor.endpoints[0])
            await until(lambda: killed.outstanding >= 3)
            os.kill(supervisor.pids["a"], signal.SIGKILL)
            await until(lambda: supervisor.restarts == 1)
            await calls.more(60)
            await until(lambda: not any(replica.set_aside for replica in client.replicas))
            before = killed.requests
            await until(lambda: killed.requests > before + 10)  # it works again
        assert client.stats()["DrawHorizontalLineByY"].retries > 0

    using(work, *supervisor.endpoints)


def test_a_rolling_restart_of_all_replicas_costs_no_call(start: Start) -> None:
    supervisor = twins(start)

    async def work(client: ToolClient) -> None:
        async with load(client) as calls:
            for number, name in enumerate(("a", "b"), start=1):
                await calls.more(40)
                os.kill(supervisor.pids[name], signal.SIGTERM)
                await until(lambda number=number: supervisor.restarts == number)  # type: ignore[misc]
                await until(lambda: all(status.state == "ready" for status in supervisor.statuses()))
                await until(lambda: not any(replica.set_aside for replica in client.replicas))
            await calls.more(40)

    using(work, *supervisor.endpoints)


def test_a_replica_that_hangs_is_set_aside_and_taken_back_when_it_answers(start: Start) -> None:
    supervisor = twins(start)
    frozen = supervisor.pids["a"]

    async def work(client: ToolClient) -> None:
        hanging = replica_at(client, supervisor.endpoints[0])
        async with load(client) as calls:
            await calls.more(40)
            os.kill(frozen, signal.SIGSTOP)
            try:
                await until(lambda: hanging.set_aside)
                await calls.more(40)
            finally:
                os.kill(frozen, signal.SIGCONT)
            await until(lambda: not hanging.set_aside)
            before = hanging.requests
            await until(lambda: hanging.requests > before + 10)

    using(work, *supervisor.endpoints)


def test_a_replica_that_lags_behind_the_others_is_set_aside(start: Start) -> None:
    supervisor = start(spec("quick", "lag"), spec("slow", "lag", env={"LAG_SECONDS": "2"}, workers=16))

    async def work(client: ToolClient) -> None:
        answered: Counter[str] = Counter()

        async def caller(number: int) -> None:
            for n in range(60):
                answered[(await client.call("Lag", {"text": f"{number} {n}"}, {})).result.text] += 1

        callers = [asyncio.create_task(caller(number)) for number in range(CALLERS)]
        quick, slow = (replica_at(client, url) for url in supervisor.endpoints)
        await until(lambda: slow.set_aside)
        assert slow.slow
        await asyncio.gather(*callers)
        assert not quick.set_aside
        assert answered[str(supervisor.pids["slow"])] < 60 * CALLERS / 5, "only what it had, and a few tries later on"

    using(work, *supervisor.endpoints)


def test_a_hedged_call_is_answered_by_the_second_replica_and_hedging_is_off_unless_asked_for(start: Start) -> None:
    supervisor = start(spec("a", "lag"), spec("b", "lag"))

    async def work(client: ToolClient) -> None:
        for n in range(30):  # how long calls take must be known first
            await client.call("Lag", {"text": str(n)}, {})
        os.kill(supervisor.pids["a"], signal.SIGSTOP)
        try:
            hanging = replica_at(client, supervisor.endpoints[0])
            while not hanging.set_aside:
                await client.call("Lag", {"text": str(time.monotonic())}, {})
        finally:
            os.kill(supervisor.pids["a"], signal.SIGCONT)

    async def hedged(client: ToolClient) -> None:
        await work(client)
        assert client.stats()["Lag"].hedges > 0
        assert client.stats()["Lag"].errors.infrastructure == 0

    async def plain(client: ToolClient) -> None:
        await work(client)
        assert client.stats()["Lag"].hedges == 0

    using(hedged, *supervisor.endpoints, hedge_at=0.9)
    using(plain, *supervisor.endpoints)


# ---- names that change -----------------------------------------------------------------------------------------------


def test_replicas_come_and_go_with_the_addresses_of_a_name(start: Start) -> None:
    one = start(spec("one", "lag", host="127.0.0.1"))
    port = int(one.endpoints[0].rpartition(":")[2])
    other = start(spec("other", "lag", host="127.0.0.2", port=port))
    addresses = ["127.0.0.1"]

    async def resolve(host: str, asked: int) -> list[str]:
        assert (host, asked) == ("tools.test", port)
        if not addresses:
            raise OSError("no address just now")
        return addresses

    async def answered_by(client: ToolClient, calls: int = 16) -> set[str]:
        outcomes = await asyncio.gather(*(client.call("Lag", {"text": f"{n}"}, {}) for n in range(calls)))
        return {outcome.result.text for outcome in outcomes}

    async def work(client: ToolClient) -> None:
        first, second = str(one.pids["one"]), str(other.pids["other"])
        assert await answered_by(client) == {first}
        addresses.append("127.0.0.2")
        await until(lambda: len(client.replicas) == 2)
        assert await answered_by(client) == {first, second}
        addresses.remove("127.0.0.1")
        await until(lambda: len(client.replicas) == 1)
        assert await answered_by(client) == {second}
        addresses.clear()  # a resolver that knows nothing is not believed
        await asyncio.sleep(0.6)
        assert await answered_by(client) == {second}

    using(work, f"dns+http://tools.test:{port}", resolve=resolve, refresh_seconds=0.1)


def test_the_systems_resolver_is_asked(start: Start) -> None:
    supervisor = start(spec("here", "lag"))
    port = supervisor.endpoints[0].rpartition(":")[2]

    async def work(client: ToolClient) -> None:
        assert (await client.call("Lag", {"text": "x"}, {})).result.text == str(supervisor.pids["here"])

    using(work, f"dns+http://localhost:{port}")


@pytest.mark.parametrize("endpoint", ["dns+http://tools", "dns+https://tools:1", "dns+http://tools:x", "dns+tools:1"])
def test_a_name_without_a_port_is_the_users_fault(endpoint: str) -> None:
    with pytest.raises(UserError, match="form dns"):
        using(lambda client: asyncio.sleep(0), endpoint)
