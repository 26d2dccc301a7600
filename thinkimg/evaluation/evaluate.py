"""Ask a model every question of a task, score each answer as it comes, keep it at once.

One coroutine per question, so many at a time; each takes the next question when it is done, and nothing waits for the
slowest. `thinkimg eval`, the Evaluate stage of a job and `python -m thinkimg.evaluation` all run this.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from thinkimg.agent.agent import Agent
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.control import Controlled
from thinkimg.evaluation.scorers import Scorer, is_group_scorer
from thinkimg.evaluation.scoring import score, score_again, score_together, side_by_side
from thinkimg.trajectory import LOST, Task, Trajectory
from thinkimg.trajectory.store import ITEM, Store, digest_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`: every question whose number leaves that rest."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `1/4`, the second of four. Raises `UserError`."""
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise UserError(f"{text!r} is not I/N, such as 0/4 for the first of four processes", "--shard")
        if not int(index) < int(count):
            raise UserError(f"{text}: I counts from 0 to N - 1", "--shard")
        return cls(int(index), int(count))


WHOLE = Shard()


@dataclass(frozen=True)
class Settings:
    """Attributes:
    name: of the model, for the records.
    task: of the questions, for the records.
    temperature: 0 is greedy.
    seed: a question's own seed is made of this and its number.
    concurrency: questions under way at the same time.
    control: how the pictures of the questions are changed.
    again: how often what the infrastructure lost is asked again at the end, with its seed.
    """

    name: str
    task: str
    temperature: float = 0.0
    seed: int = 0
    concurrency: int = 64
    control: Controlled | None = None
    again: int = 2


async def evaluate(
    agent: Agent,
    tasks: Iterable[Task],
    scorers: Sequence[Scorer],
    store: Store,
    settings: Settings,
    shard: Shard = WHOLE,
    progress: Callable[[int, Trajectory | None], None] = lambda number, trajectory: None,
) -> list[str]:
    """Answer what `store` does not hold yet. What is lost after that stands there with the status `infrastructure`: a
    later call asks it again.

    Args:
        tasks: read one by one, in a thread; same names are told apart (`name#2`).
        scorers: the first one decides what is right.
        progress: called with a question's number and its new trajectory, or None if the store held it.

    Returns:
        The names of the shard's questions, in order.

    Raises:
        InfrastructureError: no question was answered, or so many in a row were lost to the infrastructure that nothing
            can be working.
        UserError: a picture that cannot be decoded; the store holds answers to other questions; so many were refused
            with the same words before one was answered that none can be what the model's endpoint takes.
    """
    questions = _Questions(tasks, shard)
    health = _Health(limit=max(8, settings.concurrency))
    lost: list[tuple[int, Task]] = []

    async def ask(number: int, task: Task) -> Trajectory:
        seed = settings.seed * 1_000_003 + number
        run = agent.run if settings.control is None else partial(settings.control.run, agent)
        trajectory = await run(task, seed=seed, temperature=settings.temperature)
        trajectory.id = _id_of(settings, task.id)
        trajectory.meta |= {"model": settings.name, "stage": settings.task, ITEM: digest_of(task)}
        if "sample" in task.meta:
            trajectory.meta["sample_seed"] = seed
        await score(trajectory, scorers)
        store.append(trajectory)
        if trajectory.status in LOST:
            lost.append((number, task))
        return trajectory

    async def work() -> None:
        while (found := await questions.next()) is not None:
            number, task = found
            if store.answered(task):
                record = store.record(task.id)
                health.note(record["status"], record["meta"])
                await score_again(store, record, task, scorers)
                progress(number, None)
                continue
            trajectory = await ask(number, task)
            progress(number, trajectory)
            health.note(trajectory.status, trajectory.meta)

    async def work_again(rest: list[tuple[int, Task]]) -> None:
        while rest:
            await ask(*rest.pop())

    await side_by_side(work() for _ in range(settings.concurrency))
    for _ in range(settings.again):
        rest, lost[:] = list(lost), []
        await side_by_side(work_again(rest) for _ in range(min(settings.concurrency, len(rest))))
    if lost and len(lost) == len(questions.names):
        reason = store.record(lost[0][1].id)["meta"].get("error")
        raise InfrastructureError(
            f"none of {len(lost)} questions was answered: {reason}; run the same command again to go on"
        )
    for scorer in scorers:
        if is_group_scorer(scorer):
            await score_together(store, questions.names, scorers, scorer, settings.concurrency)
    if lost:
        log.warning("%d of %d answers are lost to the infrastructure", len(lost), len(questions.names))
    return questions.names


def _id_of(settings: Settings, question: str) -> str:
    """The same in every run, so that links to a trajectory stay good."""
    key = f"{settings.task}/{settings.name}/{settings.temperature}/{question}"
    if settings.control is not None:
        key += f"/{settings.control.control.name}"
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class _Questions:
    """The shard's questions with their numbers, one after another to whoever asks."""

    def __init__(self, tasks: Iterable[Task], shard: Shard) -> None:
        self.names: list[str] = []
        self._lock = asyncio.Lock()
        self._rest = self._read(tasks, shard)

    def _read(self, tasks: Iterable[Task], shard: Shard) -> Iterator[tuple[int, Task]]:
        times: Counter[str] = Counter()
        for number, task in enumerate(tasks):
            times[task.id] += 1
            if number % shard.count != shard.index:
                continue
            if times[task.id] > 1:
                task = replace(task, id=f"{task.id}#{times[task.id]}")
            self.names.append(task.id)
            yield number, task

    async def next(self) -> tuple[int, Task] | None:
        """In a thread: reading may decode pictures or wait for a disk."""
        async with self._lock:
            return await asyncio.to_thread(next, self._rest, None)


class _Health:
    """Ends an evaluation of which nothing comes out: an endpoint that is down would fail every question, and one that
    takes no pictures would refuse every one, always with the same words."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0
        self.refusals: Counter[str] = Counter()
        self.taken = False

    def note(self, status: str, meta: Mapping[str, Any]) -> None:
        self.lost = self.lost + 1 if status in LOST else 0
        self.taken |= status not in (*LOST, "refused")
        said = str(meta.get("error"))
        self.refusals[said] += status == "refused"
        if self.lost >= self.limit:
            raise InfrastructureError(
                f"the last {self.lost} questions were all lost, the last one so: {said}; "
                "run the same command again to go on"
            )
        if self.refusals[said] >= self.limit and not self.taken:
            raise UserError(
                f"no question was answered, and {self.refusals[said]} were refused with the same words: {said}; look "
                "at which pictures the endpoint takes, how large and how many; delete this output to ask again",
                "model",
            )
