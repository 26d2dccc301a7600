"""What every request passes before any work is done for it: who calls, from where, how much, how long."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkimg import wire
from thinkimg.gateway.callers import Caller, Callers, LimitError
from thinkimg.gateway.config import GatewayConfig, Limits
from thinkimg.gateway.keys import redacted
from thinkimg.gateway.metrics import GatewayMetrics
from thinkimg.gateway.pages import PATHS
from thinkimg.gateway.refusals import Refusal, problem_response, refuse
from thinkimg.gateway.slots import Slots
from thinkimg.serving.doors import is_loopback, page_refusal

OPEN_PATHS = ("/livez", "/readyz", "/", *PATHS)
"""Probes carry no key; these say one word. Nor does who opens the gateway in a browser: the pages say what it is, and
hold nothing of anybody's."""

CONTROLLER_PATHS = (
    *("refresh_all_workers", "list_models", "get_worker_address", "register_worker", "receive_heart_beat"),
    *("worker_get_status", "worker_generate_stream"),
)
"""Of OpenThinkIMG's controller: at the root, where the original has them, and below `/openthinkimg`."""

_REQUEST_ID = re.compile(r"[\w.\-]{1,64}")
log = logging.getLogger(__name__)


def face_of(path: str) -> str:
    """Which face answers a path: `chat`, `tools`, `mcp`, `openthinkimg`, or `other` (probes, metrics, documents)."""
    if path.startswith(("/v1/chat/", "/v1/models")):
        return "chat"
    if path.startswith("/v1/"):
        return "tools"
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    if first in CONTROLLER_PATHS:
        return "openthinkimg"
    return first if first in ("mcp", "openthinkimg") else "other"


class Gate:
    """ASGI middleware, the outermost but for CORS.

    It sets `scope["state"]`: `request_id`, and `caller`, a `Caller`.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: GatewayConfig,
        callers: Callers,
        slots: Slots,
        metrics: GatewayMetrics,
        is_draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._is_draining = is_draining
        self._config = config
        self._limits = config.limits
        self._callers = callers
        self._slots = slots
        self._metrics = metrics
        self._local_only = callers.open and is_loopback(config.host)
        metrics.in_flight.set_function(lambda: slots.taken)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(headers.get(b"x-request-id"))
        face, status = face_of(scope["path"]), [0]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        key = "none"
        body = _Body(receive, self._limits, self._slots)
        try:
            caller = self._admit(scope, headers)
            key = caller.id if caller else "probe"
            state["caller"] = body.caller = caller
            self._refuse_declared_size(headers)
            await self._pass(scope, body, send_with_id, caller)
        except Refusal as refusal:
            if status[0]:
                raise
            self._metrics.refused.labels(refusal.problem.kind).inc()
            await problem_response(refusal.problem, face)(scope, receive, send_with_id)
        except ClientDisconnect:  # in the middle of its body: there is nobody to answer
            pass
        except Exception:  # a bug, whose words go to the log only
            log.exception("a request failed", extra={"request_id": request_id})
            if status[0]:
                raise
            problem = refuse(500, "internal", "the gateway failed; its log says why").problem
            await problem_response(problem, face)(scope, receive, send_with_id)
        finally:
            body.give_back()
            self._account(scope, face, status[0], key, time.perf_counter() - started, request_id)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller | None:
        """The caller; None for a probe. Raises `Refusal`."""
        if scope["path"] in OPEN_PATHS:
            return None
        if refusal := page_refusal(headers, self._local_only, self._config.cors_origins):
            kind, detail = refusal
            hint = "; cors_origins lists those that may" if kind == "wrong_origin" else ""
            raise refuse(403, kind, detail + hint)
        caller = self._callers.identify(headers)
        if caller is None:
            raise refuse(401, "unauthorised", "the key is missing or wrong")
        return caller

    def _refuse_declared_size(self, headers: Mapping[bytes, bytes]) -> None:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 20 or int(declared) > self._limits.body_bytes):
            raise _too_large(self._limits.body_bytes)

    async def _pass(self, scope: Scope, body: "_Body", send: Send, caller: Caller | None) -> None:
        if caller is None:
            await self._app(scope, body.receive, send)
            return
        if self._is_draining():
            raise refuse(503, "draining", "the gateway is draining")
        self._slots.enter(caller)
        try:
            caller.admit()
            await self._app(scope, body.receive, send)
        except LimitError as error:
            raise limit_refusal(error) from error
        finally:
            self._slots.leave(caller)

    def _account(self, scope: Scope, face: str, status: int, key: str, seconds: float, request_id: str) -> None:
        if key == "probe":
            return
        self._metrics.requests.labels(face, str(status or 499)).inc()
        self._metrics.seconds.labels(face).observe(seconds)
        log.info(
            "request",
            extra={
                "request_id": request_id,
                "key": key,
                "method": scope["method"],
                "path": redacted(scope["path"])[:200],
                "status": status or 499,
                "ms": round(seconds * 1000, 2),
            },
        )


class _Body:
    """A request's body, whose size and time of arrival are bounded for every face alike."""

    def __init__(self, receive: Receive, limits: Limits, slots: Slots) -> None:
        self.caller: Caller | None = None
        self._receive = receive
        self._limit = limits.body_bytes
        self._seconds = limits.client_seconds
        self._slots = slots
        self._bytes = 0
        self._whole = False
        self._deadline = time.monotonic() + limits.client_seconds

    def give_back(self) -> None:
        """The request has ended."""
        self._slots.hold(self.caller, -self._bytes)
        self._bytes = 0

    async def receive(self) -> Message:
        if self._whole:  # what may come now is the caller's departure
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            raise refuse(408, "slow_body", f"the body did not arrive within {self._seconds:g} s") from error
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            if self._bytes + size > self._limit:
                raise _too_large(self._limit)
            self._slots.hold(self.caller, size)
            self._bytes += size
            self._whole = not message.get("more_body", False)
        return message


def limit_refusal(error: LimitError) -> Refusal:
    """429, with the seconds to wait."""
    return refuse(429, error.kind, str(error), retry_after_seconds=round(error.retry_after, 3))


def _too_large(limit: int) -> Refusal:
    return Refusal(
        wire.Problem(413, "model", "refused", f"The request is too large: at most {limit:,} bytes are accepted.")
    )


def _request_id(given: bytes | None) -> str:
    text = (given or b"").decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) and text == redacted(text) else uuid.uuid4().hex
