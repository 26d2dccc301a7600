"""A stage of type SFT: learn trajectories, and if so configured measure whether RL may start from the result."""

from dataclasses import replace
from pathlib import Path

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.summary import summary_of
from thinkimg.jobs.stages.answers import Asking, answers
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.questions import TRAJECTORIES, UnaskedModel, load_trajectories
from thinkimg.jobs.stages.saving import training_session
from thinkimg.jobs.stages.speaking import still_speaking
from thinkimg.jobs.stages.together import together
from thinkimg.jsonfile import write
from thinkimg.message import Message, TextBlock
from thinkimg.models.pretrained import LoadedModel
from thinkimg.results import BrokenSamples, GRPODone, SFTDone, Tokens
from thinkimg.tools.registry import TOOLS, find_tool, own_tools
from thinkimg.training.collator import encode_samples
from thinkimg.training.sft import TokenCount, train_sft
from thinkimg.trajectory import Trajectory, Turn, read_trajectories

EXTENDED = "extended"
"""Below an SFT stage's folder: checkpoints of the second training, which a gate asked for."""


class GateClosed(UserError):
    """The cold start is too weak for RL: the run ends here, with the reason."""


def run_sft(context: Context, name: str) -> SFTDone:
    stage = context.job.spec.stage(name)
    spec = stage.sft
    assert spec is not None
    model = context.load_to_train(stage.from_)
    trajectories, broken = cold_start(context, name)
    if broken and context.rank == 0:
        write(context.run.stage(name) / "broken.json", BrokenSamples(samples=broken))
        sample, reason = next(iter(broken.items()))
        context.progress(name, message=f"{len(broken)} samples are left out, see broken.json; {sample}: {reason}")
    if spec.tool_use == "Disabled":
        trajectories = [_without_tools(context, trajectory) for trajectory in trajectories]
    samples, dropped = encode_samples(model.family, trajectories)
    seconds = _seconds_of(context, spec.max_seconds.from_stage) if spec.max_seconds else None
    limit = _tokens_of(context, spec.max_tokens.from_stage) if spec.max_tokens else None
    folder = context.run.stage(name)
    gate, done, closed = spec.gate, SFTDone(samples=len(samples), dropped=dropped, broken=len(broken)), None
    for attempt in range(2 if gate and gate.extend_once else 1):
        output = folder / EXTENDED if attempt else folder
        tokens = TokenCount(limit)
        with training_session(context, name, output, spec.seed, tokens=limit) as session:
            counted = replace(session, callbacks=[*session.callbacks, tokens])
            done.loss = train_sft(model, samples, spec, counted, seconds)
        done.tokens = Tokens(trained=tokens.trained + (done.tokens.trained if done.tokens else 0))
        if gate is None:
            break
        context.save(name, model)
        asked = folder / f"gate-{attempt + 1}.jsonl"
        accuracy, most = _gate_accuracy(context, name, asked, model, gate.questions, spec.tool_use == "Enabled")
        if accuracy < gate.min_sampled_accuracy <= most:
            raise InfrastructureError(
                f"whether the gate opens cannot be said: with the answers that the infrastructure lost, {accuracy:.1%} "
                f"to {most:.1%} are right, and {gate.min_sampled_accuracy:.0%} are needed; run again to ask them again"
            )
        done.gate_accuracy, done.extended = accuracy, attempt
        closed = accuracy < gate.min_sampled_accuracy
        context.progress(name, message=f"cold start: {accuracy:.1%} of sampled answers right on validation questions")
        if not closed:
            break
    if gate is None:
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


def _tokens_of(context: Context, name: str) -> int:
    """How many an earlier stage processed."""
    done = context.run.done(name)
    tokens = done.tokens if isinstance(done, SFTDone | GRPODone) else None
    if tokens is None:
        raise UserError(f"stage {name} has not said how many tokens it processed; run it again", "sft.maxTokens")
    return tokens.total


def cold_start(context: Context, name: str) -> tuple[list[Trajectory], dict[str, str]]:
    """What the stage learns: the trajectories of an earlier stage, or ready-made ones; and which samples of these are
    broken, with the reasons."""
    data = context.job.spec.data_stage(context.job.spec.stage(name))
    if data is None:
        used = context.job.spec.stage(name).sft.tool_use == "Enabled"  # type: ignore[union-attr]

        def agent() -> Agent:
            return context.agent(UnaskedModel(), DeclaredTools(context) if used else NoTools())

        made, broken = load_trajectories(context.job.spec.data, context.data_folder, agent)
        if context.job.spec.agent.system_prompt is not None:
            made = [_with_system(trajectory, agent().system) for trajectory in made]
        return made, broken
    return list(read_trajectories(context.run.stage(data.name) / "trajectories" / TRAJECTORIES)), {}


def _with_system(trajectory: Trajectory, system: str) -> Trajectory:
    """The same conversation below the job's own system prompt: what is learnt is asked so afterwards."""
    own = Turn(message=Message(role="system", content=[TextBlock(text=system)]))
    return trajectory.model_copy(update={"turns": [own, *(one for one in trajectory.turns if one.role != "system")]})


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
    """The same question, all its pictures where they stand, with its answer at once: what SFT without tools learns."""
    agent = context.agent(UnaskedModel(), NoTools())
    asked = [turn for turn in trajectory.turns[: trajectory.prompt_turns] if turn.role != "system"]
    shown = [name for turn in asked for name in turn.message.images]
    # Handles count from one in the order of the conversation, so those of the question are the first.
    direct = trajectory.model_copy(update={"turns": [], "images": {name: trajectory.images[name] for name in shown}})
    direct.turns = [turn.model_copy() for turn in (*asked, trajectory.turns[-1])]
    return _with_system(direct, agent.system)


def _gate_accuracy(
    context: Context, name: str, asked: Path, model: LoadedModel, questions: int, tools: bool
) -> tuple[float, float]:
    """Share of sampled answers that are right on validation questions, at least and at most: the same where none was
    lost."""
    if context.rank == 0:  # of an attempt that may have ended with other weights
        for file in asked.parent.glob(f"{asked.stem}.*"):
            file.unlink()
    together(context, lambda: None)
    with still_speaking(context, name, model) as speaker:
        rows = answers(context, speaker, context.tasks("validation", questions), Asking(asked, name, 1.0, tools))
    found = summary_of(rows)
    return found.bounds or (found.accuracy or 0.0,) * 2
