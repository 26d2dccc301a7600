"""`ToolClient`: calls tools on their servers. Finds replicas, balances, retries, caches, counts.

Trainers use it directly, so that nothing central sits in the data path.
"""

import asyncio
import difflib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any

from thinkimg.client import discovery
from thinkimg.client.cache import CachedError, Entry, ResultCache, cache_key
from thinkimg.client.discovery import Endpoint, Resolve
from thinkimg.client.dispatch import Call, Dispatcher, look_at
from thinkimg.client.pool import ReplicaPool
from thinkimg.client.replica import Replica
from thinkimg.client.stats import ToolStats
from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.image import Image
from thinkimg.results import ToolFigures
from thinkimg.tools.tool import ToolResult, ToolSchema, normalise_name

UNKNOWN_TOOL = "(unknown)"
"""Under this name `stats()` counts calls of tools that do not exist: the names are the model's inventions."""

PATIENCE = 20
"""For trajectories, which wait for a busy tool; bounded, for a call that hangs a worker must not hang them all."""


@dataclass(frozen=True)
class CallOutcome:
    """A tool's answer.

    Attributes:
        seconds: time as the caller saw it, with retries and waiting.
        cached: no request was sent for this call.
    """

    result: ToolResult
    seconds: float
    cached: bool


class ToolClient:
    """Calls of tools over HTTP. To be used from one event loop; `async with` connects and closes.

    Args:
        endpoints: `http://host:port` is one server, a gateway for instance; `dns+http://name:port` is one server per
            address of that name (a headless Service), looked up again as pods come and go. Servers with the same tool
            are its replicas.
        api_keys: endpoint -> key, where a server wants one.
        timeout_seconds: deadline of a whole call, all attempts and waiting together. While a replica is left that was
            not asked, an attempt gets half of what is left.
        retries: further attempts after infrastructure errors. Waiting for a server that is busy (429), or not there
            (refused connection, loading, draining), is not counted, only limited by the deadline.
        cache: keeps results, and lets identical concurrent calls share one request; None makes every call a request.
        hedge_at: a share such as 0.95: a call that takes longer than that share of its tool's calls is sent to a second
            replica, too, and the first answer counts (Dean & Barroso 2013). None: never.
        patience: how often a call gets its whole time again, if it ran out while the tool answered others: then the
            call stood in a queue, which says nothing against it. What makes trajectories has `PATIENCE`.
        refresh_seconds: between two look-ups of a DNS name.
        resolve: asks DNS; the system's resolver unless given.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        api_keys: Mapping[str, str] | None = None,
        timeout_seconds: float = 30,
        retries: int = 3,
        cache: ResultCache | None = None,
        hedge_at: float | None = None,
        patience: int = 0,
        refresh_seconds: float = 5,
        resolve: Resolve = discovery.resolve,
    ) -> None:
        keys = {url.rstrip("/"): key for url, key in (api_keys or {}).items()}
        found = [Endpoint(text) for text in dict.fromkeys(url.rstrip("/") for url in endpoints)]
        self._timeout = timeout_seconds
        self._cache = cache
        self._make_pool: Callable[[], ReplicaPool] = partial(ReplicaPool, found, keys, resolve, refresh_seconds)
        self._make_dispatcher: Callable[[ReplicaPool], Dispatcher] = partial(
            Dispatcher, retries=retries, hedge_at=hedge_at, patience=patience
        )
        self._pool = self._make_pool()
        self._dispatcher = self._make_dispatcher(self._pool)
        self._stats: dict[str, ToolStats] = {}
        self._unknown = ToolStats()
        self._flights: dict[tuple[str, float], _Flight] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = True

    async def __aenter__(self) -> "ToolClient":
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Find the servers and read their tools.

        Raises:
            InfrastructureError: an endpoint does not answer within the deadline.
            UserError: a wrong address or key; endpoints that serve different versions of one tool.
        """
        self._pool, self._closed = self._make_pool(), False  # anew: connections belong to one event loop
        self._dispatcher = self._make_dispatcher(self._pool)
        try:
            await self._pool.open(self._timeout)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End background work and connections. Calls under way fail with `InfrastructureError`."""
        self._closed = True
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._dispatcher.close()
        await self._pool.close()

    # ---- reading ------------------------------------------------------------------------------------------------

    @property
    def replicas(self) -> Sequence[Replica]:
        """The servers that are known now."""
        return tuple(self._pool.replicas)

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        """Tool name -> schema, of all endpoints."""
        return MappingProxyType({name: service.schema for name, service in self._pool.services.items()})

    def stats(self) -> dict[str, ToolFigures]:
        """Tool name -> counters and latencies since this object was made; `merge_stats` adds up those of several."""
        names = dict.fromkeys((*self._pool.services, *self._stats))
        stats = {name: self._stats.get(name, ToolStats()).figures() for name in names}
        if self._unknown.model_errors:
            stats[UNKNOWN_TOOL] = self._unknown.figures()
        return stats

    # ---- calling ------------------------------------------------------------------------------------------------

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        images: Mapping[str, Image],
        timeout_seconds: float | None = None,
        caller: str = "",
    ) -> CallOutcome:
        """Call a tool.

        Args:
            name: compared by `normalise_name`.
            arguments: name images by handle.
            images: handle -> image, all that exist; those which the arguments name are sent.
            timeout_seconds: of this call; None for the client's.
            caller: on whose behalf, where this client calls for several that must not see each other's pictures and
                results: nothing that is kept, here or on the servers, is shared between two of them.

        Raises:
            ModelError: unknown tool, handle that does not exist, arguments that the tool refuses.
            InfrastructureError: no answer within deadline and retries.
            UserError: the server wants another key, or does not understand this client.
        """
        if self._closed:
            raise InfrastructureError("the client is not connected; use `async with` or `connect()`")
        started = time.perf_counter()
        schema = self._find(name)
        stats = self._stats.setdefault(schema.name, ToolStats())
        seconds = self._timeout if timeout_seconds is None else timeout_seconds
        try:
            used = _images_named(schema, arguments, images)
            call = Call(schema, dict(arguments), used, time.monotonic() + seconds, stats, caller)
            entry, cached = await self._answer(call, seconds)
            if isinstance(entry, CachedError):
                raise entry.as_error()
        except ModelError:
            stats.model_errors += 1
            raise
        except InfrastructureError:
            stats.infrastructure_errors += 1
            raise
        return CallOutcome(entry, time.perf_counter() - started, cached)

    def _find(self, name: str) -> ToolSchema:
        service = self._pool.find(name)
        if service is None:
            self._unknown.model_errors += 1
            raise ModelError(_unknown_tool(name, list(self._pool.services)), "unknown_tool")
        return service.schema

    async def _answer(self, call: Call, seconds: float) -> tuple[Entry, bool]:
        """An entry, and whether it came without a request of its own."""
        if self._cache is None:
            return await self._fly(self._fetch_alone(call)).join()
        key = _key(call)
        entry = self._cache.get(key)
        if entry is not None:
            call.stats.cache_hits += 1
            return entry, True
        place = (key, seconds)  # who waits longer does not share the fate of who waits shorter
        flight = self._flights.get(place)
        if flight is not None:
            entry, _ = await flight.join()
            call.stats.cache_hits += 1
            return entry, True
        flight = self._flights[place] = self._fly(self._fetch_and_keep(key, call))
        flight.task.add_done_callback(lambda _: self._flights.pop(place, None))
        entry, from_disk = await flight.join()
        call.stats.cache_hits += from_disk
        return entry, from_disk

    def _fly(self, work: "Coroutine[Any, Any, tuple[Entry, bool]]") -> "_Flight":
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return _Flight(task)

    async def _fetch_alone(self, call: Call) -> tuple[Entry, bool]:
        return await self._dispatcher.fetch(call), False

    async def _fetch_and_keep(self, key: str, call: Call) -> tuple[Entry, bool]:
        assert self._cache is not None
        if self._cache.folder is not None:
            entry = await asyncio.to_thread(self._cache.read_file, key)
            if entry is not None:
                self._cache.put(key, entry, call.caller)
                return entry, True
        entry = await self._dispatcher.fetch(call)
        if isinstance(entry, CachedError) and not entry.is_kept:
            return entry, False
        self._cache.put(key, entry, call.caller)
        if self._cache.folder is not None:
            await asyncio.to_thread(self._cache.write_file, key, entry)
        return entry, False


class _Flight:
    """A request that several callers wait for. It is given up when the last of them is."""

    def __init__(self, task: "asyncio.Task[tuple[Entry, bool]]") -> None:
        self.task = task
        self._waiting = 0
        task.add_done_callback(look_at)

    async def join(self) -> tuple[Entry, bool]:
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():  # closed under us, not cancelled by our caller
                raise InfrastructureError("the client was closed") from None
            raise
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.task.cancel()


# ---- pure parts -----------------------------------------------------------------------------------------------------


def _images_named(schema: ToolSchema, arguments: Mapping[str, Any], images: Mapping[str, Image]) -> dict[str, Image]:
    """Those of `images` that the arguments name. Raises `ModelError` for a handle that does not exist."""
    used = {}
    for parameter in schema.image_parameters:
        value = arguments.get(parameter)
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str):
                if name not in images:
                    raise ModelError(f"{parameter}: there is no image {name[:80]!r}. {_existing(images)}")
                used[name] = images[name]
    return used


def _existing(images: Mapping[str, Image]) -> str:
    return f"The images are {', '.join(images)}." if images else "There are no images."


def _unknown_tool(name: str, names: list[str]) -> str:
    spelled = {normalise_name(candidate): candidate for candidate in names}
    nearest = difflib.get_close_matches(normalise_name(name), spelled, n=1)
    hint = f" Did you mean {spelled[nearest[0]]}?" if nearest else ""
    return f"There is no tool {name[:80]!r}. The tools are {', '.join(sorted(names))}.{hint}"


def _key(call: Call) -> str:
    try:
        hashes = {name: image.sha256 for name, image in call.images.items()}
        return cache_key(call.schema, call.arguments, hashes, call.caller)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"The arguments are not JSON: {error}") from error
