"""Keep-alive HTTP/1.1 connections to one server, borrowed and given back in constant time.

httpx's own pool looks at every connection for every request, which costs more than the request once many are open; so
each connection here is a pool of one.
"""

import asyncio
import ssl
from functools import lru_cache

import httpx

_MAX_CONNECTIONS = 256
_KEEPALIVE_SECONDS = 30  # below the server's 75, so that a connection is not used while the server closes it


class Connections:
    """To be used from one event loop.

    Args:
        url: of the server, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._all: set[httpx.AsyncHTTPTransport] = set()
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def send(
        self, method: str, path: str, headers: dict[str, str], content: bytes = b"", timeout: float | None = None
    ) -> httpx.Response:
        """Send a request and read the answer whole.

        Args:
            timeout: seconds for connecting and for each read and write; None: the caller sees to it.

        Raises:
            httpx.HTTPError: no answer.
            httpx.InvalidURL, httpx.UnsupportedProtocol: the address is none.
        """
        request = httpx.Request(method, _parse(self._url + path), headers=headers, content=content)
        request.extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
        async with self._places:
            connection = self._free.pop() if self._free else self._open()
            try:
                answer = await connection.handle_async_request(request)
                await answer.aread()  # closes the answer, too
            except BaseException:  # also when cancelled: nobody knows where in its dialogue this connection is
                self._all.discard(connection)
                await connection.aclose()
                raise
            self._free.append(connection)
        answer.request = request
        return answer

    def _open(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE_SECONDS)
        connection = httpx.AsyncHTTPTransport(verify=_tls(), limits=limits, trust_env=False)
        self._all.add(connection)
        return connection

    async def close(self) -> None:
        await asyncio.gather(*(connection.aclose() for connection in self._all), return_exceptions=True)
        self._all, self._free = set(), []
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)  # the next user may run in another loop


@lru_cache(maxsize=1024)
def _parse(url: str) -> httpx.URL:
    return httpx.URL(url)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """One for all: making it takes tens of milliseconds."""
    return httpx.create_ssl_context()
