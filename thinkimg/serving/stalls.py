"""Closes connections whose other end has stopped: one that never finishes its headers, one that never reads its answer.

Uvicorn limits neither, and both cost a socket, the second an answer's memory too. Looking at all connections every few
seconds costs the requests nothing.
"""

import asyncio
import logging
import time
from typing import Any

import uvicorn

log = logging.getLogger(__name__)


async def close_stalled(server: uvicorn.Server, seconds: float) -> None:
    """Runs until it is cancelled.

    Args:
        seconds: how long a client may take from connecting to the end of its headers, or leave an answer unread.
    """
    since: dict[Any, tuple[str, float]] = {}
    while True:
        await asyncio.sleep(min(2.0, seconds / 4))
        now = time.monotonic()
        stalled = {connection: _fault(connection) for connection in server.server_state.connections}
        since = {
            connection: since[connection] if since.get(connection, ("", 0.0))[0] == fault else (fault, now)
            for connection, fault in stalled.items()
            if fault
        }
        for connection, (fault, started) in since.items():
            if now - started >= seconds:
                log.info("closed a connection that stalled", extra={"waiting_for": fault})
                connection.transport.abort()


def _fault(connection: Any) -> str:
    """What the connection waits for from its client: `headers`, `reading`, or nothing that is limited here.

    A connection that is kept alive between requests has a timer of uvicorn's own; a body is limited where it is read.
    """
    if connection.flow.write_paused:
        return "reading"
    between = connection.cycle is None or connection.cycle.response_complete
    return "headers" if between and connection.timeout_keep_alive_task is None else ""
