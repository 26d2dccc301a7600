"""Connections to an HTTP endpoint that outlive one event loop: each loop gets its own, and its own limit."""

import asyncio
from dataclasses import dataclass, field

import httpx


@dataclass
class Connections:
    """Args:
    api_key: sent as a bearer token.
    timeout_seconds: of one attempt.
    max_concurrency: connections, and passes of the gate, at once.
    """

    api_key: str | None = field(repr=False)
    timeout_seconds: float
    max_concurrency: int

    def __post_init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> tuple[httpx.AsyncClient, asyncio.Semaphore]:
        """Client and gate of the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            limits = httpx.Limits(max_connections=self.max_concurrency)
            self._client = httpx.AsyncClient(headers=headers, limits=limits, timeout=self.timeout_seconds)
            self._gate = asyncio.Semaphore(self.max_concurrency)
            self._loop = loop
        return self._client, self._gate

    async def close(self) -> None:
        """Close those of the running loop; a later `open` makes new ones."""
        if self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._loop = None
