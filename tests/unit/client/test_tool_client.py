"""`ToolClient` against real servers, and against servers that misbehave as only a stub can."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from PIL import Image as Pillow

from tests.support.serving.sample_servers import spec
from thinkimg import wire
from thinkimg.client import ResultCache, ToolClient
from thinkimg.client.dispatch import INLINE_BYTES
from thinkimg.client.tool_client import UNKNOWN_TOOL
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image
from thinkimg.results import ToolErrors
from thinkimg.serving import Supervisor
from thinkimg.tools.tool import ToolResult, ToolSchema

T = TypeVar("T")
Start = Callable[..., Supervisor]


def using(work: Callable[[ToolClient], Awaitable[T]], *urls: str, **settings: Any) -> T:
    async def run() -> T:
        async with ToolClient(urls, **settings) as client:
            return await work(client)

    return asyncio.run(run())


def noise(side: int = 60) -> Image:
    return Image.from_pixels(Pillow.effect_noise((side, side), 90))


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_over_http(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        image = noise()
        outcome = await client.call(
            "CROP_", {"image": "img_2", "box": [0, 0, 50, 100]}, {"img_1": noise(9), "img_2": image}
        )
        assert (outcome.result.images[0].width, outcome.cached) == (30, False)
        assert 0 < outcome.seconds < 10
        assert client.schemas["Crop"].image_parameters == ("image",)
        assert client.stats()["Crop"].http_calls == 1

    using(work, sample_url)


@pytest.mark.parametrize(
    ("tool", "arguments", "kind", "said"),
    [
        ("Corp", {}, "unknown_tool", "Did you mean Crop?"),
        ("Crop", {"image": "img_3", "box": [0, 0, 1, 1]}, "bad_arguments", "The images are img_1"),
        ("Crop", {"image": 3, "box": [0, 0, 1, 1]}, "bad_arguments", "image"),
        ("Crop", {"image": "img_1"}, "bad_arguments", "missing"),
        ("Fail", {"how": "model"}, "refused", "nothing to see"),
        ("Echo", {"text": 2**70}, "bad_arguments", "cannot be sent"),
        ("Echo", {"text": "\ud800"}, "bad_arguments", "cannot be sent"),
        ("Echo", {"text": object()}, "bad_arguments", ""),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_the_models_mistakes_are_told_to_the_model(
    sample_url: str, tool: str, arguments: dict[str, Any], kind: str, said: str, cached: bool
) -> None:
    async def work(client: ToolClient) -> None:
        with pytest.raises(ModelError) as caught:
            await client.call(tool, arguments, {"img_1": noise()})
        assert caught.value.kind == kind
        assert said in str(caught.value) or cached
        assert client.stats()[UNKNOWN_TOOL if kind == "unknown_tool" else tool].errors.model == 1

    using(work, sample_url, cache=ResultCache() if cached else None)


def test_a_bug_of_a_tool_is_retried_and_then_the_infrastructures(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        with pytest.raises(InfrastructureError, match="2 attempts"):
            await client.call("Fail", {"how": "bug"}, {})
        stats = client.stats()["Fail"]
        assert (stats.http_calls, stats.retries, stats.errors) == (1, 1, ToolErrors(model=0, infrastructure=1))

    using(work, sample_url, retries=1)


def test_the_deadline_is_of_the_whole_call(sample_url: str) -> None:
    async def work(client: ToolClient) -> float:
        started = time.monotonic()
        with pytest.raises(InfrastructureError):
            await client.call("Sleep", {"seconds": 5}, {})
        return time.monotonic() - started

    assert using(work, sample_url, timeout_seconds=0.5) < 4


def test_a_closed_client_says_so(sample_url: str) -> None:
    async def work() -> None:
        client = ToolClient([sample_url])
        with pytest.raises(InfrastructureError, match="not connected"):
            await client.call("Echo", {"text": "a"}, {})
        async with client:
            pending = asyncio.create_task(client.call("Sleep", {"seconds": 2}, {}))
            await asyncio.sleep(0.2)
        with pytest.raises(InfrastructureError):
            await pending
        async with client:  # and can be opened again
            assert (await client.call("Echo", {"text": "a"}, {})).result.text == "a"
        assert client.stats()["Sleep"].http_calls == 1

    asyncio.run(work())


def test_one_client_serves_one_event_loop_after_another(sample_url: str) -> None:
    client = ToolClient([sample_url])

    async def work() -> None:
        async with client:
            await asyncio.gather(*(client.call("Echo", {"text": str(n)}, {}) for n in range(300)))

    asyncio.run(work())
    asyncio.run(work())
    assert client.stats()["Echo"].http_calls == 600


# ---- connecting ------------------------------------------------------------------------------------------------------


def test_nobody_there_is_the_infrastructures_fault() -> None:
    with pytest.raises(InfrastructureError, match=r"http://127\.0\.0\.1:9"):
        using(lambda client: asyncio.sleep(0), "http://127.0.0.1:9", timeout_seconds=0.3)


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://x"])
def test_a_wrong_address_is_the_users_fault(url: str) -> None:
    with pytest.raises(UserError):
        using(lambda client: asyncio.sleep(0), url, timeout_seconds=0.3)


def test_a_wrong_key_is_the_users_fault(start: Start) -> None:
    url = start(spec("locked", "echo", api_key="right")).endpoints[0]
    for keys in ({}, {url: "wrong"}, {url: "new\nline"}):
        with pytest.raises(UserError):
            using(lambda client: asyncio.sleep(0), url, api_keys=keys)
    echo = using(lambda client: client.call("Echo", {"text": "a"}, {}), url, api_keys={url + "/": "right\n"})
    assert echo.result.text == "a"


# ---- pictures --------------------------------------------------------------------------------------------------------


@contextmanager
def counted_bytes(url: str) -> Iterator[tuple[str, list[int]]]:
    """A proxy that counts what goes to the server."""
    host, _, port = url.removeprefix("http://").partition(":")
    total = [0]

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool) -> None:
        while data := await reader.read(65536):
            total[0] += len(data) if count else 0
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, back, True), pipe(there, writer, False), return_exceptions=True)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", total
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.parametrize("together", [False, True])
def test_a_large_picture_travels_once(sample_url: str, together: bool) -> None:
    image = noise(1500 + together)
    assert len(image.data) > 10 * INLINE_BYTES

    async def work(client: ToolClient) -> None:
        calls = [client.call("Crop", {"image": "i", "box": [0, 0, 1, 1 + n]}, {"i": image}) for n in range(10)]
        if together:
            await asyncio.gather(*calls)
        for call in [] if together else calls:
            await call

    with counted_bytes(sample_url) as (url, total):
        using(work, url)
    assert total[0] <= 1.1 * len(image.data)


def test_small_pictures_and_the_servers_own_travel_once(sample_url: str) -> None:
    image = noise(150)
    assert len(image.data) < INLINE_BYTES

    async def work(client: ToolClient) -> None:
        crop = (await client.call("Crop", {"image": "i", "box": [0, 0, 99, 99]}, {"i": image})).result.images[0]
        for _ in range(5):
            await client.call("Size", {"image": "i"}, {"i": image})
            await client.call("Size", {"image": "i"}, {"i": crop})

    with counted_bytes(sample_url) as (url, total):
        using(work, url)
    assert total[0] <= 1.1 * len(image.data) + 11 * 500


def test_a_picture_that_the_server_dropped_is_sent_again(start: Start) -> None:
    image, other = noise(50), noise(51)
    url = start(spec("forgetful", "size", image_store_bytes=len(other.data) + 10)).endpoints[0]

    async def work(client: ToolClient) -> None:
        for _ in range(3):
            assert (await client.call("Size", {"image": "i"}, {"i": image})).result.text == "50x50"
            assert (await client.call("Size", {"image": "i"}, {"i": other})).result.text == "51x51"
        assert client.stats()["Size"].retries == 0

    using(work, url)


def test_a_large_picture_works_where_the_server_keeps_none(start: Start) -> None:
    image = noise(400)
    assert len(image.data) > INLINE_BYTES
    url = start(spec("amnesiac", "size", image_store_bytes=0)).endpoints[0]
    outcome = using(lambda client: client.call("Size", {"image": "i"}, {"i": image}), url)
    assert outcome.result.text == "400x400"


def test_a_picture_too_large_for_the_server_is_refused_in_words(start: Start) -> None:
    url = start(spec("small", "size", max_image_bytes=1000)).endpoints[0]
    for image in (noise(60), noise(400)):
        with pytest.raises(ModelError) as caught:
            using(lambda client, image=image: client.call("Size", {"image": "i"}, {"i": image}), url)
        assert caught.value.kind == "refused"


# ---- cache -----------------------------------------------------------------------------------------------------------


def test_the_same_call_is_made_once(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        first = await client.call("Count", {"key": "cache"}, {})
        second = await client.call("count", {"key": "cache"}, {})
        assert (first.result, first.cached, second.cached) == (second.result, False, True)
        stats = client.stats()["Count"]
        assert (stats.http_calls, stats.cache_hits) == (1, 1)

    using(work, sample_url, cache=ResultCache())


def test_without_a_cache_every_call_is_made(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        outcomes = await asyncio.gather(*(client.call("Count", {"key": "no cache"}, {}) for _ in range(5)))
        assert sorted(outcome.result.text for outcome in outcomes) == ["1", "2", "3", "4", "5"]
        assert client.stats()["Count"].http_calls == 5

    using(work, sample_url)


def test_identical_calls_at_once_share_one_request(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        outcomes = await asyncio.gather(*(client.call("Sleep", {"seconds": 0.2}, {}) for _ in range(8)))
        assert sorted(outcome.cached for outcome in outcomes) == [False] + [True] * 7
        stats = client.stats()["Sleep"]
        assert (stats.http_calls, stats.cache_hits) == (1, 7)

    using(work, sample_url, cache=ResultCache())


def test_a_shared_request_outlives_the_caller_who_gave_up(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        first = asyncio.create_task(client.call("Sleep", {"seconds": 0.31}, {}))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(client.call("Sleep", {"seconds": 0.31}, {}))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).result.text == "slept 0.31"
        lonely = asyncio.create_task(client.call("Sleep", {"seconds": 3}, {}))
        await asyncio.sleep(0.05)
        lonely.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lonely
        await asyncio.sleep(0.05)
        assert client.replicas[0].outstanding == 0

    using(work, sample_url, cache=ResultCache())


def test_errors_of_arguments_are_not_kept(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        for _ in range(2):
            with pytest.raises(ModelError):
                await client.call("Echo", {"txt": "a"}, {})
        stats = client.stats()["Echo"]
        assert (stats.http_calls, stats.cache_hits) == (2, 0)

    using(work, sample_url, cache=ResultCache())


def test_callers_share_no_result_and_no_request(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        names = ("alice", "bob", "")
        outcomes = await asyncio.gather(*(client.call("Count", {"key": "callers"}, {}, caller=name) for name in names))
        assert sorted(outcome.result.text for outcome in outcomes) == ["1", "2", "3"]
        again = await client.call("Count", {"key": "callers"}, {}, caller="bob")
        assert (again.result, again.cached) == (outcomes[1].result, True)

    using(work, sample_url, cache=ResultCache())


def test_what_a_tool_finds_is_kept_and_errors_of_the_infrastructure_are_not(sample_url: str) -> None:
    async def work(client: ToolClient) -> None:
        for how, error in (("model", ModelError), ("bug", InfrastructureError)):
            for _ in range(2):
                with pytest.raises(error):
                    await client.call("Fail", {"how": how}, {})
        stats = client.stats()["Fail"]
        assert (stats.http_calls, stats.cache_hits) == (3, 1)
        assert stats.errors == ToolErrors(model=2, infrastructure=2)

    using(work, sample_url, cache=ResultCache(), retries=0)


def test_results_on_disk_serve_the_next_run(sample_url: str, tmp_path: Path) -> None:
    def run() -> tuple[ToolResult, bool, int]:
        async def work(client: ToolClient) -> tuple[ToolResult, bool, int]:
            outcome = await client.call("Crop", {"image": "img_1", "box": [0, 0, 50, 50]}, {"img_1": noise_image})
            return outcome.result, outcome.cached, client.stats()["Crop"].http_calls

        return using(work, sample_url, cache=ResultCache(folder=tmp_path))

    noise_image = noise(33)
    first, second = run(), run()
    assert first[0] == second[0]
    assert (first[1:], second[1:]) == ((False, 1), (True, 0))
    for path in tmp_path.rglob("*.msgpack"):
        path.write_bytes(b"damaged")
    assert run()[1:] == (False, 1)


# ---- replicas --------------------------------------------------------------------------------------------------------


def test_a_restarted_single_server_costs_no_call(start: Start) -> None:
    supervisor = start(spec("only", "echo", "size"))
    image = noise()

    async def work(client: ToolClient) -> None:
        await client.call("Size", {"image": "i"}, {"i": image})
        os.kill(supervisor.pids["only"], signal.SIGTERM)
        assert (await client.call("Size", {"image": "i"}, {"i": image})).result.text == "60x60"
        await until(lambda: supervisor.restarts == 1)
        assert (await client.call("Size", {"image": "i"}, {"i": image})).result.text == "60x60"

    using(work, *supervisor.endpoints, retries=8)


def test_a_busy_server_is_waited_for(start: Start) -> None:
    url = start(spec("narrow", "sleep", workers=1, max_queue=1)).endpoints[0]

    async def work(client: ToolClient) -> None:
        await asyncio.gather(*(client.call("Sleep", {"seconds": 0.02}, {}) for _ in range(8)))
        assert client.stats()["Sleep"].errors.infrastructure == 0

    using(work, url, retries=0)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


# ---- servers that misbehave ------------------------------------------------------------------------------------------

SCHEMA = ToolSchema(name="Echo", version="1", description="", parameters={})


@contextmanager
def stub(answer: Callable[[BaseHTTPRequestHandler], None], schema: ToolSchema = SCHEMA) -> Iterator[str]:
    """A server whose POST is answered by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply(
                self, 200, wire.encode({"version": 1, "tools": [schema.model_dump()], "new": 1}, wire.JSON), wire.JSON
            )

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, media_type: str = wire.MSGPACK) -> None:
    handler.send_response(status)
    handler.send_header("content-type", media_type)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x")
    handler.close_connection = True


