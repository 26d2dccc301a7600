"""A stage of type SFT: learn trajectories, and if so configured measure whether RL may start from the result."""

from dataclasses import replace
from pathlib import Path

import torch

from thinkimg.agent.tools import NoTools
from thinkimg.api import Lora
from thinkimg.errors import UserError
from thinkimg.jobs.stages.answers import Asking, answers
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.questions import TRAJECTORIES, UnaskedModel, load_trajectories
from thinkimg.jobs.stages.saving import Progress, checkpoints
from thinkimg.jsonfile import write
from thinkimg.models.pretrained import LoadedModel
from thinkimg.results import BrokenSamples, SFTDone
from thinkimg.tools.registry import TOOLS, find_tool, own_tools
from thinkimg.training.adapters import LoraSettings
from thinkimg.training.collator import encode_samples
from thinkimg.training.configs import zero_config
from thinkimg.training.sft import SFTSettings, train_sft
from thinkimg.trajectory import Task, Trajectory, read_trajectories

EXTENDED = "extended"
"""Below an SFT stage's folder: checkpoints of the second training, which a gate asked for."""


class GateClosed(UserError):
    """The cold start is too weak for RL: the run ends here, with the reason."""


def run_sft(context: Context, name: str) -> SFTDone:
    stage = context.job.spec.stage(name)
    settings = stage.sft
    assert settings is not None
    loaded = context.load(stage.from_)
    trajectories, broken = cold_start(context, name)
    if broken and context.rank == 0:
        write(context.run.stage(name) / "broken.json", BrokenSamples(samples=broken))
        sample, reason = next(iter(broken.items()))
        context.progress(name, message=f"{len(broken)} samples are left out, see broken.json; {sample}: {reason}")
    if settings.tool_use == "Disabled":
        trajectories = [_without_tools(context, trajectory) for trajectory in trajectories]
    samples, dropped = encode_samples(loaded.family, trajectories)
    seconds = None
    if settings.max_seconds is not None:
        seconds = _seconds_of(context, settings.max_seconds.from_stage)
    options = SFTSettings(
        settings.learning_rate,
        settings.batch_per_process(context.world_size) * context.world_size,  # times the passes that `args` may say
        settings.epochs,
        settings.max_steps,
        seconds,
        settings.seed if settings.seed is not None else context.job.spec.seed,
        args=settings.args | ({"deepspeed": zero_config(settings.zero_stage)} if settings.zero_stage else {}),
        length_grouping=settings.length_grouping,
        lora=lora_settings(settings.lora),
        report_to=context.job.spec.report_to,
    )
    folder = context.run.stage(name)
    gate, done, closed = settings.gate, SFTDone(samples=len(samples), dropped=dropped, broken=len(broken)), None
    for attempt in range(2 if gate and gate.extend_once else 1):
        output = folder / EXTENDED if attempt else folder
        with checkpoints(context, name, output) as saving:
            done.loss = train_sft(
                loaded.model, loaded.processor, loaded.family, samples, replace(options, save_steps=saving.every),
                output, folder / "log.jsonl", [*saving.callbacks, Progress(context, name, saving)], saving.resume_from,
            )  # fmt: skip
        if gate is None:
            break
        asked = folder / f"gate-{attempt + 1}.jsonl"
        accuracy = _gate_accuracy(context, name, asked, loaded, gate.questions, settings.tool_use == "Enabled")
        done.gate_accuracy, done.extended = accuracy, attempt
        closed = accuracy < gate.min_sampled_accuracy
        context.progress(name, message=f"cold start: {accuracy:.1%} of sampled answers right on validation questions")
        if not closed:
            break
    context.save(name, loaded)
    if gate and closed:
        raise GateClosed(
            f"after SFT only {done.gate_accuracy:.1%} of sampled answers are right on validation questions, "
            f"{gate.min_sampled_accuracy:.0%} are needed for RL to find good tool use; "
            "give SFT more steps or better trajectories",
            f"{name}.sft.gate",
        )
    return done


def _seconds_of(context: Context, name: str) -> float:
    """How long an earlier stage took."""
    done = context.run.done(name)
    if done is None or done.seconds is None:
        raise UserError(f"stage {name} has not said how long it took; it must be finished first", "sft.maxSeconds")
    return done.seconds


def lora_settings(lora: Lora | None) -> LoraSettings | None:
    """A stage's adapters as the trainers take them."""
    return None if lora is None else LoraSettings(lora.rank, lora.alpha, lora.dropout, tuple(lora.target_modules))


def cold_start(context: Context, name: str) -> tuple[list[Trajectory], dict[str, str]]:
    """What the stage learns: the trajectories of an earlier stage, or ready-made ones; and which samples of these are
    broken, with the reasons."""
    data = context.job.spec.data_stage(context.job.spec.stage(name))
    if data is None:
        agent = context.agent(UnaskedModel(), DeclaredTools(context))
        return load_trajectories(context.job.spec.data, context.data_folder, agent)
    return list(read_trajectories(context.run.stage(data.name) / "trajectories" / TRAJECTORIES)), {}


class DeclaredTools(NoTools):
    """The tools that the prompt names. They are declared here, not asked for: SFT calls none."""

    def __init__(self, context: Context) -> None:
        self.schemas = {name: find_tool(name).schema for name in context.tools if name in TOOLS or name in own_tools()}


def _without_tools(context: Context, trajectory: Trajectory) -> Trajectory:
    """The same question with its answer at once: what SFT without tools learns from."""
    agent = context.agent(UnaskedModel(), NoTools())
    task = Task(
        trajectory.id, trajectory.question, (trajectory.images["img_1"],), trajectory.reference, trajectory.meta
    )
    direct = agent.start(task)
    final = trajectory.turns[-1].model_copy()
    direct.turns.append(final)
    return direct


def _gate_accuracy(context: Context, name: str, asked: Path, loaded: LoadedModel, questions: int, tools: bool) -> float:
    """Share of sampled answers that are right on validation questions; all ranks get rank 0's number."""
    accuracy = 0.0
    if context.rank == 0:
        asked.unlink(missing_ok=True)  # of an attempt that may have ended with other weights
        rows = answers(context, loaded.chat, context.tasks("validation", questions), Asking(asked, name, 1.0, tools))
        accuracy = sum(row.correct for row in rows) / len(rows)
    if context.world_size > 1:
        shared = [accuracy]
        torch.distributed.broadcast_object_list(shared, 0)
        accuracy = shared[0]
    return accuracy
