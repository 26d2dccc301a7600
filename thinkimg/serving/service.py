"""`ToolService`: the tools of one process and how calls run on them. No HTTP here."""

import asyncio
import importlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from thinkimg import wire
from thinkimg.cache import BoundedCache
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.identity import digest_of, without_secrets
from thinkimg.image import Image, keep_decoded_pictures
from thinkimg.serving.batching import Batcher
from thinkimg.serving.config import ServerConfig, ToolEntry
from thinkimg.serving.health import Health
from thinkimg.serving.metrics import ServerMetrics
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolDeclaration, ToolResult, ToolSchema, normalise_name

_RETRY_AFTER_SECONDS = 0.1
T = TypeVar("T")
log = logging.getLogger(__name__)


class ProblemError(Exception):
    """A request that is answered with a problem document."""

    def __init__(self, problem: wire.Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class ToolService:
    """Tools, their threads, and the pictures held for them.

    Attributes:
        schemas: of the tools, with what computes them here.
        images: by caller and hash. A caller gets what it sent, or what tools made for it; who has most loses first.
        ready: the tools are loaded and the process is not draining.
        health: what probes are told, of overload too.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.tools: dict[str, Tool] = {}
        self.schemas: list[ToolSchema] = []
        self.images: BoundedCache[tuple[str, str], Image] = BoundedCache(config.image_store_bytes, fair=True)
        self.metrics = ServerMetrics()
        self.draining = False
        self.health = Health(self._unready)
        self._loaded = False
        self._by_name: dict[str, Tool] = {}
        self._batchers: dict[str, Batcher] = {}
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="tool")
        self._admitted = 0
        self._admitted_of: Counter[str] = Counter()
        self._queued = 0
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        return self._loaded and not self.draining

    def _unready(self) -> str | None:
        return None if self.ready else "draining" if self.draining else "loading"

    @property
    def in_flight(self) -> int:
        """Calls that run or wait for a thread or a batch."""
        return self._admitted

    @property
    def queue_length(self) -> int:
        """Calls that wait for a thread or a batch."""
        return self._queued + sum(batcher.waiting for batcher in self._batchers.values())

    def load(self) -> None:
        """Load every tool. Takes as long as models take.

        Raises:
            UserError: unknown tool, backend or option; an entry point that is none.
        """
        keep_decoded_pictures(self.config.decoded_bytes)
        for number, entry in enumerate(self.config.tools):
            tool = _load(entry, f"tools[{number}]")
            if tool.name in self.tools:
                raise UserError(f"{tool.name} is served twice", f"tools[{number}]")
            self.tools[tool.name] = tool
            self.schemas.append(tool.schema.model_copy(update={"computed_by": _computed_by(tool, entry)}))
            if tool.batched:
                self._batchers[tool.name] = self._batcher(tool, entry)
            for name in (tool.name, *tool.schema.aliases):
                self._by_name.setdefault(normalise_name(name), tool)
        self._loaded = True

    def _batcher(self, tool: Tool, entry: ToolEntry) -> Batcher:
        waits, sizes = self.metrics.queue_seconds.labels(tool.name), self.metrics.batch_size.labels(tool.name)

        def started(waited: list[float]) -> None:
            sizes.observe(len(waited))
            for seconds in waited:
                waits.observe(seconds)

        batching = entry.batching
        return Batcher(tool.name, tool.run_batch, batching.max_size, batching.max_wait_milliseconds / 1000, started)

    def find(self, name: str) -> Tool:
        """Raises `ProblemError` 404, or 503 while nothing is loaded or the process ends."""
        if not self.ready:
            kind = self._unready() or "loading"
            raise ProblemError(wire.Problem(503, "infrastructure", kind, f"the server is {kind}"))
        tool = self._by_name.get(normalise_name(name))
        if tool is None:
            detail = f"There is no tool {name[:80]!r}. The tools are {', '.join(self.tools)}."
            raise ProblemError(wire.Problem(404, "model", "unknown_tool", detail))
        return tool

    # ---- on the loop ------------------------------------------------------------------------------------------------

    async def execute(
        self,
        tool: Tool,
        read: Callable[[], wire.CallRequest],
        write: Callable[[ToolResult], T],
        deadline: float,
        caller: str = "",
    ) -> T:
        """Run one call in a thread, or in a batch if the tool computes in batches.

        Work that still waits when the deadline passes, or when the caller is cancelled, is never begun. Work that runs
        then goes on unheard, and keeps its place in the count of admitted calls.

        Args:
            read: gives the request; runs in a thread.
            write: makes the answer of the result; runs in a thread.
            deadline: on `time.monotonic`'s clock.
            caller: on whose behalf, see `wire.CALLER_HEADER`.

        Raises:
            ProblemError: whatever went wrong, by family: 429 when the queue is full, 504 after the deadline. Internals
                of an unexpected error go to the log, not to the caller.
        """
        place = self._admit(caller)
        batcher = self._batchers.get(tool.name)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                if batcher is None:
                    return await self._in_thread(place, tool, lambda: write(self._run(tool, read(), caller)), deadline)
                bound = await self._in_thread(place, tool, lambda: self._bind(tool, read(), caller), deadline)
                outcome = await batcher.submit(bound, deadline)
                return await self._in_thread(place, tool, lambda: write(self._outcome(tool, outcome, caller)), deadline)
        except TimeoutError as error:
            self.metrics.abandoned.labels(tool.name, "deadline").inc()
            problem = wire.Problem(504, "infrastructure", "deadline", "the deadline passed before there was a result")
            raise ProblemError(problem) from error
        except asyncio.CancelledError:
            self.metrics.abandoned.labels(tool.name, "client_left").inc()
            raise
        finally:
            place.leave()

    @property
    def _most(self) -> int:
        return self.config.workers + self.config.max_queue

    def _admit(self, caller: str) -> "_Place":
        """A caller that is named by whoever calls for many gets no more than the workers and half of the queue."""
        with self._lock:
            most = self._most
            own = most - self.config.max_queue // 2 if caller else most
            if self._admitted >= most:
                self.health.full("queue", f"{self._admitted} calls are under way, as many as may wait or run")
            if self._admitted >= most or self._admitted_of[caller] >= own:
                detail = f"{self._admitted} calls are under way, {self._admitted_of[caller]} of them of this caller"
                extra = {"retry_after_seconds": _RETRY_AFTER_SECONDS}  # the header has whole seconds only
                raise ProblemError(wire.Problem(429, "infrastructure", "overloaded", detail, extra))
            self._admitted += 1
            self._admitted_of[caller] += 1
        return _Place(lambda: self._release(caller))

    def _release(self, caller: str) -> None:
        with self._lock:
            self._admitted -= 1
            self.health.taken("queue", self._admitted, self._most)
            self._admitted_of[caller] -= 1
            if not self._admitted_of[caller]:
                del self._admitted_of[caller]

    async def _in_thread(self, place: "_Place", tool: Tool, work: Callable[[], T], deadline: float) -> T:
        asked = time.monotonic()
        waits = self.metrics.queue_seconds.labels(tool.name) if tool.name not in self._batchers else None

        def begin() -> T:
            self._count_queued(-1)
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError
            if waits is not None:
                waits.observe(now - asked)
            return work()

        self._count_queued(1)
        place.work = future = self._pool.submit(begin)
        future.add_done_callback(lambda ended: self._count_queued(-1) if ended.cancelled() else None)
        return await asyncio.wrap_future(future)

    def _count_queued(self, change: int) -> None:
        with self._lock:
            self._queued += change

    # ---- in a thread ------------------------------------------------------------------------------------------------

    def _run(self, tool: Tool, request: wire.CallRequest, caller: str) -> ToolResult:
        images = self._gather(request.images, caller)
        try:
            result = tool.run(request.arguments, images)
        except Exception as error:
            raise self._problem(tool, error) from error
        return self._kept(result, caller)

    def _bind(self, tool: Tool, request: wire.CallRequest, caller: str) -> Mapping[str, Any]:
        images = self._gather(request.images, caller)
        try:
            return tool.bind(request.arguments, images)
        except Exception as error:
            raise self._problem(tool, error) from error

    def _outcome(self, tool: Tool, outcome: ToolResult | Exception, caller: str) -> ToolResult:
        if isinstance(outcome, ToolResult):
            return self._kept(outcome, caller)
        raise self._problem(tool, outcome) from outcome

    def _problem(self, tool: Tool, error: Exception) -> ProblemError:
        if isinstance(error, ModelError):
            return ProblemError(wire.Problem(422, "model", error.kind, str(error)))
        if isinstance(error, InfrastructureError):
            return ProblemError(wire.Problem(503, "infrastructure", "backend_unavailable", str(error)))
        log.error("%s failed", tool.name, exc_info=error)
        detail = f"{tool.name} failed; the server's log says why"
        return ProblemError(wire.Problem(500, "infrastructure", "tool_failed", detail))

    def _kept(self, result: ToolResult, caller: str) -> ToolResult:
        for image in result.images:
            self._hold(image, caller)
        return result

    def _hold(self, image: Image, caller: str) -> Image:
        image = image.held_for(caller)
        self.images.put((caller, image.sha256), image, len(image.data), caller)
        return image

    def keep(self, sha256: str, data: bytes, caller: str = "") -> Image:
        """Check a picture and hold it for a caller.

        Raises:
            ProblemError: too large, unreadable, or not of this hash.
        """
        image = self._decode(data)
        if image.sha256 != sha256:
            detail = f"the data has sha256 {image.sha256}, not {sha256}"
            raise ProblemError(wire.Problem(422, "user", "wrong_hash", detail))
        return self._hold(image, caller)

    def held(self, sha256: str, caller: str = "") -> Image | None:
        """A picture that this caller sent, or that was made for it."""
        return self.images.get((caller, sha256))

    def _gather(self, refs: dict[str, wire.ImageRef], caller: str) -> dict[str, Image]:
        found = {
            name: self.held(ref.sha256, caller) if ref.data is None else self.keep(ref.sha256, ref.data, caller)
            for name, ref in refs.items()
        }
        missing = [refs[name].sha256 for name, image in found.items() if image is None]
        if missing:
            detail = "pictures that the server does not hold; send the request again with their data"
            extra = {"sha256": sorted(set(missing))}
            raise ProblemError(wire.Problem(409, "infrastructure", wire.MISSING_IMAGES, detail, extra))
        return {name: image for name, image in found.items() if image is not None}

    def _decode(self, data: bytes) -> Image:
        read = wire.read_image(data, self.config.max_image_bytes, self.config.max_image_pixels)
        if isinstance(read, wire.Problem):
            raise ProblemError(read)
        return read


class _Place:
    """One call's place among the admitted ones: free again when the call has ended and no thread works for it."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.work: Future[Any] | None = None
        self._release = release

    def leave(self) -> None:
        if self.work is None:
            self._release()
        else:
            self.work.add_done_callback(lambda _: self._release())  # at once, if it is done


# ---- loading --------------------------------------------------------------------------------------------------------


def _load(entry: ToolEntry, path: str) -> Tool:
    try:
        if entry.name is not None:
            return load_tool(entry.name, entry.backend, entry.options)
        return _load_entry_point(entry, f"{path}.entry_point")
    except ModelError as error:  # the registry speaks to models; here a user has misspelt the name
        raise UserError(str(error), f"{path}.name") from error
    except UserError as error:
        if error.field.startswith(path):
            raise
        message = str(error).removeprefix(f"{error.field}: ")
        raise UserError(message, f"{path}.{error.field}" if error.field else path) from error


_WHERE = ("device", "threads", "timeout_seconds", "api_key_variable")
"""Options of backends that change no result."""


def _computed_by(tool: Tool, entry: ToolEntry) -> str:
    """See `ToolSchema.computed_by`."""
    backend = entry.backend or next(iter(tool.declaration.backends), "")
    options = _of_results(without_secrets(entry.options))
    return f"{backend} {digest_of(options)}" if options else backend


def _of_results(options: Any) -> Any:
    if not isinstance(options, Mapping):
        return options
    named = {re.sub("(?<=[a-z])(?=[A-Z])", "_", str(name)).lower(): value for name, value in options.items()}
    return {name: _of_results(value) for name, value in named.items() if name not in _WHERE}


def _load_entry_point(entry: ToolEntry, path: str) -> Tool:
    found = _import(str(entry.entry_point), path)
    if isinstance(found, ToolDeclaration):
        return found.load(entry.backend, entry.options)
    if isinstance(found, Tool):
        return found
    raise UserError(
        f"{entry.entry_point} is a {type(found).__name__}, not a tool made by `thinkimg.tools.tool.tool`", path
    )


def _import(entry_point: str, path: str) -> Any:
    module, _, attribute = entry_point.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{entry_point} cannot be imported: {error}", path) from error
