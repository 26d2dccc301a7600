"""Answers of a model to questions: what an Evaluate stage measures, and the gate of an SFT stage."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.summary import Row, row_of
from thinkimg.jobs.stages.context import Context, StageTools
from thinkimg.models.chat import ChatModel
from thinkimg.trajectory import Task
from thinkimg.trajectory.store import Store


def answers(
    context: Context,
    path: Path,
    name: str,
    model: ChatModel,
    tasks: Sequence[Task],
    temperature: float,
    tools: bool,
    concurrency: int = 128,
) -> list[Row]:
    """One answer per task, scored, in order; their trajectories in `path`. What is there already is not asked again."""
    stage, _, label = name.partition("/")
    settings = Settings(label or stage, stage, temperature, context.job.spec.seed, concurrency)

    async def work() -> list[Row]:
        async with StageTools(context, tools, name) as connected:
            with Store(path) as store:
                agent = context.agent(model, connected)
                names = await evaluate(agent, tasks, [find_rule("relaxed_normalised")], store, settings)
                store.put_in_order(names)
                return [row_of(store.record(name)) for name in names]

    return asyncio.run(work())
