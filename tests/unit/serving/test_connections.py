"""However many connections a server is offered, who asks for something is answered, and the log stays short."""

import ast
import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.support import REPOSITORY
from tests.support.gateway.gateways import Gateway, run_gateway, run_process
from tests.support.serving.sample_servers import ENVIRONMENT, SAMPLE_TOOLS
from thinkimg.serving import connections
from thinkimg.serving.connections import BoundedServer, Connections, raise_file_limit
from thinkimg.serving.health import Health

SILENT = 2000
OPEN_FILES = 1024
ROUNDS = 5


@contextmanager
def tool_server(folder: Path, open_files: int | None) -> Iterator[Gateway]:
    tools = [{"entry_point": f"{SAMPLE_TOOLS}:echo"}]
    with run_process(folder, ["thinkimg.serving"], ENVIRONMENT, open_files, tools=tools) as server:
        yield server


@contextmanager
def gateway(folder: Path, open_files: int | None) -> Iterator[Gateway]:
    with (
        tool_server(folder / "tools", None) as tools,
        run_gateway(folder, open_files=open_files, servers=[{"url": tools.url}]) as server,
    ):
        yield server


def ask(client: Any, url: str) -> int:
    answer = client.post(f"{url}/v1/tools/Echo", json={"arguments": {"text": "hello"}})
    return int(answer.status_code)


@pytest.mark.slow
@pytest.mark.parametrize("door", [tool_server, gateway])
def test_two_thousand_silent_connections_keep_nobody_out(tmp_path: Path, door: Any) -> None:
    assert raise_file_limit() > SILENT + 100, "this test needs more open files"
    with door(tmp_path, OPEN_FILES) as server, ExitStack() as stack:
        host, _, port = server.url.removeprefix("http://").partition(":")
        kept = stack.enter_context(httpx.Client(trust_env=False, timeout=120))
        for _ in range(ROUNDS):
            for _ in range(SILENT // ROUNDS):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=120))
            assert [ask(kept, server.url) for _ in range(4)] == [200] * 4
            with httpx.Client(trust_env=False, timeout=120) as fresh:
                assert ask(fresh, server.url) == 200
                assert [fresh.get(server.url + path).status_code for path in ("/livez", "/readyz")] == [200, 200]
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    closed = [line for line in lines if line["event"] == "closed connections"]
    assert files < OPEN_FILES * 3 // 4
    assert sum(line.get("too_many", 0) for line in closed) >= SILENT - OPEN_FILES // 2
    assert {line["most"] for line in closed} == {OPEN_FILES // 2}
    assert not any("not_accepted" in line for line in closed)
    assert "Traceback" not in server.log
    assert len(lines) < 100


@pytest.mark.slow
def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource; from thinkimg.serving.connections import raise_file_limit; "
        "print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    command = ["sh", "-c", 'ulimit -Sn 200 && ulimit -Hn 700 && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["700", "700", "700"]


def test_no_server_of_ours_is_without_these_bounds() -> None:
    makers = set()
    for path in (REPOSITORY / "thinkimg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            makes = ("uvicorn.Server", "uvicorn.run", "uvicorn.Config")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in makes:
                makers.add(path.name)
    assert makers == {"connections.py"}


# ---- which go -------------------------------------------------------------------------------------------------------


class Connection:
    """What `Connections` looks at of uvicorn's. `state`: headers, idle or busy."""

    def __init__(self, state: str, idle_until: float = 0.0) -> None:
        self.flow = type("Flow", (), {"write_paused": False})()
        self.cycle = None if state == "headers" else type("Cycle", (), {"response_complete": state == "idle"})()
        self.timeout_keep_alive_task = type("Timer", (), {"when": lambda _: idle_until})() if state == "idle" else None
        self.transport = self
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def offered(most: int, *given: Connection, health: Health | None = None) -> Connections:
    found = Connections(most, health or Health())
    for connection in given:
        found.add(connection)
    return found


def test_the_oldest_without_whole_headers_goes_first() -> None:
    silent = [Connection("headers") for _ in range(4)]
    busy = [Connection("busy") for _ in range(2)]
    found = offered(6, busy[0], *silent, busy[1])
    assert not any(connection.aborted for connection in (*busy, *silent))
    for number in range(4):
        found.add(Connection("busy"))
        assert [connection.aborted for connection in silent] == [other <= number for other in range(4)]
    assert not any(connection.aborted for connection in busy)
    assert len(found) == 6


def test_the_larger_group_gives_way() -> None:
    paused, longest = Connection("idle", 20), Connection("idle", 10)
    silent = [Connection("headers") for _ in range(3)]
    found = offered(5, paused, longest, *silent)
    for _ in range(2):
        found.add(Connection("busy"))
    assert [connection.aborted for connection in silent] == [True, True, False]
    assert [paused.aborted, longest.aborted] == [False, False]
    found.add(Connection("busy"))
    assert longest.aborted
    assert not paused.aborted


def test_where_every_connection_has_a_request_there_is_no_room() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    busy = [Connection("busy") for _ in range(8)]
    found = offered(8, *busy, health=health)
    assert not found.full
    found.add(late := Connection("busy"))
    assert found.full
    now[0] = 11
    assert health.overload == "of 8 connections 8 have a request each"
    for connection in (late, *busy[:2]):
        found.discard(connection)
    assert found.full, "it is not free again at once"
    found.discard(busy[2])
    assert (found.full, health.overload) == (False, None)


def test_there_is_one_line_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    found = offered(10, *(Connection("headers") for _ in range(10)))
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            found.add(Connection("headers"))
            now[0] += 0.5
    counts = [vars(record)["too_many"] for record in caplog.records]
    assert counts == [1, *[120] * 8]
    found.say(now=True)
    assert vars(caplog.records[-1])["too_many"] == 39


# ---- a server whose connections all have a request -----------------------------------------------------------------


def test_a_full_server_refuses_by_name_and_answers_its_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MOST_CONNECTIONS", 8)
    asyncio.run(_offer_a_full_server_more())


async def _offer_a_full_server_more() -> None:
    released, waiting = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            waiting.append(scope)
            await released.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = BoundedServer(app, Health(), 60, lifespan="off", log_config=None)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=120, limits=limits) as client:
        slow = [asyncio.create_task(client.get(f"{url}/slow")) for _ in range(8)]
        while len(waiting) < 8:
            await asyncio.sleep(0.01)
        for _ in range(20):
            refused = await client.get(f"{url}/other")
            assert (refused.status_code, refused.json()["kind"]) == (429, "overloaded")
            assert (await client.get(f"{url}/livez")).status_code == 200
        released.set()
        assert [answer.status_code for answer in await asyncio.gather(*slow)] == [200] * 8
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        while (await client.get(f"{url}/other")).status_code == 429:
            await asyncio.sleep(0.05)
    server.should_exit = True
    await serving
