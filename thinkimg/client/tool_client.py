"""`ToolClient`: calls tools on their servers. Finds replicas, balances by outstanding work, retries, caches, counts.

Trainers use it directly, so that nothing central sits in the data path.
"""

import asyncio
import difflib
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any

import httpx

from thinkimg.client import wire
from thinkimg.client.balancing import Replica, choose, has_alternative
from thinkimg.client.cache import CachedError, Entry, ResultCache, cache_key
from thinkimg.client.stats import ToolStats
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.tools.tool import ToolResult, ToolSchema, normalise_name

INLINE_BYTES = 64 * 1024
"""Pictures up to this size go inside the first call that needs them; larger ones are put on the server beforehand, once
for all calls that wait for them."""

UNKNOWN_TOOL = "(unknown)"
"""Under this name `stats()` counts calls of tools that do not exist: the names are the model's inventions."""

_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 2.0
_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 5.0
_MAX_SET_ASIDE_SECONDS = 60.0
_HEADERS = {"content-type": wire.MSGPACK, "accept": wire.MSGPACK}
_UNHEALTHY_STATUS = (502, 503, 504)


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


@dataclass
class _Service:
    """A tool and who serves it."""

    schema: ToolSchema
    stats: ToolStats
    replicas: list[Replica] = field(default_factory=list)


