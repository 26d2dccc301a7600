"""One server as this client sees it: its connections, what runs there, and how it has done."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from thinkimg import wire
from thinkimg.api.server_contract import HttpPath
from thinkimg.cache import BoundedCache
from thinkimg.client.connections import Connections
from thinkimg.errors import UserError
from thinkimg.tools.tool import ToolSchema

_KNOWN_IMAGES = 4096
_HASH_BYTES = 64
_ENOUGH_ANSWERS = 8
_ENOUGH_UNDER_WAY = 3
_NEWEST_WEIGHT = 0.2


@dataclass(eq=False)
class Attempt:
    """A call that is under way at a replica."""

    tool: str
    started: float
    limit: asyncio.Timeout

    def abandon(self) -> None:
        """End it as if its time had run out."""
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class Replica:
    """To be used from one event loop.

    Attributes:
        url: without a trailing slash.
        endpoint: the entry of the client's list that led here.
        schemas: of the tools that it serves, as it last said.
        requests: how many requests were sent there.
        under_way: attempts that wait for its answer.
        waiting_since: since when it owes an answer and has given none, on `time.monotonic`'s clock; None: it owes none.
            Calls that were given up meanwhile do not excuse it.
        set_aside: calls go elsewhere while there is an elsewhere.
        slow: it was set aside although it answers, so that an answer does not bring it back.
        ejections: how often it was set aside since it last did well for long.
        changed: when it was last set aside or taken back.
    """

    def __init__(self, url: str, api_key: str | None = None, endpoint: str = "") -> None:
        self.url = url.rstrip("/")
        self.endpoint = endpoint or self.url
        self.schemas: list[ToolSchema] = []
        self.requests = 0
        self.under_way: set[Attempt] = set()
        self.waiting_since: float | None = None
        self.set_aside = False
        self.slow = False
        self.ejections = 0
        self.changed = 0.0
        self._headers = _authorisation(self.url, api_key)
        self._connections = Connections(self.url)
        self._control = Connections(self.url)  # probes must not queue behind calls
        self._known: BoundedCache[tuple[str, str], None] = BoundedCache(
            _KNOWN_IMAGES * _HASH_BYTES, max_entries=_KNOWN_IMAGES, fair=True
        )
        self._answers: dict[str, tuple[int, float]] = {}

    @property
    def outstanding(self) -> int:
        """Calls that this client has under way there."""
        return len(self.under_way)

    def __repr__(self) -> str:
        return f"Replica({self.url}, outstanding={self.outstanding}, set_aside={self.set_aside})"

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def send(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """One request, with the key. Raises `httpx.HTTPError`, see `Connections.send`."""
        return await self._send(self._connections, method, path, content, headers or {}, timeout)

    async def list_tools(self, timeout: float) -> list[ToolSchema]:
        """Ask what it serves; only one that is ready says so.

        Raises:
            httpx.HTTPError: no answer, or 5xx.
            UserError: a wrong address or key, or no tool server.
        """
        try:
            answer = await self._send(self._control, "GET", "/v1/tools", b"", {}, timeout)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UserError(f"{self.url!r} is not an address: {error}", "endpoints") from error
        if answer.status_code >= 500:
            raise httpx.HTTPStatusError(f"it answers {answer.status_code}", request=answer.request, response=answer)
        return _schemas_of(self.url, answer)

    async def lives(self, timeout: float) -> bool:
        """Whether it answers anything at all. Its tools may be slow all the same."""
        try:
            await self._send(self._control, "GET", HttpPath.LIVE, b"", {}, timeout)
        except httpx.HTTPError:
            return False
        return True

    async def _send(
        self,
        connections: Connections,
        method: str,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> httpx.Response:
        self.requests += 1
        answer = await connections.send(method, path, {**self._headers, **headers}, content, timeout)
        self.waiting_since = time.monotonic() if self.under_way else None
        return answer

    async def close(self) -> None:
        await asyncio.gather(self._connections.close(), self._control.close())

    # ---- calls under way, and how long they take --------------------------------------------------------------------

    @asynccontextmanager
    async def attempt(self, tool: str, seconds: float) -> AsyncIterator[None]:
        """The time that a call spends here. Raises `TimeoutError` after `seconds`, or when it is abandoned."""
        async with asyncio.timeout(seconds) as limit:
            attempt = Attempt(tool, time.monotonic(), limit)
            self.under_way.add(attempt)
            if self.waiting_since is None:
                self.waiting_since = attempt.started
            try:
                yield
            finally:
                self.under_way.discard(attempt)
        if not self.under_way:
            self.waiting_since = None
        count, mean = self._answers.get(tool, (0, 0.0))
        weight = max(_NEWEST_WEIGHT, 1 / (count + 1))
        self._answers[tool] = (count + 1, mean + weight * (time.monotonic() - attempt.started - mean))

    def pace(self, tool: str, now: float) -> float | None:
        """Seconds that a call of this tool takes here: a running mean of the answers, or the age of the calls under way
        where that is more; None while too little is known."""
        count, mean = self._answers.get(tool, (0, 0.0))
        ages = [now - attempt.started for attempt in self.under_way if attempt.tool == tool]
        age = sum(ages) / len(ages) if len(ages) >= _ENOUGH_UNDER_WAY else 0.0
        return max(mean, age) if count >= _ENOUGH_ANSWERS or age > 0 else None

    def start_afresh(self) -> None:
        """It may have been restarted: pictures gone, and what it was like before says nothing."""
        self._known.clear()
        self._answers.clear()

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def knows(self, sha256: str, caller: str = "") -> bool:
        """Whether the server was seen to hold this picture for this caller. It may have dropped it since."""
        return (caller, sha256) in self._known

    def remember(self, sha256: str, caller: str = "") -> None:
        self._known.put((caller, sha256), None, len(sha256), caller)

    def forget(self, sha256: str, caller: str = "") -> None:
        self._known.drop((caller, sha256))


def problem_of(answer: httpx.Response) -> wire.Problem:
    """What an answer that is no success says."""
    try:
        document = wire.decode(answer.content, wire.JSON)
    except wire.WireError:
        document = None
    return wire.Problem.from_document(document, answer.status_code)


def _authorisation(url: str, api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()  # a key from a file often ends with a newline
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key of {url} has characters that a header cannot carry", "api_keys")
    return {"authorization": f"Bearer {key}"} if key else {}


def _schemas_of(url: str, answer: httpx.Response) -> list[ToolSchema]:
    if answer.status_code != 200:
        raise UserError(f"{url} does not list its tools: {problem_of(answer).detail}", "endpoints")
    try:
        return [_schema_of(member) for member in wire.decode(answer.content, wire.JSON)["tools"]]
    except (wire.WireError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{url} is not a tool server: {error}", "endpoints") from error


def _schema_of(document: Mapping[str, Any]) -> ToolSchema:
    known = {name: value for name, value in document.items() if name in ToolSchema.model_fields}
    return ToolSchema.model_validate(known)  # members that a newer server adds are not an error
