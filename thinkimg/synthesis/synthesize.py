"""Cold-start trajectories: planned, executed through the live tools by the agent loop, filtered, reasons counted."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from thinkimg.agent.agent import Agent
from thinkimg.api import Filters, Synthesize
from thinkimg.errors import InfrastructureError
from thinkimg.identity import digest_of
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import ITEM, Store
from thinkimg.trajectory.store import digest_of as item_of

DROPPED = "dropped"
"""Key of `Trajectory.meta`: why it was not kept."""
FILTERED = "filtered"
"""Key of `Trajectory.meta`: digest of the filters that decided."""

_ATTEMPTS = 3
LOST = "ended: infrastructure"
"""The reason of those that planner or tools did not finish."""

Verdict = Callable[[Trajectory], Awaitable[float]]
"""How right an answer is: 1 is right. Raises `InfrastructureError`: a judge does not answer."""
Opinion = Callable[[Trajectory], Awaitable[str | None]]
"""A model's filter: the reason to drop a trajectory, or None."""


def refuse(filters: Filters, trajectory: Trajectory) -> str | None:
    """The reason to drop a trajectory whatever its answer is, or None."""
    if trajectory.status != "answered":
        return f"ended: {trajectory.status}"
    errors = sum(result.error is not None for result in trajectory.tool_results)
    if errors > filters.max_tool_errors:
        return "tool error"
    if len(trajectory.tool_results) - errors < filters.min_tool_calls:
        return "too few tool calls"
    if filters.refuse_repeats and _repeats(trajectory):
        return "repeated call"
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
    """`dropped` counts the reasons of `rejected`; these and `kept` together are all tasks."""

    kept: list[Trajectory] = field(default_factory=list)
    rejected: list[Trajectory] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


async def synthesize(
    agent: Agent,
    tasks: Sequence[Task],
    scorer: Verdict,
    spec: Synthesize,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    store: Store | None = None,
    opinion: Opinion | None = None,
    judged_by: str = "",
) -> Synthesis:
    """Run one trajectory per task; what is kept stands in the order of the tasks, whatever finished first.

    Args:
        scorer: asked about what the other filters keep, where a right answer is required.
        spec: its filters and its concurrency are read here; planner, tools and limits are the agent's.
        store: keeps every trajectory, dropped ones with `meta["dropped"]`, so that an interrupted synthesis goes on;
            those that the infrastructure ended are tried again.
        opinion: a model's filter, asked about what the rules keep.
        judged_by: what `scorer` and `opinion` are. A trajectory of the store that other filters have decided about is
            filtered again.
    """
    filters = digest_of([spec.filters.model_dump(mode="json"), judged_by])
    gate = asyncio.Semaphore(spec.concurrency)
    done = 0

    async def decide(trajectory: Trajectory) -> None:
        await _filter(trajectory, scorer, spec.filters, opinion)
        trajectory.meta[FILTERED] = filters

    async def run(task: Task) -> Trajectory:
        nonlocal done
        async with gate:
            if store is not None and store.answered(task):
                trajectory = store.load(task.id)  # its pictures are beside the store's file
                if trajectory.meta.get(FILTERED) != filters:
                    await decide(trajectory)
                    store.append(trajectory)
            else:
                number = int.from_bytes(hashlib.sha256(f"{seed}/{task.id}".encode()).digest()[:7])
                trajectory = await _run(agent, task, number)
                await decide(trajectory)
                if store is not None:
                    trajectory.meta[ITEM] = item_of(task)
                    store.append(trajectory)
        done += 1
        progress(done)
        return trajectory

    result = Synthesis()
    for trajectory in await asyncio.gather(*(run(task) for task in tasks)):
        if reason := trajectory.meta.get(DROPPED):
            result.rejected.append(trajectory)
            result.dropped[reason] += 1
        else:
            result.kept.append(trajectory)
    return result


async def _run(agent: Agent, task: Task, seed: int) -> Trajectory:
    """What the infrastructure fails is run again, with its seed, at most twice."""
    for _ in range(_ATTEMPTS):
        trajectory = await agent.run(task, seed=seed, temperature=1.0)
        if trajectory.status != "infrastructure":
            break
    return trajectory


async def _filter(trajectory: Trajectory, scorer: Verdict, filters: Filters, opinion: Opinion | None) -> None:
    for decided in (DROPPED, "opinion"):
        trajectory.meta.pop(decided, None)
    trajectory.correct = None
    reason = refuse(filters, trajectory)
    if reason is None and filters.require_correct:
        reason = await _wrong(trajectory, scorer)
    if reason is None and opinion is not None:
        reason = await opinion(trajectory)
    if reason is not None:
        trajectory.meta[DROPPED] = reason
    elif filters.require_correct:
        trajectory.correct = True


async def _wrong(trajectory: Trajectory, scorer: Verdict) -> str | None:
    """A judge that fails is no verdict: the trajectory is lost, and a store has it made again."""
    try:
        return None if await scorer(trajectory) == 1.0 else "wrong answer"
    except InfrastructureError as error:
        trajectory.status, trajectory.meta["error"] = "infrastructure", f"the answer could not be judged: {error}"
        return LOST


def repeated(tasks: Sequence[Task], count: int) -> Iterator[Task]:
    """`count` tasks; beyond the questions there are, each again under another name, so that it gets another plan."""
    for number in range(count):
        turn, task = number // len(tasks), tasks[number % len(tasks)]
        yield replace(task, id=f"{task.id}#{turn}") if turn else task
