"""Answers of a model to questions: what an Evaluate stage measures, and the gate of an SFT stage."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkimg import jsonl
from thinkimg.errors import InfrastructureError
from thinkimg.evaluation.control import Controlled
from thinkimg.evaluation.evaluate import Settings, Shard, evaluate
from thinkimg.evaluation.summary import row_of
from thinkimg.jobs.stages.context import Context, StageTools
from thinkimg.jobs.stages.scoring import scorers_of
from thinkimg.jobs.stages.together import together
from thinkimg.models.chat import ChatModel
from thinkimg.results import AnswerRow
from thinkimg.trajectory import LOST, Task, Trajectory
from thinkimg.trajectory.store import Store, merge_parts, part_of

Progress = Callable[[int, Trajectory | None], None]


@dataclass(frozen=True)
class Asking:
    """How a stage asks a model.

    Attributes:
        file: of the trajectories; what it holds already is not asked again.
        stage, model: as the records name them; without a model it is the stage's own.
        temperature: 0 is greedy.
        tools: whether the model is offered the job's tools.
        concurrency: questions under way at once, per process.
        control: how the pictures of the questions are changed.
    """

    file: Path
    stage: str
    temperature: float
    tools: bool
    model: str = ""
    concurrency: int = 128
    control: Controlled | None = None

    @property
    def folder(self) -> str:
        """Below `RUN/stages`."""
        return f"{self.stage}/{self.model}" if self.model else self.stage


def answers(
    context: Context,
    model: ChatModel,
    tasks: Sequence[Task],
    asking: Asking,
    progress: Progress = lambda number, trajectory: None,
) -> list[AnswerRow]:
    """One answer per task, scored as the stage says, in order. The stage's processes share the questions, each with a
    model of its own; all of them get all answers.

    Args:
        progress: called for each of this process' questions, see `evaluate`.

    Raises:
        InfrastructureError: most of them were lost to the infrastructure.
    """
    shard = Shard(context.rank, context.world_size)
    files = [part_of(asking.file, rank, context.world_size) for rank in range(context.world_size)]
    own = files[context.rank] if shard.count > 1 else asking.file
    together(context, lambda: asyncio.run(_answer(context, model, tasks, asking, shard, own, progress)))

    def read() -> list[AnswerRow]:
        if context.rank > 0:
            return []
        if shard.count > 1:
            merge_parts(files, asking.file)
        return [row_of(record) for record in jsonl.read(asking.file)]

    rows, *_ = together(context, read)
    lost = sum(row.status in LOST for row in rows)
    if 2 * lost > len(rows):
        raise InfrastructureError(
            f"{lost} of {len(rows)} answers of {asking.model or asking.stage} were lost to the infrastructure; look at "
            "the tool servers and the engine, and run again to ask them again"
        )
    return rows


async def _answer(
    context: Context,
    model: ChatModel,
    tasks: Sequence[Task],
    asking: Asking,
    shard: Shard,
    file: Path,
    progress: Progress,
) -> None:
    """This process' part, into a file of its own."""
    name = asking.model or asking.stage
    seed = context.job.spec.seed
    settings = Settings(name, asking.stage, asking.temperature, seed, asking.concurrency, asking.control)
    scorers = scorers_of(context.job.spec.stage(asking.stage))
    async with StageTools(context, asking.tools, asking.folder) as connected:
        with Store(file) as store:
            names = await evaluate(context.agent(model, connected), tasks, scorers, store, settings, shard, progress)
            store.put_in_order(names)
