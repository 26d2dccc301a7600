"""One call over HTTP: which replica is asked, when another one is, and how its pictures get there."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from thinkimg import wire
from thinkimg.client.balancing import choose, has_alternative
from thinkimg.client.cache import CachedError, Entry
from thinkimg.client.pool import ReplicaPool
from thinkimg.client.replica import Replica, problem_of
from thinkimg.client.stats import ToolStats
from thinkimg.errors import InfrastructureError, ModelError, UserError, describe
from thinkimg.image import Image, ImageDecodeError
from thinkimg.tools.tool import ToolResult, ToolSchema

INLINE_BYTES = 64 * 1024
"""Pictures up to this size go inside the first call that needs them; larger ones are put on the server beforehand, once
for all calls that wait for them."""

_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 0.1
_ENOUGH_CALLS = 20
_HEADERS = {"content-type": wire.MSGPACK, "accept": wire.MSGPACK}


@dataclass(frozen=True)
class Call:
    """What is asked: the arguments name the images by handle. `caller`: see `ToolClient.call`."""

    schema: ToolSchema
    arguments: Mapping[str, Any]
    images: Mapping[str, Image]
    deadline: float
    stats: ToolStats
    caller: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {wire.CALLER_HEADER: self.caller} if self.caller else {}

    @property
    def picture(self) -> str | None:
        """What a replica should have an affinity to."""
        if not self.schema.image_affinity:
            return None
        return next((image.sha256 for image in self.images.values()), None)


class _AttemptError(Exception):
    """One attempt failed by nobody's argument.

    Args:
        blame: whether the replica is `gone`, `late`, or none of these.
        retry_after: seconds to wait before another try there. The work was not begun, and such tries are not counted.
    """

    def __init__(self, reason: str, blame: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.blame = blame
        self.retry_after = retry_after


class Dispatcher:
    """Args:
    retries: further attempts after infrastructure errors; see `ToolClient`.
    hedge_at, patience: see `ToolClient`.
    """

    def __init__(self, pool: ReplicaPool, retries: int, hedge_at: float | None, patience: int = 0) -> None:
        self._pool = pool
        self._retries = retries
        self._hedge_at = hedge_at
        self._patience = patience
        self._uploads: dict[tuple[Replica, str, str], asyncio.Task[None]] = {}
        self._random = random.Random()

    async def close(self) -> None:
        uploads = list(self._uploads.values())
        for task in uploads:
            task.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    async def fetch(self, call: Call) -> Entry:
        """Try replicas until one answers, the attempts are used up, or the deadline passes.

        Raises:
            ModelError, UserError: as the server said.
            InfrastructureError: no answer.
        """
        started = time.monotonic()
        seconds = call.deadline - started
        tried: list[Replica] = []
        failures = renewals = 0
        answers = call.stats.answers
        call.stats.http_calls += 1
        while True:
            try:
                entry = await self._ask(call, tried)
                call.stats.record_latency(time.monotonic() - started)
                return entry
            except _AttemptError as error:
                failures += error.retry_after is None
                pause = self._pause(call, tried, failures, error)
                over = time.monotonic() + pause >= call.deadline
                queued = over or error.blame == "late"
                if queued and renewals < self._patience and call.stats.answers > answers:
                    renewals, failures, answers = renewals + 1, 0, call.stats.answers
                    call = replace(call, deadline=time.monotonic() + pause + seconds)
                elif failures > self._retries or over:
                    raise InfrastructureError(
                        f"{call.schema.name}: no answer after {len(tried)} attempts in "
                        f"{time.monotonic() - started:.1f} s; the last: {error}"
                    ) from error
            call.stats.retries += 1
            await asyncio.sleep(pause)

    def _pause(self, call: Call, tried: list[Replica], failures: int, error: _AttemptError) -> float:
        """Seconds before the next attempt: almost none where a fresh replica is left."""
        if has_alternative(self._replicas(call), tried):
            return self._random.uniform(0, 0.02)
        if error.retry_after is not None:
            growing = error.retry_after * 1.5 ** min(len(tried), 10)
            return min(growing, _MAX_BACKOFF_SECONDS) * self._random.uniform(0.5, 1.0)
        return min(_BACKOFF_SECONDS * 2.0 ** (failures - 1), _MAX_BACKOFF_SECONDS) * self._random.uniform(0.5, 1.0)

    def _replicas(self, call: Call) -> list[Replica]:
        service = self._pool.services.get(call.schema.name)
        return service.replicas if service else []

    # ---- one replica, or two ------------------------------------------------------------------------------------

    async def _ask(self, call: Call, tried: list[Replica]) -> Entry:
        usual = call.stats.percentile_seconds(self._hedge_at, _ENOUGH_CALLS) if self._hedge_at is not None else None
        if usual is None:
            return await self._attempt(call, tried)
        attempts = [self._start(call, tried)]
        try:
            done, _ = await asyncio.wait(attempts, timeout=usual)
            if not done and has_alternative(self._replicas(call), tried):
                call.stats.hedges += 1
                attempts.append(self._start(call, tried))
            return await _first_success(attempts)
        finally:
            for task in attempts:
                task.cancel()

    def _start(self, call: Call, tried: list[Replica]) -> "asyncio.Task[Entry]":
        task = asyncio.create_task(self._attempt(call, tried))
        task.add_done_callback(look_at)
        return task

    async def _attempt(self, call: Call, tried: list[Replica]) -> Entry:
        """Ask the replica that is chosen; it is added to `tried`. Raises `_AttemptError`."""
        replicas = self._replicas(call)
        if not replicas:
            raise _AttemptError("nobody serves it just now", retry_after=_RETRY_AFTER_SECONDS)
        replica = choose(replicas, tried, self._random, call.picture)
        tried.append(replica)
        left = max(call.deadline - time.monotonic(), 0.001)
        seconds = left / 2 if has_alternative(replicas, tried) else left
        started = time.monotonic()
        try:
            async with replica.attempt(call.schema.name, seconds):
                entry = await self._exchange(replica, call, seconds)
            self._pool.answered(replica, started)
            return entry
        except TimeoutError:
            failure = _AttemptError(f"no answer within {time.monotonic() - started:.1f} s", "late")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = _AttemptError(describe(error), "gone", _RETRY_AFTER_SECONDS)
        except httpx.HTTPError as error:
            failure = _AttemptError(describe(error), "gone")
        except _AttemptError as error:
            failure = error
        if failure.blame == "gone":
            self._pool.gone(replica)
        elif failure.blame == "late":
            self._pool.late(replica, call.schema.name)
        raise _AttemptError(f"{replica.url}: {failure}", failure.blame, failure.retry_after) from failure.__cause__

    async def _exchange(self, replica: Replica, call: Call, seconds: float) -> Entry:
        for image in call.images.values():
            if len(image.data) > INLINE_BYTES and not replica.knows(image.sha256, call.caller):
                await self._upload(replica, image, call)
        for _ in range(2):  # the second time with the pictures that the server has dropped
            body, sent = _body(replica, call)
            headers = {**_HEADERS, **call.headers, wire.TIMEOUT_HEADER: f"{seconds:.3f}"}
            answer = await replica.send("POST", f"/v1/tools/{call.schema.name}", body, headers)
            if answer.status_code == 200:
                for sha256 in sent:
                    replica.remember(sha256, call.caller)
                return _result_of(replica, answer, call.caller)
            problem = problem_of(answer)
            if problem.kind != wire.MISSING_IMAGES:
                return _error_of(replica, problem, answer)
            for image in call.images.values():
                replica.forget(image.sha256, call.caller)
        raise _AttemptError("the server drops pictures as fast as they are sent")

    # ---- pictures -----------------------------------------------------------------------------------------------

    async def _upload(self, replica: Replica, image: Image, call: Call) -> None:
        """Put a picture on a server unless it is there; concurrent calls of one caller wait for the same upload."""
        place = (replica, image.sha256, call.caller)
        task = self._uploads.get(place)
        if task is None:
            task = self._uploads[place] = asyncio.create_task(_put(replica, image, call))
            task.add_done_callback(lambda _: self._uploads.pop(place, None))
            task.add_done_callback(look_at)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # closed under us, not cancelled by our caller
                raise InfrastructureError("the client was closed") from None
            raise


async def _put(replica: Replica, image: Image, call: Call) -> None:
    path = f"/v1/images/{image.sha256}"
    answer = await replica.send("HEAD", path, headers=call.headers, timeout=60)
    if answer.status_code == 404:
        answer = await replica.send("PUT", path, image.data, call.headers, timeout=60)
    if answer.is_success:
        replica.remember(image.sha256, call.caller)
    else:
        raise _error_of(replica, problem_of(answer), answer).as_error()


async def _first_success(attempts: "list[asyncio.Task[Entry]]") -> Entry:
    """The result of the first attempt that has one; what the last of them raised if none has."""
    waiting = set(attempts)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answered = [task for task in done if not isinstance(task.exception(), _AttemptError)]
        if answered or not waiting:
            return (answered or list(done))[0].result()


def _body(replica: Replica, call: Call) -> tuple[bytes, list[str]]:
    """A request, and the hashes of the pictures that travel in it."""
    refs = {
        name: wire.ImageRef(image.sha256, None if replica.knows(image.sha256, call.caller) else image.data)
        for name, image in call.images.items()
    }
    try:
        body = wire.encode_request(wire.CallRequest(dict(call.arguments), refs), wire.MSGPACK)
    except wire.WireError as error:
        raise ModelError(f"The arguments cannot be sent: {error}") from error
    return body, [ref.sha256 for ref in refs.values() if ref.data is not None]


def _result_of(replica: Replica, answer: httpx.Response, caller: str) -> ToolResult:
    try:
        result = wire.decode_result(answer.content, wire.media_type_of(answer.headers.get("content-type")))
    except (wire.WireError, ImageDecodeError, TypeError, AttributeError) as error:
        raise _AttemptError(f"the answer cannot be read: {error}") from error
    for image in result.images:  # the server keeps what it made: the next call names it by hash
        replica.remember(image.sha256, caller)
    return result


def _error_of(replica: Replica, problem: wire.Problem, answer: httpx.Response) -> CachedError:
    """The model's error, to be read and perhaps kept; others are raised, also those of the model's that other settings
    of the server would change (404, 413, 415)."""
    if problem.family == "model":
        error = CachedError(problem.detail, problem.kind)
        if problem.status != 422:
            raise error.as_error()
        return error
    if problem.family == "user":
        raise UserError(f"{replica.url} refuses: {problem.detail}", "api_keys" if problem.status == 401 else "")
    reason = f"{problem.status} {problem.kind}: {problem.detail}"
    if problem.status == 429:
        raise _AttemptError(reason, retry_after=_retry_after(problem, answer))
    if problem.status == 503 and problem.kind in ("loading", "draining"):
        raise _AttemptError(reason, "gone", _RETRY_AFTER_SECONDS)
    raise _AttemptError(reason, {502: "gone", 503: "gone", 504: "late"}.get(problem.status, ""))


def _retry_after(problem: wire.Problem, answer: httpx.Response) -> float:
    """Seconds. The document says it finer than the header; one tenth where neither does."""
    try:
        said = float(problem.extra.get("retry_after_seconds", answer.headers.get("retry-after", _RETRY_AFTER_SECONDS)))
    except (TypeError, ValueError):
        said = _RETRY_AFTER_SECONDS
    return min(max(said, 0.01), _MAX_BACKOFF_SECONDS)


def look_at(task: "asyncio.Task[Any]") -> None:
    """Keep asyncio from complaining about an error that every waiting caller has got, or nobody waited for."""
    if not task.cancelled():
        task.exception()
