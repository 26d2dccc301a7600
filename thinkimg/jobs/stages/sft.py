"""A stage of type SFT: learn trajectories, and if so configured measure whether RL may start from the result."""

from pathlib import Path

import torch

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.errors import UserError
from thinkimg.jobs.stages.answers import Asking, answers
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.questions import TRAJECTORIES, UnaskedModel, load_trajectories
from thinkimg.jobs.stages.saving import training_session
from thinkimg.jsonfile import write
from thinkimg.models.pretrained import LoadedModel
from thinkimg.results import BrokenSamples, SFTDone
from thinkimg.tools.registry import TOOLS, find_tool, own_tools
from thinkimg.training.collator import encode_samples
from thinkimg.training.sft import train_sft
from thinkimg.trajectory import Task, Trajectory, read_trajectories

EXTENDED = "extended"
"""Below an SFT stage's folder: checkpoints of the second training, which a gate asked for."""


class GateClosed(UserError):
    """The cold start is too weak for RL: the run ends here, with the reason."""


def run_sft(context: Context, name: str) -> SFTDone:
    stage = context.job.spec.stage(name)
    spec = stage.sft
    assert spec is not None
    model = context.load(stage.from_)
    trajectories, broken = cold_start(context, name)
    if broken and context.rank == 0:
        write(context.run.stage(name) / "broken.json", BrokenSamples(samples=broken))
        sample, reason = next(iter(broken.items()))
        context.progress(name, message=f"{len(broken)} samples are left out, see broken.json; {sample}: {reason}")
    if spec.tool_use == "Disabled":
        trajectories = [_without_tools(context, trajectory) for trajectory in trajectories]
    samples, dropped = encode_samples(model.family, trajectories)
    seconds = None
    if spec.max_seconds is not None:
        seconds = _seconds_of(context, spec.max_seconds.from_stage)
    folder = context.run.stage(name)
    gate, done, closed = spec.gate, SFTDone(samples=len(samples), dropped=dropped, broken=len(broken)), None
    for attempt in range(2 if gate and gate.extend_once else 1):
        output = folder / EXTENDED if attempt else folder
        with training_session(context, name, output, spec.seed) as session:
            done.loss = train_sft(model, samples, spec, session, seconds)
        if gate is None:
            break
        asked = folder / f"gate-{attempt + 1}.jsonl"
        accuracy = _gate_accuracy(context, name, asked, model, gate.questions, spec.tool_use == "Enabled")
        done.gate_accuracy, done.extended = accuracy, attempt
        closed = accuracy < gate.min_sampled_accuracy
        context.progress(name, message=f"cold start: {accuracy:.1%} of sampled answers right on validation questions")
        if not closed:
            break
    context.save(name, model)
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


def cold_start(context: Context, name: str) -> tuple[list[Trajectory], dict[str, str]]:
    """What the stage learns: the trajectories of an earlier stage, or ready-made ones; and which samples of these are
    broken, with the reasons."""
    data = context.job.spec.data_stage(context.job.spec.stage(name))
    if data is None:
        used = context.job.spec.stage(name).sft.tool_use == "Enabled"  # type: ignore[union-attr]

        def agent() -> Agent:
            return context.agent(UnaskedModel(), DeclaredTools(context) if used else NoTools())

        return load_trajectories(context.job.spec.data, context.data_folder, agent)
    return list(read_trajectories(context.run.stage(data.name) / "trajectories" / TRAJECTORIES)), {}


class DeclaredTools(NoTools):
    """The tools that the prompt names; none is called. Those that this installation knows are declared here, others (a
    Custom tool's, or those of a package that is elsewhere) are asked for.

    Raises:
        UserError: a tool that nobody here can describe.
    """

    def __init__(self, context: Context) -> None:
        known = [name for name in context.tools if name in TOOLS or name in own_tools()]
        self.schemas = {name: find_tool(name).schema for name in known}
        if others := sorted(set(context.tools) - set(known)):
            if not context.endpoints:
                raise UserError(
                    f"nobody here knows what {', '.join(others)} can do, so the prompt cannot say it; learn the "
                    "trajectories of a Synthesize stage, or give the stage a gate: with it come the tools' addresses",
                    "spec.tools",
                )
            self.schemas = dict(context.described_client().schemas)


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


def _gate_accuracy(context: Context, name: str, asked: Path, model: LoadedModel, questions: int, tools: bool) -> float:
    """Share of sampled answers that are right on validation questions; all ranks get rank 0's number."""
    accuracy = 0.0
    if context.rank == 0:
        asked.unlink(missing_ok=True)  # of an attempt that may have ended with other weights
        rows = answers(context, model.chat, context.tasks("validation", questions), Asking(asked, name, 1.0, tools))
        accuracy = sum(row.correct for row in rows) / len(rows)
    if context.world_size > 1:
        shared = [accuracy]
        torch.distributed.broadcast_object_list(shared, 0)
        accuracy = shared[0]
    return accuracy
