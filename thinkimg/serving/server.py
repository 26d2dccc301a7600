"""The HTTP face of one tool server process: wire version 1 of `thinkimg.wire`, probes and metrics."""

import asyncio
import hmac
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkimg import wire
from thinkimg.api.server_contract import HttpPath
from thinkimg.image import is_sha256
from thinkimg.serving.config import ServerConfig
from thinkimg.serving.doors import is_loopback, page_refusal
from thinkimg.serving.health import Health
from thinkimg.serving.service import ProblemError, ToolService

MAX_CALLS = 256
"""Of one batch request."""
_OPEN_PATHS = (HttpPath.LIVE, HttpPath.READY)
_REQUEST_ID = re.compile(r"[\w.\-]{1,64}")
T = TypeVar("T")
log = logging.getLogger(__name__)


def create_app(config: ServerConfig, service: ToolService | None = None) -> FastAPI:
    """The app. Its tools are loaded by `app.state.service.load()`, which the process calls once it listens."""
    app = FastAPI(openapi_url=None)
    app.state.service = service or ToolService(config)
    face = _Face(app.state.service)
    for method, path, handler in (
        ("GET", HttpPath.LIVE, face.livez),
        ("GET", HttpPath.READY, face.readyz),
        ("GET", HttpPath.METRICS, face.metrics_page),
        ("GET", "/v1/tools", face.list_tools),
        ("POST", "/v1/tools/{name}", face.call),
        ("POST", "/v1/batch", face.batch),
        ("PUT", "/v1/images/{sha256}", face.put_image),
        ("HEAD", "/v1/images/{sha256}", face.has_image),
    ):
        app.router.add_route(path, handler, methods=[method], include_in_schema=False)
    app.add_middleware(_Gate, api_key=config.key(os.environ), local_only=is_loopback(config.host))
    return app


