"""A connection that sends nothing once this process no longer leads.

A process that was paused goes on where it stood, perhaps between the question whether it leads and the write. So the
question is asked once more where bytes leave for the kernel, and what a paused process had prepared never reaches the
API server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject


class _FencedSocket(socket.socket):
    def __init__(self, may_send: Callable[[], bool], family: int, type_: int, protocol: int) -> None:
        super().__init__(family, type_, protocol)
        self._may_send = may_send

    def send(self, *arguments: Any) -> int:
        self._check()
        return super().send(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._check()
        return super().sendmsg(*arguments)

    def _check(self) -> None:
        if not self._may_send():
            raise ConnectionAbortedError("held back: the lease may have passed to another")


class _FencedRest(RESTClientObject):  # type: ignore[misc]  # the client's types are not read, see pyproject.toml
    """The official client's connections, through fenced sockets."""

    def __init__(self, configuration: Configuration, may_send: Callable[[], bool]) -> None:
        super().__init__(configuration)
        self._may_send = may_send

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._socket)

    def _socket(self, address: Any) -> socket.socket:
        family, type_, protocol, *_ = address
        return _FencedSocket(self._may_send, family, type_, protocol)


def fenced_client(configuration: Configuration, may_send: Callable[[], bool]) -> ApiClient:
    """A client whose requests fail as soon as `may_send` is false, those under way included.

    Raises:
        RuntimeError: the running loop writes to file descriptors past Python's sockets, as uvloop does.
    """
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        raise RuntimeError("a fence needs asyncio's own event loop: others do not send through Python's sockets")
    api = ApiClient(configuration)
    api.rest_client = _FencedRest(configuration, may_send)
    return api
