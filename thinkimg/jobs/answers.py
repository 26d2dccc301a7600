"""Answers of a model to questions: what an Evaluate stage measures, and the gate of an SFT stage."""

import asyncio
from collections.abc import Sequence

from thinkimg.agent.agent import Task
from thinkimg.evaluation.metrics import exact_match
from thinkimg.jobs.context import Context, StageTools
from thinkimg.models.chat import ChatModel
from thinkimg.trajectory import Trajectory


async def answer(
    context: Context,
    name: str,
    model: ChatModel,
    tasks: Sequence[Task],
    temperature: float,
    tools: bool,
    concurrency: int = 128,
) -> list[Trajectory]:
    """One trajectory per task, scored, in order."""
    gate = asyncio.Semaphore(concurrency)
    async with StageTools(context, tools, name) as connected:
        agent = context.agent(model, connected)

        async def run(number: int, task: Task) -> Trajectory:
            async with gate:
                trajectory = await agent.run(
                    task, seed=context.job.spec.seed * 1_000_003 + number, temperature=temperature
                )
            trajectory.correct = exact_match(trajectory.answer, task.reference or "")
            trajectory.meta |= {"model": name.rpartition("/")[2], "stage": name.partition("/")[0]}
            return trajectory

        return list(await asyncio.gather(*(run(number, task) for number, task in enumerate(tasks))))
