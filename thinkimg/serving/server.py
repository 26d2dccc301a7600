"""The HTTP face of one tool server process: wire version 1 of `thinkimg.client.wire`, probes and metrics."""

import asyncio
import hmac
import json
import logging
import math
import os
import re
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkimg.client import wire
from thinkimg.serving.config import API_KEY_VARIABLE, ServerConfig
from thinkimg.serving.metrics import ServerMetrics
from thinkimg.serving.service import ProblemError, ToolService
from thinkimg.tools.tool import Tool

_OPEN_PATHS = ("/livez", "/readyz")
_BODY_SECONDS = 60.0
_MAX_TIMEOUT_SECONDS = 3600.0
_REQUEST_ID = re.compile(r"[\w.\-]{1,64}")
log = logging.getLogger(__name__)


def create_app(config: ServerConfig, service: ToolService | None = None) -> FastAPI:
    """The app. Its tools are loaded by `app.state.service.load()`, which the process calls once it listens."""
    app = FastAPI(openapi_url=None)
    app.state.service = service or ToolService(config)
    app.state.metrics = ServerMetrics()
    face = _Face(app.state.service, app.state.metrics)
    for method, path, handler in (
        ("GET", "/livez", face.livez),
        ("GET", "/readyz", face.readyz),
        ("GET", "/metrics", face.metrics_page),
        ("GET", "/v1/tools", face.list_tools),
        ("POST", "/v1/tools/{name}", face.call),
        ("POST", "/v1/batch", face.batch),
        ("PUT", "/v1/images/{sha256}", face.put_image),
        ("HEAD", "/v1/images/{sha256}", face.has_image),
    ):
        app.router.add_route(path, handler, methods=[method], include_in_schema=False)
    key = config.api_key.get_secret_value() if config.api_key else os.environ.get(API_KEY_VARIABLE)
    app.add_middleware(_Gate, api_key=(key or "").strip() or None)
    return app


