"""One stage of a ToolRLJob: `thinkimg stage job.yaml NAME --run DIR`, here and in pods alike.

A stage reads what earlier stages left in the run's folder and writes its own folder; it knows nothing of how it was
started. Progress goes to standard output as JSON lines.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from thinkimg.agent.formats import get_format
from thinkimg.api.pod_contract import Variable
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.jobs.attempt import begin_attempt, check_attempt
from thinkimg.jobs.cores import available_cores
from thinkimg.jobs.layout import BASE
from thinkimg.jobs.stages.context import TINY, Context, StageTools
from thinkimg.jobs.stages.evaluate import run_evaluation
from thinkimg.jobs.stages.grpo import run_grpo
from thinkimg.jobs.stages.questions import TRAJECTORIES
from thinkimg.jobs.stages.saving import seconds_until
from thinkimg.jobs.stages.scoring import scorer_of
from thinkimg.jobs.stages.sft import EXTENDED, run_sft
from thinkimg.jobs.stages.tiny_preset import STEPS, cached_base
from thinkimg.jobs.termination import last_words
from thinkimg.jsonfile import read
from thinkimg.models.chat import ChatModel
from thinkimg.results import (
    AnyDone,
    BaseDone,
    BasePretraining,
    EvaluateDone,
    ModelFigures,
    SynthesizeDone,
    is_complete,
)
from thinkimg.synthesis.planner import ScriptedPlanner
from thinkimg.synthesis.synthesize import LOST, Synthesis, repeated, synthesize
from thinkimg.tools.registry import TOOLS, find_tool, own_tools
from thinkimg.training.checkpoints import remove_checkpoints
from thinkimg.trajectory import write_trajectories
from thinkimg.trajectory.store import Store

ATTEMPTS = "attempts.jsonl"
"""What a Synthesize stage has made so far, while it runs."""
REJECTED = "dropped.jsonl"
"""What it made and did not keep, with the reasons, once it has ended."""
DEFAULT_CHAINS = {"zoom-ocr": 0.22, "ocr": 0.28, "zoom": 0.2, "point": 0.1, "point-line": 0.1, "none": 0.1}


def run_stage(context: Context, name: str) -> None:
    """Run one stage to its end and mark it finished.

    Raises:
        UserError, InfrastructureError: see the exit codes of `thinkimg stage`.
    """
    began = time.monotonic()
    with last_words(name, context.rank) as words:
        if (done := context.run.done(name)) is not None and is_complete(done):
            words.models = _evaluated(done)  # an earlier attempt finished it, and its end went unnoticed
            return
        _take_over(context, name)
        before = sum(map(seconds_until, _trained_in(context, name)))
        threads = os.environ.get("OMP_NUM_THREADS", "")
        torch.set_num_threads(int(threads) if threads.isdigit() else _fair_share(context.world_size))
        done = _base(context) if name == BASE else _work_of(context, name)(context, name)
        words.models = _evaluated(done)
        if context.rank == 0:
            check_attempt(context.run.stage(name))
            if done.seconds is None:
                done.seconds = round(before + time.monotonic() - began, 1)
            context.run.finish(name, done)
            for folder in _trained_in(context, name):
                remove_checkpoints(folder)


def _evaluated(done: AnyDone) -> dict[str, ModelFigures]:
    return done.models if isinstance(done, EvaluateDone) else {}


def _take_over(context: Context, name: str) -> None:
    """The stage's folder, ready for this attempt before any rank writes into it."""
    folder = context.run.stage(name)
    if context.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        begin_attempt(folder, _goes_on_from(context, name))
    if context.world_size > 1:
        torch.distributed.barrier()


def _trained_in(context: Context, name: str) -> list[Path]:
    """Folders of a stage's checkpoints."""
    return [context.run.stage(name), context.run.stage(name) / EXTENDED]


def _goes_on_from(context: Context, name: str) -> list[str]:
    """What an interrupted stage left that is whole at any moment: the trajectories of a synthesis, the answers of the
    models that are evaluated."""
    if name == BASE:
        return []
    stage = context.job.spec.stage(name)
    return stage.evaluate.models if stage.evaluate else ["trajectories"] if stage.synthesize else []


