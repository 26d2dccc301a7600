"""MCP through the official SDK's client: both of its protocols, with a handshake and without."""

import asyncio
import base64
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import mcp_types as types
import pytest
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from PIL import Image as Pillow

from tests.support.gateway.gateways import Gateway
from thinkimg.gateway.mcp_results import content_of
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult

Keyed = tuple[Gateway, str]
pytestmark = pytest.mark.anyio


def picture() -> Image:
    return Image.from_pixels(Pillow.new("RGB", (60, 40), "white"))


@asynccontextmanager
async def session_of(keyed: Keyed, key: str | None = None) -> AsyncIterator[ClientSession]:
    gateway, right = keyed
    headers = {"Authorization": f"Bearer {key or right}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        streamable_http_client(f"{gateway.url}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        yield session


def texts(result: types.CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, types.TextContent))


def images(result: types.CallToolResult) -> list[Image]:
    blocks = [block for block in result.content if isinstance(block, types.ImageContent)]
    return [Image.from_bytes(base64.b64decode(block.data)) for block in blocks]


async def test_tools_are_listed_with_their_schemas(keyed: Keyed) -> None:
    async with session_of(keyed) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    crop = tools["Crop"]
    assert crop.description
    assert crop.input_schema["required"] == ["image", "box"]
    assert "data URL" in crop.input_schema["properties"]["image"]["description"]


async def test_pictures_go_in_and_out_and_go_on_by_handle(keyed: Keyed) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture().data).decode()}"
    async with session_of(keyed) as session:
        cropped = await session.call_tool("Crop", {"image": url, "box": [0, 0, 50, 100]})
        assert not cropped.is_error
        (image,) = images(cropped)
        assert (image.width, image.height) == (30, 40)
        assert cropped.structured_content is None
        (handle,) = re.findall(r"Picture: (img_\w+)", texts(cropped))
        drawn = await session.call_tool("DrawVerticalLineByX", {"image": handle, "x": 50})
        assert images(drawn)[0].pixels().getpixel((15, 20)) == (230, 25, 75)
        bare = await session.call_tool("Size", {"image": base64.b64encode(picture().data).decode()})
        assert texts(bare).startswith("60x40")


async def test_what_goes_wrong_is_a_tool_error(keyed: Keyed) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture().data).decode()}"
    async with session_of(keyed) as session:
        for name, arguments, said in (
            ("DrawVerticalLineByX", {"image": url, "x": 900}, "above 100"),
            ("Crop", {"image": "img_0123456789abcdef", "box": [0, 0, 1, 1]}, "there is no picture"),
            ("Crop", {"image": "https://example.com/a.png", "box": [0, 0, 1, 1]}, "not fetched"),
            ("Crop", {"image": "/etc/passwd", "box": [0, 0, 1, 1]}, "data URL"),
            ("Fail", {"how": "model"}, "nothing to see"),
        ):
            result = await session.call_tool(name, arguments)
            assert result.is_error
            assert said in texts(result)
        with pytest.raises(MCPError, match="There is no tool"):
            await session.call_tool("Nothing", {})


async def test_a_call_can_be_cancelled(keyed: Keyed) -> None:
    gateway, key = keyed

    async def sleeping() -> bool:
        text = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {key}"}).text
        line = 'thinkimg_gateway_tool_calls_total{face="mcp",outcome="cancelled",tool="Sleep"}'
        return line in text

    async with session_of(keyed) as session:
        call = asyncio.ensure_future(session.call_tool("Sleep", {"seconds": 45}))
        await asyncio.sleep(2)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        deadline = time.monotonic() + 120
        while not await sleeping():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert not (await session.call_tool("Echo", {"text": "still here"})).is_error


async def test_a_session_belongs_to_the_key_that_opened_it(keyed: Keyed) -> None:
    from thinkimg.gateway.keys import add_key

    gateway, key = keyed
    other = add_key(gateway.log_path.parent / "keys.json", f"bob-{time.monotonic()}")
    await asyncio.sleep(1.1)
    initialize: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    headers = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {key}"}
    opened = httpx.post(f"{gateway.url}/mcp", json=initialize, headers=headers)
    assert opened.status_code == 200
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
    assert httpx.post(f"{gateway.url}/mcp", json=listing, headers={**headers, **session}).status_code == 200
    theirs = {**headers, **session, "authorization": f"Bearer {other}"}
    assert httpx.post(f"{gateway.url}/mcp", json=listing, headers=theirs).status_code == 404


async def test_results_are_small_and_what_is_large_is_linked(keyed: Keyed) -> None:
    noise = Image.from_pixels(Pillow.frombytes("RGB", (900, 900), random.Random(1).randbytes(3 * 900 * 900)))
    url = f"data:image/png;base64,{base64.b64encode(noise.data).decode()}"
    async with session_of(keyed) as session:
        drawn = await session.call_tool("DrawVerticalLineByX", {"image": url, "x": 50})
        (shown,) = images(drawn)
        (link,) = [block for block in drawn.content if isinstance(block, types.ResourceLink)]
        assert len(shown.data) < 700_000 < link.size
        (whole,) = (await session.read_resource(link.uri)).contents
        assert isinstance(whole, types.BlobResourceContents)
        assert Image.from_bytes(base64.b64decode(whole.blob)).pixels().size == (900, 900)
        assert {template.name for template in (await session.list_resource_templates()).resource_templates} == {
            *("picture", "numbers"),
        }
        with pytest.raises(MCPError, match="it never was"):
            await session.read_resource("thinkimg://pictures/img_0123456789abcdef")


def test_several_large_pictures_share_the_room_of_one() -> None:
    noise = [Pillow.frombytes("RGB", (600, 600), random.Random(n).randbytes(3 * 600 * 600)) for n in range(3)]
    content, _ = content_of(ToolResult("Three.", images=tuple(map(Image.from_pixels, noise))), run_lengths=False)
    shown = [len(block.data) for block in content if isinstance(block, types.ImageContent)]
    assert len(shown) == 3
    assert sum(shown) < 1_000_000


def test_run_lengths_come_when_asked_for_and_many_numbers_are_a_link() -> None:
    mask = {"size": [400, 600], "counts": list(range(3000))}
    result = ToolResult("Segmented.", {"masks": [mask], "area": 12.5})
    ((said, numbers), held) = content_of(result, run_lengths=False)
    assert (said.text, json.loads(numbers.text)) == ("Segmented.", {"masks": [{"size": [400, 600]}], "area": 12.5})  # type: ignore[union-attr]
    assert held is None
    ((_, whole), held) = content_of(result, run_lengths=True)
    assert json.loads(whole.text) == result.data  # type: ignore[union-attr]
    words = ToolResult("Many.", {"words": [f"word {n}" for n in range(1000)]})
    ((_, link), held) = content_of(words, run_lengths=False)
    assert held is not None
    assert (link.uri, json.loads(held.text)) == (held.uri, words.data)  # type: ignore[union-attr]


def test_there_is_no_stream_from_the_server(keyed: Keyed) -> None:
    gateway, key = keyed
    assert httpx.get(f"{gateway.url}/mcp", headers={"authorization": f"Bearer {key}"}).status_code == 405
