"""Answers of a model to questions: what an Evaluate stage measures, and the gate of an SFT stage."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.summary import row_of
from thinkimg.jobs.stages.context import Context, StageTools
from thinkimg.models.chat import ChatModel
from thinkimg.results import AnswerRow
from thinkimg.trajectory import Task
from thinkimg.trajectory.store import Store


@dataclass(frozen=True)
class Asking:
    """How a stage asks a model.

    Attributes:
        file: of the trajectories; what it holds already is not asked again.
        stage, model: as the records name them; without a model it is the stage's own.
        temperature: 0 is greedy.
        tools: whether the model is offered the job's tools.
        concurrency: questions under way at once.
    """

    file: Path
    stage: str
    temperature: float
    tools: bool
    model: str = ""
    concurrency: int = 128

    @property
    def folder(self) -> str:
        """Below `RUN/stages`."""
        return f"{self.stage}/{self.model}" if self.model else self.stage


def answers(context: Context, model: ChatModel, tasks: Sequence[Task], asking: Asking) -> list[AnswerRow]:
    """One answer per task, scored, in order."""
    settings = Settings(
        asking.model or asking.stage, asking.stage, asking.temperature, context.job.spec.seed, asking.concurrency
    )

    async def work() -> list[AnswerRow]:
        async with StageTools(context, asking.tools, asking.folder) as connected:
            with Store(asking.file) as store:
                agent = context.agent(model, connected)
                names = await evaluate(agent, tasks, [find_rule("relaxed_normalised")], store, settings)
                store.put_in_order(names)
                return [row_of(store.record(name)) for name in names]

    return asyncio.run(work())
