"""A stage of type SFT: learn trajectories, and if so configured measure whether RL may start from the result."""

import asyncio
from dataclasses import replace
from typing import Any

import torch

from thinkimg.agent.agent import NoTools, Task
from thinkimg.errors import UserError
from thinkimg.jobs.answers import answer
from thinkimg.jobs.context import Context
from thinkimg.jobs.models import LoadedModel
from thinkimg.jobs.questions import TRAJECTORIES, load_trajectories
from thinkimg.jobs.saving import Progress, checkpoints
from thinkimg.training.collator import encode_samples
from thinkimg.training.sft import SFTSettings, train_sft
from thinkimg.trajectory import Trajectory, read_trajectories

EXTENDED = "extended"
"""Below an SFT stage's folder: checkpoints of the second training, which a gate asked for."""


class GateClosed(UserError):
    """The cold start is too weak for RL: the run ends here, with the reason."""


def run_sft(context: Context, name: str) -> dict[str, Any]:
    stage = context.job.spec.stage(name)
    settings = stage.sft
    assert settings is not None
    loaded = context.load(stage.from_)
    trajectories = cold_start(context, name)
    if settings.tool_use == "Disabled":
        trajectories = [_without_tools(context, trajectory) for trajectory in trajectories]
    samples, dropped = encode_samples(loaded.family, trajectories)
    seconds = None
    if settings.max_seconds is not None:
        seconds = (context.run.done(settings.max_seconds.from_stage) or {})["seconds"]
    options = SFTSettings(
        settings.learning_rate,
        settings.batch_per_process(context.world_size) * context.world_size,  # times the passes that `args` may say
        settings.epochs,
        settings.max_steps,
        seconds,
        settings.seed if settings.seed is not None else context.job.spec.seed,
        args=settings.args,
    )
    folder = context.run.stage(name)
    gate, record, closed = settings.gate, {"samples": len(samples), "dropped": dropped}, None
    for attempt in range(2 if gate and gate.extend_once else 1):
        output = folder / EXTENDED if attempt else folder
        with checkpoints(context, name, output) as saving:
            record["loss"] = train_sft(
                loaded.model, loaded.processor, loaded.family, samples, replace(options, save_steps=saving.every),
                output, folder / "log.jsonl", [*saving.callbacks, Progress(context, name, saving)], saving.resume_from,
            )  # fmt: skip
        if gate is None:
            break
        accuracy = _gate_accuracy(context, name, loaded, gate.questions, settings.tool_use == "Enabled")
        record |= {"gate_accuracy": accuracy, "extended": attempt}
        closed = accuracy < gate.min_sampled_accuracy
        context.progress(name, message=f"cold start: {accuracy:.1%} of sampled answers right on validation questions")
        if not closed:
            break
    context.save(name, loaded)
    if gate and closed:
        raise GateClosed(
            f"after SFT only {record['gate_accuracy']:.1%} of sampled answers are right on validation questions, "
            f"{gate.min_sampled_accuracy:.0%} are needed for RL to find good tool use; "
            "give SFT more steps or better trajectories",
            f"{name}.sft.gate",
        )
    return record


def cold_start(context: Context, name: str) -> list[Trajectory]:
    """What the stage learns: the trajectories of an earlier stage, or those that `data.train` holds itself."""
    data = context.job.spec.data_stage(context.job.spec.stage(name))
    if data is None:
        return load_trajectories(context.job.spec.data, context.data_folder)
    return list(read_trajectories(context.run.stage(data.name) / "trajectories" / TRAJECTORIES))


def _without_tools(context: Context, trajectory: Trajectory) -> Trajectory:
    """The same question with its answer at once: what SFT without tools learns from."""
    agent = context.agent(_Silent(), NoTools())
    task = Task(
        trajectory.id, trajectory.question, (trajectory.images["img_1"],), trajectory.reference, trajectory.meta
    )
    direct = agent.start(task)
    final = trajectory.turns[-1].model_copy()
    direct.turns.append(final)
    return direct


class _Silent:
    """A model that is never asked: `Agent.start` needs none."""

    async def reply(self, *_: Any) -> Any:
        raise AssertionError("not asked")


def _gate_accuracy(context: Context, name: str, loaded: LoadedModel, questions: int, tools: bool) -> float:
    """Share of sampled answers that are right on validation questions; all ranks get rank 0's number."""
    accuracy = 0.0
    if context.rank == 0:
        tasks = context.tasks("validation", questions)
        trajectories = asyncio.run(answer(context, name, loaded.chat, tasks, 1.0, tools))
        accuracy = sum(bool(trajectory.correct) for trajectory in trajectories) / len(trajectories)
    if context.world_size > 1:
        shared = [accuracy]
        torch.distributed.broadcast_object_list(shared, 0)
        accuracy = shared[0]
    return accuracy
