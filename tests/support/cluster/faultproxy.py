"""A proxy between an operator and the API server that misbehaves as a test says: it counts writes, loses answers,
answers with errors of its own, hangs, and drops watches."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

FAULT_SECONDS = float(os.environ.get("THINKIMG_FAULT_SECONDS", "60"))
"""How long tests disturb at random; `make soak` disturbs for half an hour in all."""
FAULT_SEED = int(os.environ.get("THINKIMG_FAULT_SEED", "0"))

REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
_SILENT = logging.getLogger("faultproxy")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # connections that break are what this is for
_PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")


@dataclass(frozen=True)
class Fault:
    """What happens to one request."""

    status: int = 0
    """Answered with this code; the API server never sees the request."""
    hang_seconds: float = 0.0
    """Waits this long before anything else."""
    lose_answer: bool = False
    """The API server carries the request out, and the connection ends without its answer."""


@dataclass(frozen=True)
class Request:
    """What a test decides by."""

    method: str
    path: str
    watch: bool
    number: int
    """Of this write, counted from 1; 0 when it only reads. Leases do not count."""

    @property
    def lease(self) -> bool:
        return "/leases" in self.path


class FaultProxy:
    """Runs in a thread of its own. `decide` is asked about every request before it is passed on."""

    def __init__(self, kubeconfig: Path, decide: Callable[[Request], Fault | None] = lambda _: None) -> None:
        self.decide = decide
        self.after: Callable[[Request], None] = lambda _: None
        """Called when the API server has carried a request out, before its answer is passed on."""
        self.writes = 0
        self.written: set[str] = set()
        """Method and path of each write; leases do not count."""
        cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._upstream = cluster["server"]
        inline = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
        self._trust = ssl.create_default_context(cafile=cluster.get("certificate-authority"), cadata=inline or None)
        self._watches: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        self._thread.start()
        assert self._started.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=10)

    def kubeconfig(self, original: Path) -> Path:
        """A copy of a kubeconfig that leads here."""
        config = json.loads(original.read_text())
        config["clusters"][0]["cluster"] = {"server": self.url}
        target = original.with_suffix(f".{self.url.rpartition(':')[2]}.kubeconfig")
        target.touch(mode=0o600)
        target.write_text(json.dumps(config))
        return target

    def drop_watches(self) -> None:
        """Cut every watch that is open."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._watches])

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, logger=_SILENT, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            self._started.set()
            await self._stop.wait()
            for task in self._watches:
                task.cancel()
            await runner.cleanup()

    async def _handle(self, given: web.Request) -> web.StreamResponse:
        request = self._describe(given)
        fault = self.decide(request) or Fault()
        await asyncio.sleep(fault.hang_seconds)
        if fault.status:
            return _refusal(fault.status)
        headers = {name: given.headers[name] for name in _PASSED_ON if name in given.headers}
        url = f"{self._upstream}{given.raw_path}"
        body = await given.read() or None
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(given.method, url, headers=headers, data=body, timeout=timeout) as answer:
            if request.watch and answer.status == 200:
                return await self._pass_on(given, answer)
            content = await answer.read()
        self.after(request)
        if fault.lose_answer:
            _cut(given)
        return web.Response(body=content, status=answer.status, headers={"Content-Type": answer.content_type})

    async def _pass_on(self, given: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass a watch on until one side, or the test, ends it."""
        response = web.StreamResponse(headers={"Content-Type": answer.content_type})
        await response.prepare(given)

        async def copy() -> None:
            with suppress(OSError, aiohttp.ClientError):  # the operator or the API server has gone
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)

        task = asyncio.create_task(copy())
        self._watches.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._watches.discard(task)
            task.cancel()
        if task.cancelled():
            _cut(given)
        return response

    def _describe(self, given: web.Request) -> Request:
        lease = "/leases" in given.path
        writes = given.method != "GET" and not lease
        self.writes += writes
        if writes:
            self.written.add(f"{given.method} {given.path}")
        return Request(given.method, given.path, given.query.get("watch") in ("true", "1"), self.writes * writes)


def _cut(given: web.Request) -> None:
    if given.transport is not None:
        given.transport.abort()


def _refusal(status: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": REASONS[status], "code": status}
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.json_response({**body, "message": "injected by the test"}, status=status, headers=headers)