class _Gate:
    """Refuses calls without the key and of pages in a browser, and gives every request an id."""

    def __init__(self, app: ASGIApp, api_key: str, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only
        self._expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        problem = self._refusal(scope["path"], headers)
        if problem is None:
            await self._app(scope, receive, send_with_id)
        else:
            await _problem_response(problem)(scope, receive, send_with_id)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> wire.Problem | None:
        if path in _OPEN_PATHS:
            return None
        if refusal := page_refusal(headers, self._local_only):
            return wire.Problem(403, "user", *refusal)
        given = headers.get(b"authorization", b"")
        if self._expected is None or hmac.compare_digest(given, self._expected):
            return None
        return wire.Problem(401, "user", "unauthorised", "the key is missing or wrong")


class _Face:
    """The handlers."""

    def __init__(self, service: ToolService) -> None:
        self._service = service
        self._bodies = _Budget(service.config.max_pending_bytes, service.health)
        self._metrics = metrics = service.metrics
        metrics.in_flight.set_function(lambda: service.in_flight)
        metrics.queue_length.set_function(lambda: service.queue_length)
        metrics.ready.set_function(lambda: float(service.ready))
        metrics.store_bytes.set_function(lambda: service.images.bytes)
        metrics.body_bytes.set_function(lambda: self._bodies.taken)

    async def livez(self, request: Request) -> Response:
        return self._service.health.livez()

    async def readyz(self, request: Request) -> Response:
        return self._service.health.readyz()

    async def metrics_page(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4")

    async def list_tools(self, request: Request) -> Response:
        if not self._service.ready:
            return _problem_response(wire.Problem(503, "infrastructure", "loading", "the tools are not loaded"))
        tools = [schema.model_dump(mode="json") for schema in self._service.schemas]
        return Response(wire.encode({"version": wire.VERSION, "tools": tools}, wire.JSON), media_type=wire.JSON)

    async def call(self, request: Request) -> Response:
        started = time.perf_counter()
        name = "(unknown)"
        try:
            tool = self._service.find(request.path_params["name"])
            name = tool.name
            deadline, caller = self._deadline(request), _caller(request)
            body_type, reply_type = _body_type(request), _reply_type(request)
            with self._bodies.share() as share:
                body = await self._read(request, share)
                work = self._service.execute(
                    tool,
                    lambda: _decoded(lambda: wire.decode_request(body, body_type)),
                    lambda result: _encoded(wire.result_document(result), reply_type),
                    deadline,
                    caller,
                )
                answer = await _unless_left(request, work)
            self._account(request, name, started, None)
            return Response(answer, media_type=reply_type)
        except ProblemError as error:
            self._account(request, name, started, error.problem)
            return _problem_response(error.problem)
        except ClientDisconnect:
            self._log(request, started, 499, tool=name)
            return Response(status_code=499)

    async def batch(self, request: Request) -> Response:
        """Calls run side by side; each has its own result or problem, in the order asked."""

        async def answer() -> Response:
            deadline, caller = self._deadline(request), _caller(request)
            with self._bodies.share() as share:
                body = await self._read(request, share)
                calls = await asyncio.to_thread(_decoded, lambda: wire.decode_batch(body, _body_type(request)))
                if len(calls) > MAX_CALLS:
                    raise ProblemError(_malformed(f"{len(calls)} calls in one batch; at most {MAX_CALLS} are accepted"))
                work = asyncio.gather(*(self._one_of_batch(request, call, deadline, caller) for call in calls))
                results = await _unless_left(request, work)
            reply_type = _reply_type(request)
            return Response(await asyncio.to_thread(_encoded, {"results": results}, reply_type), media_type=reply_type)

        return await self._answered(request, answer)

    async def _one_of_batch(
        self, request: Request, call: wire.CallRequest, deadline: float, caller: str
    ) -> dict[str, Any]:
        started = time.perf_counter()
        name = "(unknown)"
        try:
            tool = self._service.find(call.tool)
            name = tool.name
            document = await self._service.execute(tool, lambda: call, wire.result_document, deadline, caller)
        except ProblemError as error:
            self._account(request, name, started, error.problem)
            return {"problem": error.problem.as_document()}
        self._account(request, name, started, None)
        return {"result": document}

    async def put_image(self, request: Request) -> Response:
        async def answer() -> Response:
            sha256, caller = _sha256(request), _caller(request)
            with self._bodies.share() as share:
                body = await self._read(request, share, self._service.config.max_image_bytes)
                await asyncio.to_thread(self._service.keep, sha256, body, caller)
            return Response(status_code=204)

        return await self._answered(request, answer)

    async def _answered(self, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
        """What `answer` gives, or the problem that it raises; logged unless all went well."""
        started = time.perf_counter()
        try:
            return await answer()
        except ProblemError as error:
            self._log(request, started, error.problem.status, kind=error.problem.kind, path=request.url.path[:200])
            return _problem_response(error.problem)
        except ClientDisconnect:
            self._log(request, started, 499, path=request.url.path[:200])
            return Response(status_code=499)

    async def has_image(self, request: Request) -> Response:
        async def answer() -> Response:
            known = self._service.held(request.path_params["sha256"], _caller(request)) is not None
            return Response(status_code=200 if known else 404)

        return await self._answered(request, answer)

    # ---- parts ------------------------------------------------------------------------------------------------------

    async def _read(self, request: Request, share: "_Share", limit: int | None = None) -> bytes:
        """The body. Raises `ProblemError` 413 above the limit, 429 when all requests together are too much, 408 for a
        client that is too slow."""
        limit = limit or self._service.config.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and (len(declared) > 20 or int(declared) > limit):
            raise ProblemError(_too_large(limit))
        chunks: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(patience := self._service.config.client_seconds):
                async for chunk in request.stream():
                    total += len(chunk)
                    if total > limit:
                        raise ProblemError(_too_large(limit))
                    share.take(len(chunk))
                    chunks.append(chunk)
        except TimeoutError as error:
            detail = f"the body did not arrive within {patience:g} s"
            raise ProblemError(wire.Problem(408, "infrastructure", "slow_body", detail)) from error
        return b"".join(chunks)

    def _deadline(self, request: Request) -> float:
        """Until when the call may take, on `time.monotonic`'s clock; called before the body is read."""
        longest = self._service.config.default_timeout_seconds
        text = request.headers.get(wire.TIMEOUT_HEADER)
        if text is None:
            return time.monotonic() + longest
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise ProblemError(_malformed(f"{wire.TIMEOUT_HEADER} must be a positive number of seconds"))
        return time.monotonic() + min(seconds, longest)

    def _account(self, request: Request, tool: str, started: float, problem: wire.Problem | None) -> None:
        self._metrics.calls.labels(tool).inc()
        self._metrics.seconds.labels(tool).observe(time.perf_counter() - started)
        if problem is not None:
            self._metrics.errors.labels(tool, problem.family, problem.kind).inc()
        kind = problem.kind if problem else None
        self._log(request, started, problem.status if problem else 200, tool=tool, kind=kind)

    def _log(self, request: Request, started: float, status: int, **members: str | None) -> None:
        """One line per call, and per other request that went wrong. 499: the client left."""
        event = "call" if "tool" in members else "request"
        seconds = time.perf_counter() - started
        numbers = {"request_id": request.state.request_id, "status": status, "ms": round(seconds * 1000, 2)}
        log.info(event, extra={**numbers, **members})


class _Budget:
    """Bytes of all bodies that are held at one time. To be used from one event loop."""

    def __init__(self, limit: int, health: Health) -> None:
        self._limit = limit
        self._health = health
        self.taken = 0

    @contextmanager
    def share(self) -> "Iterator[_Share]":
        """One request's; given back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.taken -= share.taken
            self._health.taken("bytes", self.taken, self._limit)

    def take(self, size: int) -> None:
        if self.taken + size > self._limit:
            detail = f"requests of {self.taken:,} bytes are under way; at most {self._limit:,} are held at one time"
            self._health.full("bytes", detail)
            raise ProblemError(wire.Problem(429, "infrastructure", "overloaded", detail))
        self.taken += size


class _Share:
    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self.taken = 0

    def take(self, size: int) -> None:
        """Raises `ProblemError` 429."""
        self._budget.take(size)
        self.taken += size


async def _unless_left(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientDisconnect: it did.
    """
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await task
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()


# ---- documents ------------------------------------------------------------------------------------------------------


def _problem_response(problem: wire.Problem) -> Response:
    headers = {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.status in (429, 503):
        headers["retry-after"] = "1"
    return Response(json.dumps(problem.as_document()), problem.status, headers, media_type=wire.PROBLEM)


def _decoded(decode: Callable[[], T]) -> T:
    try:
        return decode()
    except wire.WireError as error:
        raise ProblemError(_malformed(error)) from error


def _encoded(document: dict[str, Any], media_type: str) -> bytes:
    try:
        return wire.encode(document, media_type)
    except wire.WireError as error:
        log.exception("a tool's result cannot be encoded")
        problem = wire.Problem(
            500, "infrastructure", "tool_failed", "the result cannot be encoded; see the server's log"
        )
        raise ProblemError(problem) from error


def _malformed(error: object) -> wire.Problem:
    return wire.Problem(422, "user", "malformed_request", str(error))


def _too_large(limit: int) -> wire.Problem:
    return wire.Problem(413, "model", "refused", f"The request is too large: at most {limit:,} bytes are accepted.")


def _body_type(request: Request) -> str:
    return wire.media_type_of(request.headers.get("content-type"))


def _reply_type(request: Request) -> str:
    """As the caller accepts; without a wish, as it wrote."""
    accept = request.headers.get("accept", "*/*")
    return wire.media_type_of(accept) if accept != "*/*" else _body_type(request)


def _caller(request: Request) -> str:
    """On whose behalf it is sent; empty if it names nobody. Who has the key is believed."""
    name = request.headers.get(wire.CALLER_HEADER, "")
    if name and not wire.is_caller(name):
        raise ProblemError(_malformed(f"{wire.CALLER_HEADER} must be 1 to 64 letters, digits, dots, dashes"))
    return name


def _sha256(request: Request) -> str:
    text = str(request.path_params["sha256"])
    if not is_sha256(text):
        raise ProblemError(_malformed("an image's address ends with its sha256, 64 hex digits in lower case"))
    return text


def _request_id(given: bytes | None) -> str:
    text = (given or b"").decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex
