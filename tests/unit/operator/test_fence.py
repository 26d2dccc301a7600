"""What a process that no longer leads has prepared never leaves it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import uvloop
from aiohttp import web
from kubernetes.aio.client import Configuration
from thinkimg_operator.fence import fenced_client


def test_a_request_under_way_is_held_back_where_it_would_leave() -> None:
    asyncio.run(_hold_back())


async def _hold_back() -> None:
    arrived: list[str] = []

    async def note(request: web.Request) -> web.Response:
        arrived.append(await request.text())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/", note)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    leads = True
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = fenced_client(configuration, lambda: leads)
    headers = {"Content-Type": "application/json"}
    try:
        for number in (1, 2):  # over one connection
            await api.rest_client.request("POST", configuration.host, headers=headers, body={"number": number})
        leads = False
        with pytest.raises((aiohttp.ClientError, OSError), match="lease"):
            await api.rest_client.request("POST", configuration.host, headers=headers, body={"number": 3})
        await asyncio.sleep(0.1)
        assert arrived == ['{"number": 1}', '{"number": 2}']
    finally:
        await api.close()
        await runner.cleanup()


def test_a_loop_that_would_send_past_the_fence_is_refused() -> None:
    async def connect() -> None:
        fenced_client(Configuration(), lambda: True)

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
        pytest.raises(RuntimeError, match="own event loop"),
    ):
        loop.run(connect())
