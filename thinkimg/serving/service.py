"""`ToolService`: the tools of one process and how calls run on them. No HTTP here."""

import asyncio
import importlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from thinkimg.client import wire
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.serving.config import ServerConfig, ToolEntry
from thinkimg.serving.image_store import ImageStore
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolDeclaration, ToolResult, normalise_name

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
        ready: the tools are loaded and the process is not draining.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.tools: dict[str, Tool] = {}
        self.images = ImageStore(config.image_store_bytes)
        self.draining = False
        self._loaded = False
        self._by_name: dict[str, Tool] = {}
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="tool")
        self._admitted = 0
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        return self._loaded and not self.draining

    @property
    def in_flight(self) -> int:
        """Calls that run or wait for a thread."""
        return self._admitted

    def load(self) -> None:
        """Load every tool. Takes as long as models take.

        Raises:
            UserError: unknown tool, backend or option; an entry point that is none.
        """
        for number, entry in enumerate(self.config.tools):
            tool = _load(entry, f"tools[{number}]")
            if tool.name in self.tools:
                raise UserError(f"{tool.name} is served twice", f"tools[{number}]")
            self.tools[tool.name] = tool
            for name in (tool.name, *tool.schema.aliases):
                self._by_name.setdefault(normalise_name(name), tool)
        self._loaded = True

    def find(self, name: str) -> Tool:
        """Raises `ProblemError` 404, or 503 while nothing is loaded or the process ends."""
        if not self.ready:
            kind = "draining" if self.draining else "loading"
            raise ProblemError(wire.Problem(503, "infrastructure", kind, f"the server is {kind}"))
        tool = self._by_name.get(normalise_name(name))
        if tool is None:
            detail = f"There is no tool {name[:80]!r}. The tools are {', '.join(self.tools)}."
            raise ProblemError(wire.Problem(404, "model", "unknown_tool", detail))
        return tool

    async def run(self, work: Callable[[], T], timeout: float) -> T:
        """Run `work` in a thread of the pool.

        Raises:
            ProblemError: 429 when the queue is full, 504 after `timeout` seconds. Work that still waits then is
                dropped; work that runs goes on unheard, and keeps its place in the queue's count.
        """
        future = self._submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError as error:
            raise ProblemError(
                wire.Problem(504, "infrastructure", "deadline", f"no result within {timeout:.1f} s")
            ) from error

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        with self._lock:
            if self._admitted >= self.config.workers + self.config.max_queue:
                detail = f"{self._admitted} calls are under way"
                extra = {"retry_after_seconds": _RETRY_AFTER_SECONDS}  # the header has whole seconds only
                raise ProblemError(wire.Problem(429, "infrastructure", "overloaded", detail, extra))
            self._admitted += 1
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._release())
        return future

    def _release(self) -> None:
        with self._lock:
            self._admitted -= 1

    # ---- in a thread ------------------------------------------------------------------------------------------------

    def execute(self, tool: Tool, request: wire.CallRequest) -> ToolResult:
        """Run one call.

        Raises:
            ProblemError: whatever went wrong, by family. Internals of an unexpected error go to the log, not to the
                caller.
        """
        images = self._gather(request.images)
        try:
            result = tool.run(request.arguments, images)
        except ModelError as error:
            raise ProblemError(wire.Problem(422, "model", error.kind, str(error))) from error
        except InfrastructureError as error:
            raise ProblemError(wire.Problem(503, "infrastructure", "backend_unavailable", str(error))) from error
        except Exception as error:
            log.exception("%s failed", tool.name)
            detail = f"{tool.name} failed; the server's log says why"
            raise ProblemError(wire.Problem(500, "infrastructure", "tool_failed", detail)) from error
        for image in result.images:
            self.images.put(image)
        return result

    def keep(self, sha256: str, data: bytes) -> Image:
        """Check a picture and hold it. Raises `ProblemError`: too large, unreadable, or not of this hash."""
        image = self._decode(data)
        if image.sha256 != sha256:
            detail = f"the data has sha256 {image.sha256}, not {sha256}"
            raise ProblemError(wire.Problem(422, "user", "wrong_hash", detail))
        self.images.put(image)
        return image

    def _gather(self, refs: dict[str, wire.ImageRef]) -> dict[str, Image]:
        found = {
            name: self.images.get(ref.sha256) if ref.data is None else self.keep(ref.sha256, ref.data)
            for name, ref in refs.items()
        }
        missing = [refs[name].sha256 for name, image in found.items() if image is None]
        if missing:
            detail = "pictures that the server does not hold; send the request again with their data"
            extra = {"sha256": sorted(set(missing))}
            raise ProblemError(wire.Problem(409, "infrastructure", wire.MISSING_IMAGES, detail, extra))
        return {name: image for name, image in found.items() if image is not None}

    def _decode(self, data: bytes) -> Image:
        limit = self.config.max_image_bytes
        if len(data) > limit:
            detail = f"The image has {len(data):,} bytes; at most {limit:,} are accepted."
            raise ProblemError(wire.Problem(413, "model", "refused", detail))
        try:
            return Image.from_bytes(data, limit, self.config.max_image_pixels)
        except ImageDecodeError as error:
            raise ProblemError(wire.Problem(415, "model", "refused", str(error))) from error


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
