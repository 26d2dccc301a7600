"""One thread owns a vLLM engine: it alone adds requests, steps, aborts, sleeps, wakes and takes new weights.

Everybody else posts commands to its queue. Results are futures on the caller's event loop, so that a finished turn goes
to its tools while the engine goes on with the others: there are no rounds.
"""

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from thinkimg.errors import InfrastructureError
from thinkimg.pulse import PULSE

T = TypeVar("T")

_set_num_threads = torch.set_num_threads
"""Torch's own: vLLM's CPU worker puts one in its place that does nothing, and its attention ends the process when two
threads have different numbers."""


@dataclass(frozen=True)
class _Waiting:
    """Who waits for a request."""

    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class EngineThread:
    """Args:
        engine: a `vllm.v1.engine.llm_engine.LLMEngine` in this process; from now on only the thread touches it.
        device: of the engine; the current device, grad mode and thread count are thread-local, so the thread sets them.

    Attributes:
        steps: engine steps so far.
        most_running: most requests that were in the engine at once.
    """

    def __init__(self, engine: Any, device: torch.device | None = None) -> None:
        self.engine = engine
        self.device = device or torch.device("cpu")
        self.steps = 0
        self.most_running = 0
        self._names = itertools.count()
        self._waiting: dict[str, _Waiting] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed: str | None = None
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._main, name="vllm-engine", daemon=True)
        self._thread.start()

    # ---- from other threads ---------------------------------------------------------------------------------------

    async def generate(self, prompt: Any, sampling: Any) -> Any:
        """The finished `RequestOutput` of one request. Cancelling the wait aborts it.

        Raises:
            InfrastructureError: the engine failed, or is closed.
            ValueError: vLLM refuses the request.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future())
        name = str(next(self._names))
        self._commands.put(lambda: self._add(name, prompt, sampling, waiting))
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._commands.put(lambda: self._abort([name]))
            raise

    def run(self, work: Callable[[Any], T]) -> T:
        """`work(engine)` on the engine's thread between two steps; blocks, and returns or raises what it does.

        Raises:
            InfrastructureError: the thread is closed.
        """
        if threading.current_thread() is self._thread:
            return work(self.engine)
        future: Future[T] = Future()

        def command() -> None:
            if self._closed is not None:
                future.set_exception(InfrastructureError(self._closed))
                return
            try:
                future.set_result(work(self.engine))
            except BaseException as error:
                future.set_exception(error)

        self._commands.put(command)
        while True:
            try:
                return future.result(timeout=1.0)
            except TimeoutError:
                if future.done():  # the work's own
                    raise
                if not self._thread.is_alive():  # it ended before it came to this command
                    raise InfrastructureError("the engine is closed") from None

    def drop_requests(self, reason: str) -> None:
        """Abort what is still in the engine; whoever waits gets an `InfrastructureError`. Blocks until it is done."""
        self.run(lambda _: self._fail(InfrastructureError(reason)))

    def close(self) -> None:
        """End the thread; whoever still waits gets an `InfrastructureError`. The engine itself stays. Idempotent."""
        if self._thread.is_alive():
            self._commands.put(lambda: self._end("the engine is closed"))
            self._thread.join()

    # ---- the thread -----------------------------------------------------------------------------------------------

    def _main(self) -> None:
        torch.set_grad_enabled(False)
        _set_num_threads(self._torch_threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        while self._closed is None:
            self._take_commands(block=not self._waiting)
            if self._waiting and self._closed is None:
                self._step()
        self._take_commands(block=False)  # whoever came in the meantime hears that it is closed

    def _take_commands(self, block: bool) -> None:
        """All that have come; with `block`, wait for the first."""
        try:
            command = self._commands.get(block)
            while True:
                command()
                command = self._commands.get_nowait()
        except queue.Empty:
            return

    def _add(self, name: str, prompt: Any, sampling: Any, waiting: _Waiting) -> None:
        if self._closed is not None:
            waiting.settle(error=InfrastructureError(self._closed))
            return
        if waiting.future.cancelled():
            return
        try:
            self.engine.add_request(name, prompt, sampling)
        except Exception as error:  # this request is wrong; the engine and the others are not
            waiting.settle(error=error)
            return
        self._waiting[name] = waiting
        self.most_running = max(self.most_running, len(self._waiting))

    def _abort(self, names: list[str]) -> None:
        known = [name for name in names if self._waiting.pop(name, None) is not None]
        if known and self._closed is None:
            self.engine.abort_request(known)

    def _step(self) -> None:
        try:
            outputs = self.engine.step()
        except Exception as error:
            self._fail(InfrastructureError(f"the engine failed: {error}"))
            return
        self.steps += 1
        PULSE.beat()
        for output in outputs:
            if output.finished and (waiting := self._waiting.pop(output.request_id, None)) is not None:
                waiting.settle(output)

    def _fail(self, error: InfrastructureError) -> None:
        """Everybody in the engine fails; it goes on empty, unless not even that can be done."""
        names, waiting = list(self._waiting), list(self._waiting.values())
        self._waiting.clear()
        for one in waiting:
            one.settle(error=error)
        try:
            self.engine.abort_request(names)
        except Exception as again:
            self._end(f"the engine failed and cannot be emptied: {again}")

    def _end(self, reason: str) -> None:
        self._closed = reason
        for one in self._waiting.values():
            one.settle(error=InfrastructureError(reason))
        self._waiting.clear()
