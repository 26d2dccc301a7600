"""A stage of type GRPO: V-ToolRL with live tools, or text-only RL."""

from pathlib import Path

from thinkimg.agent.tools import LimitedTools, NoTools
from thinkimg.api import GRPO
from thinkimg.client import ToolClient
from thinkimg.evaluation.scorers import Scorer
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.saving import training_session
from thinkimg.jobs.stages.scoring import rewards_of, scorer_of
from thinkimg.jsonfile import write
from thinkimg.models.chat import TokenModel
from thinkimg.models.generator import Filters
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.results import GRPODone, Tokens, ToolCalls
from thinkimg.training.colocated import chosen_engine
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training_log import GRPOLine, read_log


def run_grpo(context: Context, name: str) -> GRPODone:
    stage = context.job.spec.stage(name)
    spec = stage.grpo
    assert spec is not None
    model = context.load_to_train(stage.from_)
    client = context.described_client() if spec.tool_use == "Enabled" else None
    engine = chosen_engine(model.model)
    episodes = episodes_of(context, spec, model, client, scorer_of(stage), vllm=bool(engine))
    folder = context.run.stage(name)
    try:
        with training_session(context, name, folder, engine=engine) as session:
            train_grpo(model, episodes, spec, session)
    finally:
        if client is not None and context.rank == 0:
            write(folder / "tools.json", ToolCalls(tools=client.stats()))
    context.save(name, model)
    return GRPODone(tokens=_tokens(session.log) if context.rank == 0 else None)


def _tokens(log: Path) -> Tokens:
    """Of all steps: the log forgets those that were done again after a resume."""
    lines = read_log(log) if log.exists() else []  # no step, no log
    steps = [line for line in lines if isinstance(line, GRPOLine)]
    return Tokens(
        generated=sum(step.tokens_generated for step in steps), trained=sum(step.tokens_trained for step in steps)
    )


def episodes_of(
    context: Context, spec: GRPO, model: LoadedModel, client: ToolClient | None, scorer: Scorer, vllm: bool = False
) -> Episodes:
    """The job's questions, asked of `model` with the stage's limits, tools and rewards.

    Args:
        client: of the tools; None: the model has none.
        scorer: what is right.
        vllm: the rollouts are sampled by vLLM in this process.
    """
    generator = VLLMGenerator(model.family) if vllm else None
    agent = context.agent(
        TokenModel(model.family, generator) if generator else model.chat,
        LimitedTools(client, spec.tool_concurrency) if client else NoTools(),
        Filters.of(spec.args, "grpo.args"),
        rounds=spec.max_rounds,
        tokens_per_turn=spec.max_tokens_per_turn,
        tokens=spec.max_tokens,
        seconds=spec.max_seconds_per_trajectory,
    )
    return Episodes(
        agent,
        context.tasks("train"),
        rewards_of(spec.rewards, scorer),
        client.connect if client else None,
        client.close if client else None,
        generator,
    )
