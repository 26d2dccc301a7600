"""Connections of every server of ours: how many may be open, which of them go first, and one line a minute about it.

Uvicorn limits neither their number, nor how long a client may take for its headers, nor how long it may leave an answer
unread; and asyncio writes a traceback for each connection that it cannot accept. So a server here has at most half as
many connections as it may have files: the rest is for what it opens itself. Above that, those go that nobody works for.
"""

import asyncio
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator, MutableSet
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from thinkimg import wire
from thinkimg.api.server_contract import HttpPath
from thinkimg.serving.health import FREE_AGAIN, Health

_MOST_FILES = 65_536
"""More are of no use here, and some programs that we start look at every number up to the limit."""
_MOST_CONNECTIONS = 8192
_ACCEPTED_AT_ONCE = 64
"""Between two looks at the connections that are open; far fewer than the files that are left."""
_WAITING = 2048
"""Connections that the kernel keeps until we accept them."""
_SAYING_SECONDS = 60.0
_PROBES = (HttpPath.LIVE, HttpPath.READY)
log = logging.getLogger(__name__)


def raise_file_limit() -> int:
    """Let this process open as many files as it may ask for, 65,536 at most. Returns how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


class Connections(MutableSet[Any]):
    """Those of one server, in the place of uvicorn's set of them, oldest first.

    Where there are too many, the oldest go of the larger group: those that have not sent whole headers, or those that
    are kept alive between two requests. So many silent ones drive out no client that pauses, and the other way round.
    Only where nearly every connection has a request is there no room: then further requests are refused.

    Attributes:
        most: that may be open.
        full: nearly all have a request.
    """

    def __init__(self, most: int, health: Health) -> None:
        self.most = most
        self.full = False
        self._at_once = max(1, most // 16)
        self._health = health
        self._open: dict[Any, None] = {}
        self._closed: Counter[str] = Counter()
        self._said = -_SAYING_SECONDS

    def __contains__(self, connection: object) -> bool:
        return connection in self._open

    def __iter__(self) -> Iterator[Any]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Any) -> None:
        """Uvicorn has made it; it has no transport yet."""
        if len(self._open) >= self.most:
            waiting = self.make_room("too_many")
            if waiting < self._at_once:
                self.full = True
                self._health.full("connections", f"of {self.most} connections {len(self._open)} have a request each")
            elif waiting > (1 - FREE_AGAIN) * self.most:
                self._has_room()
        self._open[connection] = None

    def discard(self, connection: Any) -> None:
        self._open.pop(connection, None)
        if len(self._open) < FREE_AGAIN * self.most:
            self._has_room()

    def _has_room(self) -> None:
        self.full = False
        self._health.free("connections")

    def make_room(self, reason: str) -> int:
        """Close the oldest of those that nobody works for, a sixteenth of all at most. Returns how many there were."""
        headers, idle = self._waiting()
        for connection in (headers if len(headers) >= len(idle) else idle)[: self._at_once]:
            self.close(connection, reason)
        return len(headers) + len(idle)

    def close(self, connection: Any, reason: str) -> None:
        """At once, and count it."""
        self._open.pop(connection, None)
        connection.transport.abort()
        self.count(reason)

    def count(self, reason: str) -> None:
        """Say it within a minute, with all others; the first one at once."""
        self._closed[reason] += 1
        self.say()

    def say(self, now: bool = False) -> None:
        """One line for everything since the last one, if that is a minute ago.

        Args:
            now: do not wait for the minute.
        """
        if self._closed and (now or time.monotonic() - self._said >= _SAYING_SECONDS):
            log.warning("closed connections", extra={**self._closed, "open": len(self._open), "most": self.most})
            self._closed.clear()
            self._said = time.monotonic()

    def _waiting(self) -> tuple[list[Any], list[Any]]:
        """Those without whole headers and those between two requests, each the longest waiting first."""
        found: dict[str, list[Any]] = {"headers": [], "idle": []}
        for connection in self._open:
            found.get(_waits_for(connection), []).append(connection)
        return found["headers"], sorted(found["idle"], key=lambda idle: idle.timeout_keep_alive_task.when())


def _waits_for(connection: Any) -> str:
    """`reading`, `headers`, `idle`, or nothing that is looked at here: a body is limited where it is read."""
    if connection.flow is None:
        return "headers"  # uvicorn is about to set it
    if connection.flow.write_paused:
        return "reading"
    if connection.cycle is not None and not connection.cycle.response_complete:
        return ""
    return "headers" if connection.timeout_keep_alive_task is None else "idle"


class BoundedServer(uvicorn.Server):
    """Uvicorn with `Connections`. It raises the process's limit of open files.

    Args:
        health: is told when every connection has a request, and that the connections are looked after.
        client_seconds: how long a client may take from connecting to the end of its headers, or leave an answer unread.
        settings: of `uvicorn.Config`.
    """

    def __init__(self, app: ASGIApp, health: Health, client_seconds: float, **settings: Any) -> None:
        self._app = app
        self._client_seconds = client_seconds
        fixed: dict[str, Any] = {
            "interface": "asgi3",
            "ws": "none",
            "backlog": _ACCEPTED_AT_ONCE,
            "timeout_keep_alive": 75,
        }
        super().__init__(uvicorn.Config(self._answer, **fixed, **settings))
        self._health = health
        self._connections = Connections(min(_MOST_CONNECTIONS, raise_file_limit() // 2), health)
        self.server_state.connections = cast(Any, self._connections)

    async def startup(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._went_wrong)
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING)  # asyncio takes one number for both, and would accept as many in one go
        self._looking = asyncio.create_task(self._look())

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        self._looking.cancel()
        self._connections.say(now=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.full and scope["type"] == "http" and scope["path"] not in _PROBES:
            detail = f"{len(self._connections)} connections have a request each; this server has no more"
            problem = wire.Problem(429, "infrastructure", "overloaded", detail, {"retry_after_seconds": 1.0})
            headers = [(b"content-type", wire.PROBLEM.encode()), (b"retry-after", b"1"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": problem.status, "headers": headers})
            await send({"type": "http.response.body", "body": wire.encode(problem.as_document(), wire.JSON)})
        else:
            await self._app(scope, receive, send)

    async def _look(self) -> None:
        """Closes again and again what has stalled; costs the requests nothing."""
        since: dict[Any, tuple[str, float]] = {}
        while True:
            self._health.beat()
            await asyncio.sleep(min(2.0, self._client_seconds / 4))
            now = time.monotonic()
            stalled = {connection: _waits_for(connection) for connection in self._connections}
            since = {
                connection: since[connection] if since.get(connection, ("", 0.0))[0] == fault else (fault, now)
                for connection, fault in stalled.items()
                if fault in ("headers", "reading")
            }
            for connection, (fault, started) in since.items():
                if now - started >= self._client_seconds:
                    self._connections.close(connection, f"waited_for_{fault}")
            self._connections.say()

    def _went_wrong(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Asyncio's word for an error that nobody awaits. No file left for a connection: for each that waits."""
        if context.get("message") == "socket.accept() out of system resource":
            self._connections.make_room("no_file_left")
            self._connections.count("not_accepted")
        else:
            loop.default_exception_handler(context)
