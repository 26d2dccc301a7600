"""What all faces of a gateway share: the tools, the pictures, the models, and one way to call a tool."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from starlette.requests import Request

from thinkimg.amounts import TooMuch, check_json
from thinkimg.client.cache import ResultCache
from thinkimg.client.tool_client import CallOutcome, ToolClient
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.gateway.callers import Caller, Callers, LimitError
from thinkimg.gateway.config import GatewayConfig
from thinkimg.gateway.gate import limit_refusal
from thinkimg.gateway.metrics import GatewayMetrics
from thinkimg.gateway.pictures import LARGE_BYTES, Pictures
from thinkimg.gateway.refusals import log_cause, problem_of, refuse
from thinkimg.gateway.slots import Slots
from thinkimg.image import Image
from thinkimg.serving.health import Health
from thinkimg.tools.tool import ToolSchema, normalise_name

_RECONNECT_SECONDS = 2.0
T = TypeVar("T")
_spelling = lru_cache(maxsize=1024)(normalise_name)
log = logging.getLogger(__name__)


class CallerGone(Exception):
    """Nobody waits for the answer any more."""


class Core:
    """To be used from one event loop: `connect` first, `close` last.

    Attributes:
        client: the tools.
        slots: places of requests, which the gate gives out, and faces where one request is many calls.
        draining: the process is ending; the gate takes no new requests.
        health: what probes are told, of overload too.

    Raises:
        UserError: the file of keys or a key's variable is missing.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.callers = Callers(config.keys_file, config.limits.requests_per_minute)
        self.health = Health(self._unready)
        self.slots = Slots(config.limits, self.callers, self.health)
        self.metrics = GatewayMetrics()
        self.pictures = Pictures(config.limits, config.image_hosts)
        keys = {server.url: key for server in config.servers if (key := secret(server.api_key_variable))}
        self.client = ToolClient(
            [server.url for server in config.servers],
            keys,
            timeout_seconds=config.limits.tool_seconds,
            cache=ResultCache() if config.cache else None,
        )
        self.draining = False
        self._connected = False
        self.metrics.ready.set_function(lambda: float(self.ready))
        self.metrics.held_bytes.set_function(lambda: float(self.pictures.held_bytes))

    @property
    def ready(self) -> bool:
        return self._connected and not self.draining

    def _unready(self) -> str | None:
        return None if self.ready else "draining" if self.draining else "loading"

    async def connect(self) -> None:
        """Wait for the tool servers, however long they take. Raises `UserError` for a wrong address or key."""
        while not self._connected:
            try:
                await self.client.connect()
                self._connected = True
            except InfrastructureError as error:
                log.warning("not ready: %s", error)
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def close(self) -> None:
        await self.client.close()

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        """Raises `Refusal` 503 while there are none yet. What is under way when the process drains still has them."""
        if not self._connected:
            raise refuse(503, "loading", "the gateway is looking for its tools")
        return self.client.schemas

    def find(self, name: str) -> ToolSchema | None:
        """A tool by its name or alias, in any spelling. Raises `Refusal`, see `schemas`."""
        wanted = _spelling(name[:100])
        for schema in self.schemas.values():
            if wanted in map(_spelling, (schema.name, *schema.aliases)):
                return schema
        return None

    async def call(
        self,
        face: str,
        caller: Caller,
        name: str,
        arguments: Mapping[str, Any],
        images: Mapping[str, Image],
        seconds: float | None = None,
    ) -> CallOutcome:
        """Call a tool for a caller, whose quota pays for it. The pictures that come back are held for the caller.

        Args:
            seconds: that the caller still waits, if it says.

        Raises:
            Refusal: the tools are not known yet, no quota left.
            ModelError, InfrastructureError, UserError, TimeoutError: see `ToolClient.call` and `problem_of`.
        """
        schema = self.find(name)
        spend(caller)
        limit = self.config.limits.tool_seconds
        outcome = "cancelled"
        try:
            async with asyncio.timeout(min(seconds, limit) if seconds else limit):
                called = await self.client.call(name, arguments, images, caller=caller.id)
            outcome = "ok"
        except Exception as error:
            outcome = "failed"  # unless it is nobody's bug
            outcome = problem_of(error).kind
            log_cause(f"tool {name[:80]!r}", error)
            raise
        finally:
            self.metrics.calls.labels(face, schema.name if schema else "(unknown)", outcome).inc()
        for image in called.result.images:
            self.pictures.hold(caller.id, image)
        return called


def spend(caller: Caller, calls: int = 1) -> None:
    """Raises `Refusal` 429 when the caller's calls of the day are used up."""
    try:
        caller.spend(calls)
    except LimitError as error:
        raise limit_refusal(error) from error


def check_tokens(caller: Caller) -> None:
    """Raises `Refusal` 429 when the caller's tokens of the day are used up."""
    try:
        caller.check_tokens()
    except LimitError as error:
        raise limit_refusal(error) from error


def secret(variable: str | None) -> str | None:
    """The value of an environment variable that a configuration names. Raises `UserError` if it is not set."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise UserError(f"the environment has no {variable}", "api_key_variable")
    return os.environ[variable]


async def json_body(request: Request) -> bytes:
    """The body of a face that takes JSON, looked at before anybody parses it.

    Raises:
        Refusal: 413, too much is in it.
    """
    body = await request.body()
    try:
        if len(body) > LARGE_BYTES:
            await asyncio.to_thread(check_json, body)
        else:
            check_json(body)
    except TooMuch as error:
        raise refuse(413, "too_much", str(error)) from error
    return body


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves. The body must have been read.

    Raises:
        CallerGone: the caller left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise CallerGone
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
