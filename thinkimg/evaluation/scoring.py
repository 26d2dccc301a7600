"""Answers and their scores: given once each, kept with the version of what gave them, given anew when that differs.

No question is asked again for it. A judge that judges several answers at a time waits until all are there.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from thinkimg.errors import InfrastructureError
from thinkimg.evaluation.scorers import JUDGE, GroupScorer, Scorer, waits
from thinkimg.identity import digest_of
from thinkimg.trajectory import LOST, Task, Trajectory
from thinkimg.trajectory.store import Store

SCORED_BY = "scored_by"
"""Key of `Trajectory.meta`: scorer to its version."""


async def score_again(store: Store, record: Mapping[str, Any], task: Task, scorers: Sequence[Scorer]) -> None:
    """An answer that was scored otherwise before: other scorers, or another version of one, need no other answer."""
    meta, rewards = {**task.meta, **record["meta"]}, record["rewards"]
    before = meta.get(SCORED_BY) or {JUDGE: meta.get("judged_by")}  # earlier versions wrote only the judge down
    together = {one.name for one in scorers if waits(one, meta)}
    fresh = {one.name for one in scorers if one.name in together or before.get(one.name) == one.version}
    kept = {one.name: rewards[one.name] for one in scorers if one.name in fresh and one.name in rewards}
    wanted = [one.name for one in scorers if one.name in kept or one.name not in together]
    if list(rewards) != wanted or list(kept) != wanted:
        trajectory = store.load(task.id)
        trajectory.question, trajectory.reference = task.question, task.reference
        trajectory.meta = meta
        await score(trajectory, scorers, kept)
        store.append(trajectory)


async def score(trajectory: Trajectory, scorers: Sequence[Scorer], kept: Mapping[str, float] | None = None) -> None:
    """Set `rewards` (one per scorer, but for those that judge several answers together) and `correct`. A judge that
    fails makes the answer one to ask again.

    Args:
        kept: scores that hold, by scorer.
    """
    if trajectory.status in LOST:
        return
    values, before = dict(kept or {}), trajectory.meta.get(SCORED_BY) or {}
    alone = [one for one in scorers if not waits(one, trajectory.meta)]
    try:
        for one in alone:
            if one.name not in values:
                values[one.name] = await one.score(trajectory)
    except InfrastructureError as error:
        trajectory.status = "infrastructure"
        trajectory.meta["error"] = f"the answer could not be scored: {error}"
        return
    versions = {name: version for name, version in before.items() if name in values}
    _note(trajectory, scorers, values, versions | {one.name: one.version for one in alone})


def _note(
    trajectory: Trajectory, scorers: Sequence[Scorer], values: Mapping[str, float], versions: Mapping[str, str]
) -> None:
    trajectory.rewards = {one.name: values[one.name] for one in scorers if one.name in values}
    trajectory.meta[SCORED_BY] = dict(versions)
    decides = values.get(scorers[0].name)
    trajectory.correct = None if decides is None else decides == 1.0


async def score_together(
    store: Store, names: Sequence[str], scorers: Sequence[Scorer], scorer: GroupScorer, concurrency: int
) -> None:
    """What a scorer says of all answers that it judges several at a time. Those that it has judged in the same company
    are not judged again.

    Raises:
        InfrastructureError: the judge does not answer.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        record = store.record(name)
        if record["status"] not in LOST and (group := scorer.group_of(record["meta"])) is not None:
            groups.setdefault(group, []).append(name)
    companies = iter(
        [group[first : first + scorer.size] for group in groups.values() for first in range(0, len(group), scorer.size)]
    )

    async def work() -> None:
        for company in companies:
            records = [store.record(name) for name in company]
            shown = [[record["meta"]["task"], record["answer"], record["reference"]] for record in records]
            version = f"{scorer.version} {digest_of(shown)}"
            if all((record["meta"].get(SCORED_BY) or {}).get(scorer.name) == version for record in records):
                continue
            trajectories = [store.load(name) for name in company]
            for one, value in zip(trajectories, await scorer.score_group(trajectories), strict=True):
                versions = {**one.meta.get(SCORED_BY, {}), scorer.name: version}
                _note(one, scorers, {**one.rewards, scorer.name: value}, versions)
                store.append(one)

    await side_by_side(work() for _ in range(concurrency))


async def side_by_side(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; when one of them raises, the others end."""
    workers = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
