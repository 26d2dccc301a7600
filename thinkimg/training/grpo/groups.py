"""The groups of a step: rolled out, scored, and where so configured forked and refilled."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from thinkimg.api import GRPO
from thinkimg.models.chat import Family
from thinkimg.training.episodes import Episodes
from thinkimg.training.forking import Fork, fork_of
from thinkimg.training.grpo.rows import Group, RowMaker
from thinkimg.training.rewards import score_group, total
from thinkimg.training.rollouts import Request, RolloutEngine, seed_of
from thinkimg.training.step_log import StepRecord, busy_seconds
from thinkimg.trajectory import LOST, Task, Trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """Of which process the rollouts are, and the run's seed: what they depend on beside their task and step."""

    seed: int
    rank: int = 0
    world_size: int = 1


class Rollouts:
    """Makes groups of trajectories.

    Args:
        engine: runs the trajectories.
        episodes: the tasks to refill from, and the rewards.
        rows: makes rows of trajectories.
    """

    def __init__(self, engine: RolloutEngine, episodes: Episodes, spec: GRPO, rows: RowMaker, share: Share) -> None:
        self.engine, self.episodes, self.spec, self.rows, self.share = engine, episodes, spec, rows, share

    @property
    def family(self) -> Family:
        return self.rows.family

    def evaluate(self, tasks: Sequence[Task], size: int, step: int, record: StepRecord) -> list[Group]:
        """Groups of `size` trajectories for `tasks`, as they come."""
        return self._make([self._requests(task, size, f"{step}") for task in tasks], record)

    def train(self, tasks: Sequence[Task], size: int, step: int, record: StepRecord) -> list[Group]:
        """Groups of `size` trajectories for `tasks`, with tool calls sampled again and flat groups refilled if so
        configured; how many were is written to `record`."""
        groups = self.evaluate(tasks, size, step, record)
        if self.spec.fork_groups:
            self._fork(groups, size, step, record)
        record.groups += len(groups)
        record.flat += sum(group.flat for group in groups)
        if self.spec.refill:
            self._refill(groups, size, step, record)
        return groups

    def _requests(self, task: Task, size: int, visit: str, fork: Fork | None = None) -> list[Request]:
        return [Request(task, f"{visit}/{task.id}", number, fork) for number in range(size)]

    def _fork(self, groups: list[Group], size: int, step: int, record: StepRecord) -> None:
        """Replace groups whose tool calls all went wrong by groups that go on from one of their thoughts, where those
        have something to learn from."""
        forks: dict[int, Fork] = {}
        for number, group in enumerate(groups):
            states = [state for one in group.trajectories if (state := fork_of(one, self.family)) is not None]
            if group.tools_failed and states and len(forks) < self.spec.fork_groups:
                seed = seed_of(self.share.seed, f"fork/{step}/{group.task.id}", 0)
                forks[number] = random.Random(seed).choice(states)
        made = self._make(
            [self._requests(groups[n].task, size, f"{step}/fork", fork) for n, fork in forks.items()], record
        )
        record.fork_attempts += len(made)
        for number, group in zip(forks, made, strict=True):
            if not group.flat:
                groups[number] = group
                record.forked += 1

    def _refill(self, groups: list[Group], size: int, step: int, record: StepRecord) -> None:
        """Replace flat groups by other tasks, as many at once as are flat, until none is or the reserve is used up."""
        flat = [number for number, group in enumerate(groups) if group.flat]
        reserve = self._reserve([group.task for group in groups], self.spec.refill_groups or len(groups), step)
        while flat and reserve:
            asked, reserve = reserve[: len(flat)], reserve[len(flat) :]
            fresh = self._make([self._requests(task, size, f"{step}/refill") for task in asked], record)
            useful = [group for group in fresh if not group.flat]
            for number, group in zip(flat, useful, strict=False):
                groups[number] = group
            flat = flat[len(useful) :]
            record.refilled += len(useful)

    def _reserve(self, tasks: Sequence[Task], count: int, step: int) -> list[Task]:
        """Other tasks of this rank's share, at most `count`, chosen by step and rank alone."""
        taken = {task.id for task in tasks}
        rank = self.share.rank
        mine = [task for task in self.episodes.tasks[rank :: self.share.world_size] if task.id not in taken]
        seed = seed_of(self.share.seed, f"reserve/{step}", rank)
        return random.Random(seed).sample(mine, min(count, len(mine)))

    def _make(self, requests: Sequence[Sequence[Request]], record: StepRecord) -> list[Group]:
        """One group for each list of requests."""
        began = time.monotonic()
        made = iter(self.engine.run([request for group in requests for request in group]))
        groups = []
        for asked in requests:
            trajectories = [next(made) for _ in asked]
            groups.append(
                Group(asked[0].task, trajectories, [self.rows.row(trajectory) for trajectory in trajectories])
            )
        whole = time.monotonic() - began
        generating = busy_seconds([trajectory for group in groups for trajectory in group.trajectories])
        record.tokens_generated += sum(_own_tokens(one) for group in groups for one in group.trajectories)
        record.seconds_generation += min(generating, whole)
        record.seconds_tools += max(0.0, whole - generating)
        self.engine.call(self._score(groups))
        return groups

    async def _score(self, groups: Sequence[Group]) -> None:
        await asyncio.gather(*(self._score_group(group) for group in groups))

    async def _score_group(self, group: Group) -> None:
        rewards = self.episodes.rewards
        numbers = [number for number, row in enumerate(group.rows) if row.masked is None]
        failures = await score_group([group.trajectories[number] for number in numbers], rewards)
        for number, failure in zip(numbers, failures, strict=True):
            if failure is not None:
                logger.error("trajectory %s is not trained on: %s", group.trajectories[number].id, failure)
                group.rows[number] = self.rows.filler("reward")
        for trajectory, row in zip(group.trajectories, group.rows, strict=True):
            if row.masked is not None:
                trajectory.rewards = {}
                trajectory.meta["masked"] = row.masked
        group.rewards = [total(trajectory, rewards) for trajectory in group.trajectories]


def _own_tokens(trajectory: Trajectory) -> int:
    """What the model said; of a lost trajectory nothing, for how far it came is chance."""
    return 0 if trajectory.status in LOST else sum(sum(turn.mask or ()) for turn in trajectory.turns)
