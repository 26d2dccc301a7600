"""Ask a model every question of a task, score each answer as it comes, keep it at once.

One coroutine per question, so many at a time; each takes the next question when it is done, and nothing waits for the
slowest. `thinkimg eval`, the Evaluate stage of a job and `python -m thinkimg.evaluation` all run this.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from thinkimg.agent.agent import Agent
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.scorers import Scorer
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import ITEM, Store, digest_of


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
    """

    name: str
    task: str
    temperature: float = 0.0
    seed: int = 0
    concurrency: int = 64


async def evaluate(
    agent: Agent,
    tasks: Iterable[Task],
    scorers: Sequence[Scorer],
    store: Store,
    settings: Settings,
    shard: Shard = WHOLE,
    progress: Callable[[int, Trajectory | None], None] = lambda number, trajectory: None,
) -> list[str]:
    """Answer what `store` does not hold yet.

    Args:
        tasks: read one by one, in a thread; same names are told apart (`name#2`).
        scorers: the first one decides what is right.
        progress: called with a question's number and its new trajectory, or None if the store held it.

    Returns:
        The names of the shard's questions, in order.

    Raises:
        InfrastructureError: so many answers in a row were lost to the infrastructure that nothing can be working.
        UserError: a picture that no model can be shown; the store holds answers to other questions.
    """
    questions = _Questions(tasks, shard)
    health = _Health(limit=max(8, settings.concurrency))

    async def work() -> None:
        while (found := await questions.next()) is not None:
            number, task = found
            if store.answered(task):
                await _score_again(store, task, scorers)
                progress(number, None)
                continue
            seed = settings.seed * 1_000_003 + number
            trajectory = await agent.run(task, seed=seed, temperature=settings.temperature)
            trajectory.id = _id_of(settings, task.id)
            trajectory.meta |= {"model": settings.name, "stage": settings.task, ITEM: digest_of(task)}
            await score(trajectory, scorers)
            store.append(trajectory)
            progress(number, trajectory)
            health.note(trajectory)

    workers = [asyncio.ensure_future(work()) for _ in range(settings.concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return questions.names


async def _score_again(store: Store, task: Task, scorers: Sequence[Scorer]) -> None:
    """An answer that was scored otherwise before: other scorers need no other answers."""
    if list(store.record(task.id)["rewards"]) != [scorer.name for scorer in scorers]:
        trajectory = store.load(task.id)
        trajectory.question, trajectory.reference = task.question, task.reference
        trajectory.meta = {**task.meta, **trajectory.meta}
        await score(trajectory, scorers)
        store.append(trajectory)


async def score(trajectory: Trajectory, scorers: Sequence[Scorer]) -> None:
    """Set `rewards` (one per scorer) and `correct`. A judge that fails makes the answer one to ask again."""
    if trajectory.status == "infrastructure":
        return
    try:
        values = [await scorer.score(trajectory) for scorer in scorers]
    except InfrastructureError as error:
        trajectory.status = "infrastructure"
        trajectory.meta["error"] = f"the answer could not be scored: {error}"
        return
    trajectory.rewards = {scorer.name: value for scorer, value in zip(scorers, values, strict=True)}
    trajectory.correct = values[0] == 1.0


def _id_of(settings: Settings, question: str) -> str:
    """The same in every run, so that links to a trajectory stay good."""
    key = f"{settings.task}/{settings.name}/{settings.temperature}/{question}"
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
    """Ends an evaluation of which nothing comes out any more: an endpoint that is down would fail every question."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0

    def note(self, trajectory: Trajectory) -> None:
        self.lost = self.lost + 1 if trajectory.status == "infrastructure" else 0
        if self.lost >= self.limit:
            raise InfrastructureError(
                f"the last {self.lost} questions were all lost, the last one so: {trajectory.meta.get('error')}; "
                "run the same command again to go on"
            )
