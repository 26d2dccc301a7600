"""Rollouts for reinforcement learning: many trajectories at once on one long-lived event loop.

The trainer's thread blocks in `RolloutEngine.run`; the loop's thread runs one coroutine per trajectory, so that a
finished turn goes to its tools while other turns are still being generated. Nothing here knows of ranks or tensors.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from thinkimg.training.forking import Fork, continue_fork
from thinkimg.trajectory import Trajectory

if TYPE_CHECKING:
    from thinkimg.agent.agent import Agent
    from thinkimg.trajectory import Task

T = TypeVar("T")


class Actor(Protocol):
    """What makes a trajectory of a task: `thinkimg.agent.agent.Agent`."""

    async def run(self, task: "Task", seed: int, temperature: float = 1.0) -> Trajectory:
        """Never raises for the model's or the infrastructure's faults; the latter give status `infrastructure`."""
        ...


@dataclass(frozen=True)
class Request:
    """One trajectory to be made.

    Attributes:
        row: names this visit of the task (step and task), so that a later visit has other random numbers.
        generation: number within the group, from 0.
        fork: a state to go on from, rather than the task's beginning; needs an `Agent`.
    """

    task: "Task"
    row: str
    generation: int = 0
    fork: Fork | None = None


def seed_of(seed: int, row: str, generation: int) -> int:
    """63 bits of SHA-256: the randomness of one trajectory depends on these three values and on nothing else. A further
    attempt at it has the same: another sample would leave out what the infrastructure fails at, long answers first."""
    digest = hashlib.sha256(f"{seed}\x1f{row}\x1f{generation}\x1f0".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RolloutEngine:
    """Runs trajectories concurrently, and those again, with their seeds, that the infrastructure failed.

    Args:
        agent: makes the trajectories; its coroutines all run on this engine's loop.
        seed: of the run.
        concurrency: most trajectories under way at once.
        attempts: how often one trajectory is tried when the infrastructure fails; after the last it is returned as it
            is, with status `infrastructure`.
        backoff_seconds: pause before the second attempt; doubled before each further one.
    """

    def __init__(
        self,
        agent: Actor,
        seed: int = 0,
        temperature: float = 1.0,
        concurrency: int = 256,
        attempts: int = 3,
        backoff_seconds: float = 0.5,
    ) -> None:
        self.agent = agent
        self.seed = seed
        self.temperature = temperature
        self.attempts = attempts
        self.backoff_seconds = backoff_seconds
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollouts", daemon=True)
        self._thread.start()

    def run(self, requests: Sequence[Request]) -> list[Trajectory]:
        """All trajectories, in the order of `requests`; blocks until the last is done.

        `meta` of each says `row`, `generation`, `attempt` and `start` (seconds after the call). An exception of an
        agent is a bug: the others are cancelled and it is raised here.
        """
        return self.call(self._run_all(requests))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it. Interrupting the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> "RolloutEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run_all(self, requests: Sequence[Request]) -> list[Trajectory]:
        began = time.monotonic()
        tasks = [asyncio.create_task(self._run_one(request, began)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _run_one(self, request: Request, began: float) -> Trajectory:
        async with self._slots:
            seed = seed_of(self.seed, request.row, request.generation)
            for attempt in range(self.attempts):
                if attempt:
                    await asyncio.sleep(self.backoff_seconds * 2 ** (attempt - 1))
                start = time.monotonic() - began
                trajectory = await self._make(request, seed)
                trajectory.meta |= {"row": request.row, "generation": request.generation, "attempt": attempt}
                trajectory.meta["start"] = round(start, 4)
                if trajectory.status != "infrastructure":
                    break
        return trajectory

    async def _make(self, request: Request, seed: int) -> Trajectory:
        if request.fork is None:
            return await self.agent.run(request.task, seed, self.temperature)
        return await continue_fork(cast("Agent", self.agent), request.fork, seed, self.temperature)
