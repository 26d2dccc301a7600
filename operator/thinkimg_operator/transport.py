"""Requests to the API server: headers, time limits, metrics; before each write the question whether it may go out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from .apierrors import ApiError, NotLeadingError, error_of
from .kinds import Body
from .metrics import Metrics

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """One request. Members of the query that are empty are left out."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    content_type: str = JSON
    accept: str = JSON

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def target(self) -> str:
        """Path and query."""
        given = {name: value for name, value in self.query.items() if value}
        return f"{self.path}{'?' if given else ''}{urlencode(given)}"


class Transport:
    """One connection to one API server, for one event loop. Every write passes `may_write`."""

    def __init__(
        self,
        api: ApiClient,
        *,
        metrics: Metrics | None = None,
        may_write: Callable[[], bool] = lambda: True,
        request_seconds: float = 15.0,
    ) -> None:
        """
        Args:
            may_write: asked immediately before each write; False raises `NotLeadingError`.
            request_seconds: longest time for one request, its answer included.
        """
        self.may_write = may_write
        self._api = api
        self._metrics = metrics or Metrics()
        self._request_seconds = request_seconds

    @property
    def configuration(self) -> Configuration:
        """Address and credentials."""
        return self._api.configuration

    async def close(self) -> None:
        await self._api.close()

    async def ask(self, request: Request) -> Body:
        """The body of a successful answer. Raises `ApiError` for anything else."""
        _, data = await self.send(request)
        answer: Body = json.loads(data)
        return answer

    async def send(self, request: Request) -> tuple[int, bytes]:
        """Status and body of a successful answer. Raises `ApiError` for anything else."""
        async with self.open(request, self._request_seconds) as response:
            return response.status, await response.read()

    @contextlib.asynccontextmanager
    async def open(self, request: Request, seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer, to be read within `seconds` of the request. Raises `ApiError` for anything else."""
        headers = {"User-Agent": self._api.user_agent, "Accept": request.accept, "Content-Type": request.content_type}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], request.path, request.method, request.body)
        url = f"{self.configuration.host}{request.target}"
        if request.method != "GET" and not self.may_write():
            raise NotLeadingError(f"{request} was held back: the lease may have passed to another")
        try:
            async with asyncio.timeout(seconds):
                answer = await self._api.rest_client.request(
                    request.method, url, headers=headers, body=request.body, _request_timeout=seconds
                )
                async with answer.response as response:
                    self._metrics.requests.labels(str(response.status), request.method).inc()
                    if response.status >= 300:
                        raise error_of(response.status, await response.read(), response.headers.get("Retry-After"))
                    yield response
        except TimeoutError as error:
            self._metrics.requests.labels("timeout", request.method).inc()
            raise ApiError(0, "Timeout", f"{request} took longer than {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._metrics.requests.labels("refused", request.method).inc()
            raise ApiError(0, "Unreachable", f"{request}: {error or type(error).__name__}") from error
