"""Sockets of server processes, the server on them, and how they say that they are ready."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError
from thinkimg.serving.connections import BoundedServer


def bind(host: str, port: int) -> socket.socket:
    """Raises `UserError` naming the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be given: asyncio turns Nagle's algorithm off (40 ms a reply) only for sockets that say TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise UserError(f"{host}:{port} cannot be used: {reason}; choose another or 0", "port") from error
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{listening.getsockname()[1]}"


class Server(BoundedServer):
    """Without uvicorn's own signal handlers: it would end by the signal, we end with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Announcer:
    """Tells whoever started this process what became of it: one JSON line on stdout, and a file if asked."""

    def __init__(self, ready_file: Path | None) -> None:
        self._ready_file = ready_file

    def ready(self, url: str, tools: list[str]) -> None:
        self._say({"event": "ready", "url": url, "pid": os.getpid(), "tools": tools})

    def failed(self, error: Exception) -> None:
        """`family` is that of `thinkimg.errors`, or `bug`."""
        family = getattr(error, "family", "bug")
        field = getattr(error, "field", "")
        message = str(error).removeprefix(f"{field}: ") if field else str(error)
        self._say({"event": "failed", "family": family, "field": field, "message": message, "pid": os.getpid()})

    def _say(self, event: dict[str, Any]) -> None:
        line = json.dumps(event)
        print(line, flush=True)
        if self._ready_file is not None:
            partial = self._ready_file.with_suffix(".partial")
            partial.write_text(line + "\n", encoding="utf-8")
            partial.replace(self._ready_file)