MISBEHAVIOUR = {
    "hangs": hang,
    "cuts the answer": cut,
    "answers rubbish": lambda handler: reply(handler, 200, b"rubbish"),
    "answers another shape": lambda handler: reply(handler, 200, wire.encode([1], wire.MSGPACK)),
    "is a proxy without a server": lambda handler: reply(handler, 502, b"<html>Bad gateway</html>", "text/html"),
    "never knows pictures": lambda handler: reply(
        handler, 409, wire.encode(wire.Problem(409, "infrastructure", "missing_images", "").as_document(), wire.JSON)
    ),
}


@pytest.mark.parametrize("behaviour", MISBEHAVIOUR)
def test_another_replica_answers_for_one_that_misbehaves(sample_url: str, behaviour: str) -> None:
    async def work(client: ToolClient) -> dict[str, int]:
        for n in range(6):
            assert (await client.call("Echo", {"text": str(n)}, {})).result.text == str(n)
        return {replica.url: replica.requests for replica in client.replicas}

    listing = httpx.get(f"{sample_url}/v1/tools").json()["tools"]
    schema = next(tool for tool in listing if tool["name"] == "Echo")
    with stub(MISBEHAVIOUR[behaviour], ToolSchema.model_validate(schema)) as bad:
        requests = using(work, sample_url, bad, timeout_seconds=1.5)
    if behaviour in ("hangs", "cuts the answer", "is a proxy without a server"):
        assert requests[bad] <= 4  # the listing, one call, probes