class _AttemptError(Exception):
    """One attempt failed by nobody's argument.

    Args:
        unhealthy: the replica should be set aside.
        retry_after: seconds to wait before another try there; the server was only busy, and such tries are not counted.
    """

    def __init__(self, reason: str, unhealthy: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.unhealthy = unhealthy
        self.retry_after = retry_after


class ToolClient:
    """Calls of tools over HTTP. To be used from one event loop; `async with` connects and closes.

    Args:
        endpoints: addresses of servers, `http://host:port`. Servers with the same tool are its replicas.
        api_keys: endpoint -> key, where a server wants one.
        timeout_seconds: deadline of a whole call, all attempts and waiting together.
        retries: further attempts after infrastructure errors. Waiting for a busy server (429) is not counted, only
            limited by the deadline.
        cache: keeps results, and lets identical concurrent calls share one request; None makes every call a request.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        api_keys: Mapping[str, str] | None = None,
        timeout_seconds: float = 30,
        retries: int = 3,
        cache: ResultCache | None = None,
    ) -> None:
        keys = {url.rstrip("/"): key for url, key in (api_keys or {}).items()}
        urls = dict.fromkeys(url.rstrip("/") for url in endpoints)
        self.replicas = [Replica(url, keys.get(url)) for url in urls]
        self._timeout = timeout_seconds
        self._retries = retries
        self._cache = cache
        self._services: dict[str, _Service] = {}
        self._by_name: dict[str, _Service] = {}
        self._stats: dict[str, ToolStats] = {}
        self._unknown = ToolStats()
        self._flights: dict[str, _Flight] = {}
        self._uploads: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._random = random.Random()
        self._closed = True

    async def __aenter__(self) -> "ToolClient":
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- connecting ---------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Read the tools of every endpoint.

        Raises:
            InfrastructureError: an endpoint does not answer within the deadline.
            UserError: a wrong address or key; endpoints that serve different versions of one tool.
        """
        self._closed = False
        self._services, self._by_name = {}, {}
        listings = await asyncio.gather(*(self._read_tools(replica) for replica in self.replicas))
        for replica, schemas in zip(self.replicas, listings, strict=True):
            for schema in schemas:
                self._register(replica, schema)

    async def close(self) -> None:
        """End background work and connections. Calls under way fail with `InfrastructureError`."""
        tasks = [*self._background, *self._uploads.values()]
        for task in tasks:
            task.cancel()
        self._closed = True
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    async def _read_tools(self, replica: Replica) -> list[ToolSchema]:
        deadline = time.monotonic() + self._timeout
        pause = 0.1
        while True:
            try:
                answer = await self._get(replica, "/v1/tools", _CONNECT_SECONDS)
                if answer.status_code < 500:
                    return _schemas_of(replica, answer)
                reason = f"it answers {answer.status_code}"
            except httpx.HTTPError as error:
                reason = _describe(error)
            if time.monotonic() + pause > deadline:
                raise InfrastructureError(f"no tools from {replica.url}: {reason}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _get(self, replica: Replica, path: str, timeout: float) -> httpx.Response:
        try:
            return await replica.send("GET", path, timeout=timeout)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UserError(f"{replica.url!r} is not an address: {error}", "endpoints") from error

    def _register(self, replica: Replica, schema: ToolSchema) -> None:
        stats = self._stats.setdefault(schema.name, ToolStats())
        service = self._services.setdefault(schema.name, _Service(schema, stats))
        if service.schema != schema:
            others = ", ".join(other.url for other in service.replicas)
            raise UserError(
                f"{replica.url} serves {schema.name} version {schema.version}, {others} serves version "
                f"{service.schema.version}, or their schemas differ; replicas of a tool must agree",
                "endpoints",
            )
        service.replicas.append(replica)
        for name in (schema.name, *schema.aliases):
            self._by_name.setdefault(normalise_name(name), service)

    # ---- reading ------------------------------------------------------------------------------------------------

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        """Tool name -> schema, of all endpoints."""
        return MappingProxyType({name: service.schema for name, service in self._services.items()})

    def stats(self) -> dict[str, dict[str, Any]]:
        """Tool name -> counters and latencies (see `merge_stats`) since this object was made, JSON-ready."""
        stats = {name: counted.as_document() for name, counted in self._stats.items()}
        if self._unknown.model_errors:
            stats[UNKNOWN_TOOL] = self._unknown.as_document()
        return stats

    # ---- calling ------------------------------------------------------------------------------------------------

    async def call(self, name: str, arguments: Mapping[str, Any], images: Mapping[str, Image]) -> CallOutcome:
        """Call a tool.

        Args:
            name: compared by `normalise_name`.
            arguments: name images by handle.
            images: handle -> image, all that exist; those which the arguments name are sent.

        Raises:
            ModelError: unknown tool, handle that does not exist, arguments that the tool refuses.
            InfrastructureError: no answer within deadline and retries.
            UserError: the server wants another key, or does not understand this client.
        """
        if self._closed:
            raise InfrastructureError("the client is not connected; use `async with` or `connect()`")
        started = time.perf_counter()
        service = self._find(name)
        try:
            used = _images_named(service.schema, arguments, images)
            entry, cached = await self._answer(service, dict(arguments), used)
            if isinstance(entry, CachedError):
                raise entry.as_error()
        except ModelError:
            service.stats.model_errors += 1
            raise
        except InfrastructureError:
            service.stats.infrastructure_errors += 1
            raise
        return CallOutcome(entry, time.perf_counter() - started, cached)

    def _find(self, name: str) -> _Service:
        service = self._by_name.get(normalise_name(name))
        if service is None:
            self._unknown.model_errors += 1
            raise ModelError(_unknown_tool(name, list(self._services)), "unknown_tool")
        return service

    async def _answer(
        self, service: _Service, arguments: dict[str, Any], images: dict[str, Image]
    ) -> tuple[Entry, bool]:
        """An entry, and whether it came without a request of its own."""
        if self._cache is None:
            return await self._fly(self._fetch_alone(service, arguments, images)).join()
        key = _key(service.schema, arguments, images)
        entry = self._cache.get(key)
        if entry is not None:
            service.stats.cache_hits += 1
            return entry, True
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._fly(self._fetch_and_keep(key, service, arguments, images))
            flight.task.add_done_callback(lambda _: self._flights.pop(key, None))
            entry, from_disk = await flight.join()
            service.stats.cache_hits += from_disk
            return entry, from_disk
        entry, _ = await flight.join()
        service.stats.cache_hits += 1
        return entry, True

    def _fly(self, work: "Coroutine[Any, Any, tuple[Entry, bool]]") -> "_Flight":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return _Flight(task)

    async def _fetch_alone(
        self, service: _Service, arguments: dict[str, Any], images: dict[str, Image]
    ) -> tuple[Entry, bool]:
        return await self._fetch(service, arguments, images), False

    async def _fetch_and_keep(
        self, key: str, service: _Service, arguments: dict[str, Any], images: dict[str, Image]
    ) -> tuple[Entry, bool]:
        assert self._cache is not None
        if self._cache.folder is not None:
            entry = await asyncio.to_thread(self._cache.read_file, key)
            if entry is not None:
                self._cache.put(key, entry)
                return entry, True
        entry = await self._fetch(service, arguments, images)
        self._cache.put(key, entry)
        if self._cache.folder is not None:
            await asyncio.to_thread(self._cache.write_file, key, entry)
        return entry, False

    # ---- one call over HTTP -------------------------------------------------------------------------------------

    async def _fetch(self, service: _Service, arguments: dict[str, Any], images: dict[str, Image]) -> Entry:
        """Try replicas until one answers, the attempts are used up, or the deadline passes."""
        started = time.monotonic()
        deadline = started + self._timeout
        tried: list[Replica] = []
        failures = 0
        service.stats.http_calls += 1
        while True:
            replica = choose(service.replicas, tried, self._random)
            tried.append(replica)
            try:
                entry = await self._attempt(
                    service, replica, arguments, images, self._patience(service, tried, deadline)
                )
                service.stats.record_latency(time.monotonic() - started)
                replica.failures = 0
                return entry
            except _AttemptError as error:
                failures += error.retry_after is None
                pause = self._pause(service, tried, failures, error)
                if error.unhealthy:
                    self._set_aside(replica)
                if failures > self._retries or time.monotonic() + pause >= deadline:
                    raise InfrastructureError(
                        f"{service.schema.name}: no answer after {len(tried)} attempts in "
                        f"{time.monotonic() - started:.1f} s; the last, at {replica.url}: {error}"
                    ) from error
            service.stats.retries += 1
            await asyncio.sleep(pause)

    def _patience(self, service: _Service, tried: list[Replica], deadline: float) -> float:
        """Seconds for one attempt: half of what is left while another replica could be asked after it."""
        left = max(deadline - time.monotonic(), 0.001)
        return left / 2 if has_alternative(service.replicas, tried) else left

    def _pause(self, service: _Service, tried: list[Replica], failures: int, error: _AttemptError) -> float:
        """Seconds before the next attempt: almost none where a fresh replica is left."""
        if has_alternative(service.replicas, tried):
            return self._random.uniform(0, 0.02)
        if error.retry_after is not None:
            growing = error.retry_after * 1.5 ** min(len(tried) - 1, 10)
            return min(growing, _MAX_BACKOFF_SECONDS) * self._random.uniform(0.5, 1.5)
        return min(_BACKOFF_SECONDS * 2.0 ** (failures - 1), _MAX_BACKOFF_SECONDS) * self._random.uniform(0.5, 1.0)

    async def _attempt(
        self, service: _Service, replica: Replica, arguments: dict[str, Any], images: dict[str, Image], timeout: float
    ) -> Entry:
        replica.outstanding += 1
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(service, replica, arguments, images, timeout)
        except TimeoutError as error:
            raise _AttemptError(f"no answer within {timeout:.1f} s", unhealthy=True) from error
        except httpx.HTTPError as error:
            raise _AttemptError(_describe(error), unhealthy=True) from error
        finally:
            replica.outstanding -= 1

    async def _exchange(
        self, service: _Service, replica: Replica, arguments: dict[str, Any], images: dict[str, Image], timeout: float
    ) -> Entry:
        for image in images.values():
            if len(image.data) > INLINE_BYTES and not replica.knows(image.sha256):
                await self._upload(replica, image)
        problem = None
        for _ in range(2):  # the second time with the pictures that the server has dropped
            body, sent = _body(replica, arguments, images)
            headers = {**_HEADERS, wire.TIMEOUT_HEADER: f"{timeout:.3f}"}
            answer = await replica.send("POST", f"/v1/tools/{service.schema.name}", body, headers)
            if answer.status_code == 200:
                for sha256 in sent:
                    replica.remember(sha256)
                return _result_of(replica, answer)
            problem = _problem_of(answer)
            if problem.kind != wire.MISSING_IMAGES:
                return _error_of(replica, problem, answer)
            for image in images.values():
                replica.forget(image.sha256)
        raise _AttemptError("the server drops pictures as fast as they are sent")

    # ---- pictures -----------------------------------------------------------------------------------------------

    async def _upload(self, replica: Replica, image: Image) -> None:
        """Put a picture on a server unless it is there; concurrent calls wait for the same upload."""
        place = (replica.url, image.sha256)
        task = self._uploads.get(place)
        if task is None:
            task = self._uploads[place] = asyncio.create_task(self._put(replica, image))
            task.add_done_callback(lambda _: self._uploads.pop(place, None))
            task.add_done_callback(_look_at)
        await asyncio.shield(task)

    async def _put(self, replica: Replica, image: Image) -> None:
        path = f"/v1/images/{image.sha256}"
        answer = await replica.send("HEAD", path, timeout=self._timeout)
        if answer.status_code == 404:
            answer = await replica.send("PUT", path, image.data, timeout=self._timeout)
        if answer.is_success:
            replica.remember(image.sha256)
        else:
            error = _error_of(replica, _problem_of(answer), answer)
            raise error.as_error()

    # ---- health -------------------------------------------------------------------------------------------------

    def _set_aside(self, replica: Replica) -> None:
        replica.forget_all()
        replica.failures += 1
        if not replica.set_aside:
            replica.set_aside = True
            task = asyncio.create_task(self._probe(replica))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _probe(self, replica: Replica) -> None:
        """Ask until it says ready, the later for the first time the more often it has failed since its last answer: one
        whose tool hangs says ready all the same."""
        pause = min(0.1 * 2.0 ** (replica.failures - 1), _MAX_SET_ASIDE_SECONDS)
        while replica.set_aside:
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            try:
                answer = await self._get(replica, "/readyz", _PROBE_SECONDS)
                replica.set_aside = answer.status_code != 200
            except httpx.HTTPError:
                pass
            pause = min(2 * pause, max(pause, _MAX_BACKOFF_SECONDS))


class _Flight:
    """A request that several callers wait for. It is given up when the last of them is."""

    def __init__(self, task: "asyncio.Task[tuple[Entry, bool]]") -> None:
        self.task = task
        self._waiting = 0
        task.add_done_callback(_look_at)

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


def _key(schema: ToolSchema, arguments: dict[str, Any], images: dict[str, Image]) -> str:
    try:
        return cache_key(schema, arguments, {name: image.sha256 for name, image in images.items()})
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"The arguments are not JSON: {error}") from error


def _body(replica: Replica, arguments: dict[str, Any], images: dict[str, Image]) -> tuple[bytes, list[str]]:
    """A request, and the hashes of the pictures that travel in it."""
    refs = {
        name: wire.ImageRef(image.sha256, None if replica.knows(image.sha256) else image.data)
        for name, image in images.items()
    }
    try:
        body = wire.encode_request(wire.CallRequest(arguments, refs), wire.MSGPACK)
    except wire.WireError as error:
        raise ModelError(f"The arguments cannot be sent: {error}") from error
    return body, [ref.sha256 for ref in refs.values() if ref.data is not None]


def _result_of(replica: Replica, answer: httpx.Response) -> ToolResult:
    try:
        result = wire.decode_result(answer.content, wire.media_type_of(answer.headers.get("content-type")))
    except (wire.WireError, ImageDecodeError, TypeError, AttributeError) as error:
        raise _AttemptError(f"the answer cannot be read: {error}") from error
    for image in result.images:  # the server keeps what it made: the next call names it by hash
        replica.remember(image.sha256)
    return result


def _problem_of(answer: httpx.Response) -> wire.Problem:
    try:
        document = wire.decode(answer.content, wire.JSON)
    except wire.WireError:
        document = None
    return wire.Problem.from_document(document, answer.status_code)


def _error_of(replica: Replica, problem: wire.Problem, answer: httpx.Response) -> CachedError:
    """The model's error, to be read and kept; others are raised, also those of the model's that other settings of the
    server would change (404, 413, 415)."""
    if problem.family == "model":
        error = CachedError(problem.detail, problem.kind)
        if problem.status != 422:
            raise error.as_error()
        return error
    if problem.family == "user":
        raise UserError(f"{replica.url} refuses: {problem.detail}", "api_keys" if problem.status == 401 else "")
    raise _AttemptError(
        f"{problem.status} {problem.kind}: {problem.detail}",
        unhealthy=problem.status in _UNHEALTHY_STATUS,
        retry_after=_retry_after(problem, answer) if problem.status == 429 else None,
    )


def _retry_after(problem: wire.Problem, answer: httpx.Response) -> float:
    """Seconds. The document says it finer than the header; one tenth where neither does."""
    try:
        said = float(problem.extra.get("retry_after_seconds", answer.headers.get("retry-after", 0.1)))
    except (TypeError, ValueError):
        said = 0.1
    return min(max(said, 0.01), _MAX_BACKOFF_SECONDS)


def _schemas_of(replica: Replica, answer: httpx.Response) -> list[ToolSchema]:
    if answer.status_code != 200:
        problem = _problem_of(answer)
        raise UserError(f"{replica.url} does not list its tools: {problem.detail}", "endpoints")
    try:
        return [_schema_of(member) for member in wire.decode(answer.content, wire.JSON)["tools"]]
    except (wire.WireError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{replica.url} is not a tool server: {error}", "endpoints") from error


def _schema_of(document: Mapping[str, Any]) -> ToolSchema:
    known = {name: value for name, value in document.items() if name in ToolSchema.model_fields}
    return ToolSchema.model_validate(known)  # members that a newer server adds are not an error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Keep asyncio from complaining about an error that every waiting caller has got, or nobody waited for."""
    if not task.cancelled():
        task.exception()