def _fair_share(world_size: int) -> int:
    """Threads of each of the processes that share this machine's cores."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, available_cores() // (int(here) if here.isdigit() else world_size))


def _work_of(context: Context, name: str) -> Callable[[Context, str], AnyDone]:
    kinds: dict[str, Callable[[Context, str], AnyDone]] = {
        "Synthesize": _synthesize,
        "SFT": run_sft,
        "GRPO": run_grpo,
        "Evaluate": run_evaluation,
    }
    return kinds[context.job.spec.stage(name).type]


def _base(context: Context) -> BaseDone:
    """The preset's base model, made or taken from the cache; nothing for a model that is downloaded."""
    if context.job.spec.model.uri != TINY:
        return BaseDone()
    agent = context.job.spec.agent
    tools = [find_tool(name).schema for name in context.tools if name in TOOLS or name in own_tools()]
    source = cached_base(
        context.model_cache,
        context.job.spec.seed,
        tools,
        get_format(agent.format),
        lambda step, loss: context.progress(BASE, step, STEPS, "pre-training", figures={"loss": loss}),
    )
    for file in source.iterdir():
        _link_or_copy(file, context.run.base / file.name)
    made = read(source / "base.json", BasePretraining)
    return BaseDone(seconds=made.seconds, loss=made.loss, seed=made.seed)


def _link_or_copy(file: Path, target: Path) -> None:
    """Two mounts of one file system have the same device, and cannot be linked across: only trying tells."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)


# ---- Synthesize -----------------------------------------------------------------------------------------------------


def _synthesize(context: Context, name: str) -> SynthesizeDone:
    stage = context.job.spec.stage(name)
    settings, scorer = stage.synthesize, scorer_of(stage)
    assert settings is not None
    tasks = list(repeated(context.tasks("train"), settings.trajectories))
    folder = context.run.stage(name) / "trajectories"
    attempts = _attempts(folder)
    judged_by = f"{scorer.name} {scorer.version}" if settings.filters.require_correct else ""

    def progress(done: int) -> None:
        if done % 100 == 0 or done == len(tasks):
            context.progress(name, step=done, total_steps=len(tasks))

    async def work() -> SynthesizeDone:
        async with StageTools(context, settings.tool_use == "Enabled", name) as tools:
            agent = context.agent(_planner(context, name), tools, rounds=settings.max_rounds)
            with Store(attempts) as store:
                made = await synthesize(
                    agent, tasks, scorer.score, settings, context.job.spec.seed, progress, store, judged_by=judged_by
                )
        _refuse_none(made, name)
        write_trajectories(made.rejected, folder / REJECTED)
        write_trajectories(made.kept, folder / TRAJECTORIES)
        return SynthesizeDone(kept=len(made.kept), dropped=dict(made.dropped))

    done = asyncio.run(work())
    for file in folder.glob(f"{ATTEMPTS}*"):
        file.unlink()  # all of it stands in the other two files, and all pictures beside them
    return done


def _attempts(folder: Path) -> Path:
    """The file of the stage's trajectories. Those that it made before it was filtered otherwise are in it again."""
    attempts, parts = folder / ATTEMPTS, [folder / TRAJECTORIES, folder / REJECTED]
    if not attempts.exists() and all(part.exists() for part in parts):
        partial = folder / f"{ATTEMPTS}.partial"
        partial.write_bytes(b"".join(part.read_bytes() for part in parts))
        partial.replace(attempts)
    return attempts


def _refuse_none(made: Synthesis, name: str) -> None:
    """A cold start without a trajectory is not done, whatever came in its way."""
    if made.kept:
        return
    reasons = ", ".join(f"{number} {reason}" for reason, number in made.dropped.most_common())
    said = f"stage {name} kept none of {made.dropped.total()} trajectories: {reasons}"
    if made.dropped[LOST] == made.dropped.total():
        raise InfrastructureError(f"{said}; planner or tools do not answer")
    raise UserError(f"{said}; give it another planner, or other filters", f"{name}.synthesize")


def _planner(context: Context, name: str) -> ChatModel:
    planner = context.job.spec.stage(name).synthesize.planner  # type: ignore[union-attr]
    if planner.model is not None:
        from thinkimg.models.api import ApiModel

        key = os.environ.get(Variable.PLANNER_KEY)
        return ApiModel(planner.model.base_url, planner.model.name, key)
    return ScriptedPlanner(get_format(context.job.spec.agent.format), planner.chains or DEFAULT_CHAINS)


@contextmanager
def join_ranks() -> Iterator[tuple[int, int]]:
    """(rank, world size) of this process, joined with the others over gloo or NCCL while the block lasts."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield torch.distributed.get_rank(), world_size
    finally:
        torch.distributed.destroy_process_group()
