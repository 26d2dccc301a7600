"""Cold-start trajectories: planned, executed through the live tools by the agent loop, filtered, reasons counted."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from thinkimg.agent.agent import Agent
from thinkimg.api import Filters, Synthesize
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import ITEM, Store, digest_of

DROPPED = "dropped"
"""Key of `Trajectory.meta`: why it was not kept."""

Opinion = Callable[[Trajectory], Awaitable[str | None]]
"""A model's filter: the reason to drop a trajectory, or None."""


def refuse(filters: Filters, trajectory: Trajectory, scorer: Callable[[str | None, str], bool]) -> str | None:
    """The reason to drop a trajectory, or None."""
    if trajectory.status != "answered":
        return f"ended: {trajectory.status}"
    errors = sum(result.error is not None for result in trajectory.tool_results)
    if errors > filters.max_tool_errors:
        return "tool error"
    if len(trajectory.tool_results) - errors < filters.min_tool_calls:
        return "too few tool calls"
    if filters.refuse_repeats and _repeats(trajectory):
        return "repeated call"
    if filters.require_correct and not scorer(trajectory.answer, trajectory.reference or ""):
        return "wrong answer"
    return None


def _repeats(trajectory: Trajectory) -> bool:
    calls = [
        (call.name, repr(sorted(call.arguments.items())))
        for turn in trajectory.turns
        for call in turn.message.tool_calls
    ]
    return len(set(calls)) < len(calls)


@dataclass
class Synthesis:
    """`dropped` counts reasons; kept and dropped together are all tasks."""

    kept: list[Trajectory] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


async def synthesize(
    agent: Agent,
    tasks: Sequence[Task],
    scorer: Callable[[str | None, str], bool],
    spec: Synthesize,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    store: Store | None = None,
    opinion: Opinion | None = None,
) -> Synthesis:
    """Run one trajectory per task; what is kept stands in the order of the tasks, whatever finished first.

    Args:
        spec: its filters and its concurrency are read here; planner, tools and limits are the agent's.
        store: keeps every trajectory, dropped ones with `meta["dropped"]`, so that an interrupted synthesis goes on;
            those that the infrastructure ended are tried again.
        opinion: a model's filter, asked about what the rules keep.
    """
    gate = asyncio.Semaphore(spec.concurrency)
    done = 0

    async def run(task: Task) -> Trajectory:
        nonlocal done
        async with gate:
            if store is not None and store.answered(task):
                trajectory = store.load(task.id)  # its pictures are beside the store's file
            else:
                number = int.from_bytes(hashlib.sha256(f"{seed}/{task.id}".encode()).digest()[:7])
                trajectory = await agent.run(task, seed=number, temperature=1.0)
                await _filter(trajectory, scorer, spec.filters, opinion)
                if store is not None:
                    trajectory.meta[ITEM] = digest_of(task)
                    store.append(trajectory)
        done += 1
        progress(done)
        return trajectory

    result = Synthesis()
    for trajectory in await asyncio.gather(*(run(task) for task in tasks)):
        if reason := trajectory.meta.get(DROPPED):
            result.dropped[reason] += 1
        else:
            result.kept.append(trajectory)
    return result


async def _filter(
    trajectory: Trajectory, scorer: Callable[[str | None, str], bool], filters: Filters, opinion: Opinion | None
) -> None:
    reason = refuse(filters, trajectory, scorer)
    if reason is None and opinion is not None:
        reason = await opinion(trajectory)
    if reason is not None:
        trajectory.meta[DROPPED] = reason
    else:
        trajectory.correct = True if filters.require_correct else None


def repeated(tasks: Sequence[Task], count: int) -> Iterator[Task]:
    """`count` tasks; beyond the questions there are, each again under another name, so that it gets another plan."""
    for number in range(count):
        turn, task = number // len(tasks), tasks[number % len(tasks)]
        yield replace(task, id=f"{task.id}#{turn}") if turn else task
