"""Which replica gets the next call: the less busy of two drawn at random. One that failed is set aside until it is
ready again."""

import random
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import httpx

from thinkimg.client.connections import Connections
from thinkimg.errors import UserError

_KNOWN_IMAGES = 4096


class Replica:
    """One server as this client sees it.

    Attributes:
        url: without a trailing slash.
        outstanding: calls that this client has under way there.
        set_aside: it failed; calls go elsewhere while there is an elsewhere.
        failures: how often it was found failing since its last answer.
        requests: how many requests were sent there.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = _authorisation(self.url, api_key)
        self._connections = Connections(self.url)
        self.outstanding = 0
        self.requests = 0
        self.set_aside = False
        self.failures = 0
        self._known: OrderedDict[str, None] = OrderedDict()

    async def send(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """One request, with the key. Raises `httpx.HTTPError`, see `Connections.send`."""
        self.requests += 1
        return await self._connections.send(method, path, {**self._headers, **(headers or {})}, content, timeout)

    async def close(self) -> None:
        await self._connections.close()

    def knows(self, sha256: str) -> bool:
        """Whether the server was seen to hold this picture. It may have dropped it since."""
        return sha256 in self._known

    def remember(self, sha256: str) -> None:
        self._known[sha256] = None
        self._known.move_to_end(sha256)
        if len(self._known) > _KNOWN_IMAGES:
            self._known.popitem(last=False)

    def forget(self, sha256: str) -> None:
        self._known.pop(sha256, None)

    def forget_all(self) -> None:
        """After a failure: it may have been restarted with an empty store."""
        self._known.clear()

    def __repr__(self) -> str:
        return f"Replica({self.url}, outstanding={self.outstanding}, set_aside={self.set_aside})"


def _authorisation(url: str, api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()  # a key from a file often ends with a newline
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key of {url} has characters that a header cannot carry", "api_keys")
    return {"authorization": f"Bearer {key}"} if key else {}


def choose(replicas: Sequence[Replica], tried: Collection[Replica], randomness: random.Random) -> Replica:
    """The replica for the next attempt.

    Healthy ones that this call has not tried come first, then healthy ones, then the others that were not tried, then
    any: one that was set aside is better than none.
    """
    fresh = [replica for replica in replicas if replica not in tried]
    healthy = [replica for replica in replicas if not replica.set_aside]
    for candidates in ([replica for replica in fresh if not replica.set_aside], healthy, fresh, replicas):
        if candidates:
            return _less_busy(candidates, randomness)
    raise ValueError("there are no replicas")


def has_alternative(replicas: Sequence[Replica], tried: Collection[Replica]) -> bool:
    """Whether a healthy replica is left that was not tried."""
    return any(replica not in tried and not replica.set_aside for replica in replicas)


def _less_busy(candidates: Sequence[Replica], randomness: random.Random) -> Replica:
    if len(candidates) == 1:
        return candidates[0]
    one, other = randomness.sample(candidates, 2)
    return one if one.outstanding <= other.outstanding else other
