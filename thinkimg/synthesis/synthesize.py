"""Cold-start trajectories: planned, executed through the live tools by the agent loop, filtered, reasons counted."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from thinkimg.agent.agent import Agent, Task
from thinkimg.trajectory import Trajectory


@dataclass(frozen=True)
class Filters:
    """Attributes:
    require_correct: keep only trajectories whose answer is right, by `scorer`.
    max_tool_errors: keep only those with at most so many failed calls.
    """

    require_correct: bool = True
    max_tool_errors: int = 0

    def refuse(self, trajectory: Trajectory, scorer: Callable[[str | None, str], bool]) -> str | None:
        """The reason to drop it, or None."""
        if trajectory.status != "answered":
            return f"ended: {trajectory.status}"
        if sum(result.error is not None for result in trajectory.tool_results) > self.max_tool_errors:
            return "tool error"
        if self.require_correct and not scorer(trajectory.answer, trajectory.reference or ""):
            return "wrong answer"
        return None


@dataclass
class Synthesis:
    """`dropped` counts reasons."""

    kept: list[Trajectory] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


async def synthesize(
    agent: Agent,
    tasks: Sequence[Task],
    scorer: Callable[[str | None, str], bool],
    filters: Filters,
    seed: int,
    concurrency: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> Synthesis:
    """Run one trajectory per task; what is kept stands in the order of the tasks, whatever finished first."""
    gate = asyncio.Semaphore(concurrency)
    done = 0

    async def run(task: Task) -> Trajectory:
        nonlocal done
        async with gate:
            number = int.from_bytes(hashlib.sha256(f"{seed}/{task.id}".encode()).digest()[:7])
            trajectory = await agent.run(task, seed=number, temperature=1.0)
        done += 1
        progress(done)
        return trajectory

    result = Synthesis()
    for trajectory in await asyncio.gather(*(run(task) for task in tasks)):
        reason = filters.refuse(trajectory, scorer)
        if reason:
            result.dropped[reason] += 1
        else:
            trajectory.correct = True if filters.require_correct else None
            result.kept.append(trajectory)
    return result