class _Gate:
    """Refuses calls without the key, and gives every request an id."""

    def __init__(self, app: ASGIApp, api_key: str | None) -> None:
        self._app = app
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

        if self._may_pass(scope["path"], headers):
            await self._app(scope, receive, send_with_id)
        else:
            problem = wire.Problem(401, "user", "unauthorised", "the key is missing or wrong")
            await _problem_response(problem)(scope, receive, send_with_id)

    def _may_pass(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if self._expected is None or path in _OPEN_PATHS:
            return True
        return hmac.compare_digest(headers.get(b"authorization", b""), self._expected)


class _Face:
    """The handlers."""

    def __init__(self, service: ToolService, metrics: ServerMetrics) -> None:
        self._service = service
        self._metrics = metrics
        metrics.in_flight.set_function(lambda: service.in_flight)
        metrics.ready.set_function(lambda: float(service.ready))
        metrics.store_bytes.set_function(lambda: service.images.bytes)

    async def livez(self, request: Request) -> Response:
        return Response("alive\n")

    async def readyz(self, request: Request) -> Response:
        ready = self._service.ready
        return Response("ready\n" if ready else "not ready\n", status_code=200 if ready else 503)

    async def metrics_page(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4")

    async def list_tools(self, request: Request) -> Response:
        if not self._service.ready:
            return _problem_response(wire.Problem(503, "infrastructure", "loading", "the tools are not loaded"))
        tools = [tool.schema.model_dump(mode="json") for tool in self._service.tools.values()]
        return Response(wire.encode({"version": wire.VERSION, "tools": tools}, wire.JSON), media_type=wire.JSON)

    async def call(self, request: Request) -> Response:
        started = time.perf_counter()
        name = "(unknown)"
        try:
            tool = self._service.find(request.path_params["name"])
            name = tool.name
            body, timeout = await self._read(request), self._timeout(request)
            reply_type = _reply_type(request)
            answer = await self._service.run(lambda: self._answer(tool, body, _body_type(request), reply_type), timeout)
            self._account(request, name, started, None)
            return Response(answer, media_type=reply_type)
        except ProblemError as error:
            self._account(request, name, started, error.problem)
            return _problem_response(error.problem)
        except ClientDisconnect:
            return Response(status_code=499)

    def _answer(self, tool: Tool, body: bytes, body_type: str, reply_type: str) -> bytes:
        """In a thread: everything that takes time."""
        try:
            request = wire.decode_request(body, body_type)
        except wire.WireError as error:
            raise ProblemError(_malformed(error)) from error
        return _encoded(wire.result_document(self._service.execute(tool, request)), reply_type)

    async def batch(self, request: Request) -> Response:
        """Calls run side by side; each has its own result or problem, in the order asked."""
        try:
            body, timeout = await self._read(request), self._timeout(request)
            try:
                calls = wire.decode_batch(body, _body_type(request))
            except wire.WireError as error:
                raise ProblemError(_malformed(error)) from error
            results = await asyncio.gather(*(self._one_of_batch(request, call, timeout) for call in calls))
            reply_type = _reply_type(request)
            return Response(_encoded({"results": results}, reply_type), media_type=reply_type)
        except ProblemError as error:
            return _problem_response(error.problem)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _one_of_batch(self, request: Request, call: wire.CallRequest, timeout: float) -> dict[str, Any]:
        started = time.perf_counter()
        name = "(unknown)"
        try:
            tool = self._service.find(call.tool)
            name = tool.name
            result = await self._service.run(lambda: self._service.execute(tool, call), timeout)
        except ProblemError as error:
            self._account(request, name, started, error.problem)
            return {"problem": error.problem.as_document()}
        self._account(request, name, started, None)
        return {"result": wire.result_document(result)}

    async def put_image(self, request: Request) -> Response:
        try:
            sha256 = _sha256(request)
            body = await self._read(request, self._service.config.max_image_bytes)
            await asyncio.to_thread(self._service.keep, sha256, body)
            return Response(status_code=204)
        except ProblemError as error:
            return _problem_response(error.problem)
        except ClientDisconnect:
            return Response(status_code=499)

    async def has_image(self, request: Request) -> Response:
        known = self._service.images.get(request.path_params["sha256"]) is not None
        return Response(status_code=200 if known else 404)

    # ---- parts ------------------------------------------------------------------------------------------------------

    async def _read(self, request: Request, limit: int | None = None) -> bytes:
        """The body. Raises `ProblemError` 413 above the limit, 408 for a client that is too slow."""
        limit = limit or self._service.config.max_body_bytes
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise ProblemError(_too_large(limit))
        chunks: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    total += len(chunk)
                    if total > limit:
                        raise ProblemError(_too_large(limit))
                    chunks.append(chunk)
        except TimeoutError as error:
            detail = f"the body did not arrive within {_BODY_SECONDS:.0f} s"
            raise ProblemError(wire.Problem(408, "infrastructure", "slow_body", detail)) from error
        return b"".join(chunks)

    def _timeout(self, request: Request) -> float:
        """Seconds that the caller still waits."""
        text = request.headers.get(wire.TIMEOUT_HEADER)
        if text is None:
            return self._service.config.default_timeout_seconds
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise ProblemError(_malformed(f"{wire.TIMEOUT_HEADER} must be a positive number of seconds"))
        return min(seconds, _MAX_TIMEOUT_SECONDS)

    def _account(self, request: Request, tool: str, started: float, problem: wire.Problem | None) -> None:
        seconds = time.perf_counter() - started
        self._metrics.calls.labels(tool).inc()
        self._metrics.seconds.labels(tool).observe(seconds)
        if problem is not None:
            self._metrics.errors.labels(tool, problem.family, problem.kind).inc()
        log.info(
            "call",
            extra={
                "request_id": request.state.request_id,
                "tool": tool,
                "status": problem.status if problem else 200,
                "kind": problem.kind if problem else None,
                "ms": round(seconds * 1000, 2),
            },
        )


# ---- documents ------------------------------------------------------------------------------------------------------


def _problem_response(problem: wire.Problem) -> Response:
    headers = {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.status in (429, 503):
        headers["retry-after"] = "1"
    return Response(json.dumps(problem.as_document()), problem.status, headers, media_type=wire.PROBLEM)


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


def _sha256(request: Request) -> str:
    text = str(request.path_params["sha256"])
    if not wire.is_sha256(text):
        raise ProblemError(_malformed("an image's address ends with its sha256, 64 hex digits in lower case"))
    return text


def _request_id(given: bytes | None) -> str:
    text = (given or b"").decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex
