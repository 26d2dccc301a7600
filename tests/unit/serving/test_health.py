"""What probes are told: overload that lasts, never a full moment; and death only of what is stuck."""

import asyncio
import re
import threading
from collections.abc import Iterator

import httpx
import pytest
import yaml

from tests.support import REPOSITORY
from thinkimg import wire
from thinkimg.api.server_contract import HttpPath
from thinkimg.serving import ServerConfig
from thinkimg.serving.health import STUCK_SECONDS, Health
from thinkimg.serving.server import create_app
from thinkimg.serving.service import ToolService
from thinkimg.tools.tool import ToolResult, tool

gate = threading.Event()


@tool(name="Wait", version="1")
def wait(text: str) -> ToolResult:
    """Wait until the test opens the gate.

    Args:
        text: Anything.
    """
    gate.wait()
    return ToolResult(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _shut() -> Iterator[None]:
    gate.clear()
    yield
    gate.set()


def test_a_full_moment_is_no_overload_and_a_lasting_one_is() -> None:
    clock = Clock()
    health = Health(clock=clock)
    assert health.readyz().status_code == 200
    for _ in range(5):
        health.full("queue", "5 calls")
        clock.now += 9.9
        assert health.readyz().status_code == 200
        health.free("queue")
    health.full("queue", "5 calls")
    clock.now += 5
    health.full("bytes", "7 bytes")
    health.full("queue", "6 calls")
    clock.now += 5
    answer = health.readyz()
    assert (answer.status_code, answer.body) == (503, b"not ready: overloaded for 10 s: 5 calls\n")
    clock.now += 5
    assert health.readyz().body == b"not ready: overloaded for 10 s: 5 calls; 7 bytes\n"
    health.free("queue")
    health.free("bytes")
    assert (health.readyz().status_code, health.readyz().body) == (200, b"ready\n")


def test_only_what_is_stuck_is_not_alive() -> None:
    clock = Clock()
    health = Health(lambda: "draining", clock)
    assert health.livez().status_code == 200
    health.full("queue", "5 calls")
    for _ in range(1000):
        health.beat()
        clock.now += 2
        assert health.livez().status_code == 200
    assert (health.readyz().status_code, health.readyz().body) == (503, b"not ready: draining\n")
    clock.now += 59
    answer = health.livez()
    assert (answer.status_code, answer.body) == (503, b"stuck: nobody looks after the connections\n")
    health.beat()
    assert health.livez().status_code == 200


def test_a_tool_server_says_how_full_it_has_been() -> None:
    asyncio.run(_fill_the_queue())


async def _fill_the_queue() -> None:
    clock = Clock()
    config = ServerConfig.model_validate({"tools": [{"entry_point": f"{__name__}:wait"}], "workers": 1, "max_queue": 3})
    service = ToolService(config)
    service.health = Health(service._unready, clock)
    transport = httpx.ASGITransport(create_app(config, service))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

        async def ask() -> int:
            content = wire.encode({"arguments": {"text": "x"}}, wire.JSON)
            answer = await client.post("/v1/tools/Wait", content=content, headers={"content-type": wire.JSON})
            return answer.status_code

        async def ready() -> tuple[int, str]:
            answer = await client.get("/readyz")
            assert (await client.get("/livez")).text == "alive\n"
            return answer.status_code, answer.text

        assert await ready() == (503, "not ready: loading\n")
        service.load()
        assert await ready() == (200, "ready\n")
        calls = [asyncio.create_task(ask()) for _ in range(4)]
        while service.in_flight < 4:
            await asyncio.sleep(0.01)
        clock.now += 100
        assert await ready() == (200, "ready\n"), "full, and nobody was refused"
        assert await ask() == 429
        assert await ready() == (200, "ready\n")
        clock.now += 10
        why = "4 calls are under way, as many as may wait or run"
        assert await ready() == (503, f"not ready: overloaded for 10 s: {why}\n")
        gate.set()
        assert await asyncio.gather(*calls) == [200] * 4
        assert await ready() == (200, "ready\n")
        service.draining = True
        assert await ready() == (503, "not ready: draining\n")


def test_a_tool_server_says_that_bodies_have_no_room() -> None:
    asyncio.run(_fill_the_budget())


async def _fill_the_budget() -> None:
    clock = Clock()
    settings = {"tools": [{"entry_point": f"{__name__}:wait"}], "max_pending_bytes": 100}
    config = ServerConfig.model_validate(settings)
    service = ToolService(config)
    service.health = Health(service._unready, clock)
    transport = httpx.ASGITransport(create_app(config, service))
    service.load()
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = {"content-type": wire.JSON}
        body = wire.encode({"arguments": {"text": "x" * 60}}, wire.JSON)
        held = asyncio.create_task(client.post("/v1/tools/Wait", content=body, headers=headers))
        while not service.in_flight:
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/tools/Wait", content=body, headers=headers)).status_code == 429
        clock.now += 10
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert f"requests of {len(body)} bytes are under way; at most 100 are held at one time" in answer.text
        gate.set()
        assert (await held).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


def test_the_gateways_chart_asks_what_it_is_to_ask() -> None:
    text = (REPOSITORY / "charts" / "thinkimg-tools" / "templates" / "gateway.yaml").read_text()
    found = {name: yaml.safe_load(probe) for name, probe in re.findall(r"(\w+)Probe: (\{.*\})", text)}
    paths = {name: probe["httpGet"]["path"] for name, probe in found.items()}
    assert paths == {"startup": HttpPath.LIVE, "liveness": HttpPath.LIVE, "readiness": HttpPath.READY}
    patience = found["liveness"]["periodSeconds"] * found["liveness"]["failureThreshold"]
    assert patience >= STUCK_SECONDS, "a loop that pauses is waited for as long as one whose care has ended"