def test_replicas_must_agree(sample_url: str) -> None:
    with stub(hang) as other, pytest.raises(UserError, match="version"):
        using(lambda client: asyncio.sleep(0), sample_url, other)


def test_something_else_than_a_tool_server_is_the_users_fault() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self, 200, b"<html>", "text/html")

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match="not a tool server"):
        using(lambda client: asyncio.sleep(0), f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


# ---- queues ----------------------------------------------------------------------------------------------------------


def sleeps(client: ToolClient, count: int, seconds: float) -> Awaitable[list[Any]]:
    calls = [client.call("Sleep", {"seconds": seconds}, {}) for _ in range(count)]
    return asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.slow
def test_a_call_that_stands_in_a_queue_waits_as_long_as_the_tool_answers_others(start: Start) -> None:
    """One worker; all calls together take several times as long as one may."""
    url = start(spec("narrow", "sleep", workers=1)).endpoints[0]
    hurried = using(lambda client: sleeps(client, 8, 0.4), url, timeout_seconds=1.2, retries=0)
    assert {type(one) for one in hurried if isinstance(one, Exception)} == {InfrastructureError}
    patient = using(lambda client: sleeps(client, 8, 0.4), url, timeout_seconds=1.2, retries=0, patience=20)
    assert [one for one in patient if isinstance(one, Exception)] == []


@pytest.mark.slow
def test_a_call_that_hangs_is_given_up_however_patient_the_client_is(start: Start) -> None:
    url = start(spec("narrow", "sleep", workers=1)).endpoints[0]
    (lost,) = using(lambda client: sleeps(client, 1, 20.0), url, timeout_seconds=0.5, retries=0, patience=20)
    assert isinstance(lost, InfrastructureError)
