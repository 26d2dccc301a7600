"""One stage of a ToolRLJob: `thinkimg stage job.yaml NAME --run DIR`, here and in pods alike.

A stage reads what earlier stages left in the run's folder and writes its own folder; it knows nothing of how it was
started. Progress goes to standard output as JSON lines.
"""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from thinkimg.agent.agent import Agent, Limits, NoTools, Outcome, Task, Tools
from thinkimg.agent.formats import get_format
from thinkimg.agent.store import Store
from thinkimg.api.v1alpha1 import ToolRLJob
from thinkimg.client import ResultCache, ToolClient
from thinkimg.errors import UserError
from thinkimg.evaluation.evaluate import Settings as AskSettings
from thinkimg.evaluation.evaluate import evaluate
from thinkimg.evaluation.metrics import exact_match
from thinkimg.evaluation.report import summarise_rows
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.summary import Row, row_of
from thinkimg.image import Image
from thinkimg.jobs.attempt import attempt_number, begin_attempt, check_attempt
from thinkimg.jobs.environment import PLANNER_KEY, mounted_path
from thinkimg.jobs.layout import BASE, Run, write_json
from thinkimg.jobs.questions import TRAJECTORIES, load_tasks, load_trajectories
from thinkimg.jobs.termination import last_words
from thinkimg.jobs.tiny_preset import cached_base
from thinkimg.models.chat import ChatModel
from thinkimg.models.pretrained import LoadedModel, load_model
from thinkimg.synthesis.planner import ScriptedPlanner
from thinkimg.synthesis.synthesize import Filters, repeated, synthesize
from thinkimg.tools.registry import TOOLS, find_tool, own_tools
from thinkimg.tools.tool import ToolSchema
from thinkimg.training.checkpoints import CheckpointCallback, asked_to_end, newest_checkpoint, remove_checkpoints
from thinkimg.training.collator import encode_samples
from thinkimg.training.grpo import GRPOSettings, train_grpo
from thinkimg.training.rewards import make_rewards
from thinkimg.training.sft import SFTSettings, train_sft
from thinkimg.trajectory import Trajectory, read_trajectories, write_trajectories

DEFAULT_CHAINS = {"zoom-ocr": 0.22, "ocr": 0.28, "zoom": 0.2, "point": 0.1, "point-line": 0.1, "none": 0.1}
TINY = "preset://tiny"
_EXTENDED = "extended"
"""Below an SFT stage's folder: checkpoints of the second training, which a gate asked for."""


class GateClosed(UserError):
    """The cold start is too weak for RL: the run ends here, with the reason."""


@dataclass(frozen=True)
class Context:
    """What every stage needs.

    Attributes:
        tools: names of the built-in tools that the job uses.
        endpoints: addresses of the tool servers; empty for stages without tools.
        tool_keys: endpoint -> key, where a server wants one.
        cache_tools: keep tool results in this process's memory, from an empty start.
        rank, world_size: of this process.
    """

    job: ToolRLJob
    run: Run
    tools: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    tool_keys: Mapping[str, str] = field(default_factory=dict)
    data_folder: Path = Path(".")
    model_cache: Path = Path.home() / ".cache" / "thinkimg" / "models"
    cache_tools: bool = True
    rank: int = 0
    world_size: int = 1

    def progress(self, stage: str, **values: Any) -> None:
        if self.rank == 0:
            print(json.dumps({"stage": stage, **values}), flush=True)

    # ---- what stages are made of ----------------------------------------------------------------------------------

    def tasks(self, split: str, count: int | None = None) -> list[Task]:
        """Questions of a split; train, validation and test share nothing, and neither do seeds."""
        return load_tasks(self.job.spec.data, split, self.job.spec.seed, self.data_folder, count)

    def client(self) -> ToolClient:
        return ToolClient(self.endpoints, self.tool_keys, cache=ResultCache() if self.cache_tools else None)

    def agent(self, model: ChatModel, tools: Tools, **limits: Any) -> Agent:
        spec = self.job.spec.agent
        chosen = {
            "rounds": spec.max_rounds,
            "tokens_per_turn": spec.max_tokens_per_turn,
            "seconds": spec.max_seconds_per_trajectory,
        } | limits
        return Agent(model, tools, Limits(**chosen), get_format(spec.format), spec.prompt)

    def load(self, name: str) -> LoadedModel:
        model = self.job.spec.model
        if name == BASE and model.uri != TINY:
            return load_model(_model_source(model.uri), model.revision, model.trust_remote_code)
        return load_model(self.run.model(name))

    def save(self, name: str, loaded: LoadedModel) -> None:
        """Rank 0 saves a stage's model, if no later attempt has taken over."""
        if self.rank == 0:
            check_attempt(self.run.stage(name))
            loaded.save(self.run.model(name))


def _model_source(uri: str) -> str | Path:
    """The hub's name of a model, or its folder on a mounted claim."""
    scheme, _, name = uri.partition("://")
    return name if scheme == "hf" else mounted_path(uri, "spec.model.uri")


def run_stage(context: Context, name: str) -> None:
    """Run one stage to its end and mark it finished.

    Raises:
        UserError, InfrastructureError: see the exit codes of `thinkimg stage`.
    """
    began = time.monotonic()
    with last_words(name, context.rank) as words:
        if (done := context.run.done(name)) is not None:
            words |= done  # an earlier attempt finished it, and its end went unnoticed
            return
        _take_over(context, name)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        torch.set_num_threads(int(threads) if threads.isdigit() else _fair_share(context.world_size))
        record = _base(context) if name == BASE else _work_of(context, name)(context, name)
        words |= record
        if context.rank == 0:
            check_attempt(context.run.stage(name))
            context.run.finish(name, {"seconds": round(time.monotonic() - began, 1)} | record)
            for folder in (context.run.stage(name), context.run.stage(name) / _EXTENDED):
                remove_checkpoints(folder)


def _take_over(context: Context, name: str) -> None:
    """The stage's folder, ready for this attempt before any rank writes into it."""
    folder = context.run.stage(name)
    if context.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        begin_attempt(folder)
    if context.world_size > 1:
        torch.distributed.barrier()


def _fair_share(world_size: int) -> int:
    """Threads of each of the processes that share this machine's cores."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, (os.cpu_count() or 1) // (int(here) if here.isdigit() else world_size))


def _work_of(context: Context, name: str) -> Callable[[Context, str], dict[str, Any]]:
    kinds = {"Synthesize": _synthesize, "SFT": _sft, "GRPO": _grpo, "Evaluate": _evaluate}
    return kinds[context.job.spec.stage(name).type]


def _base(context: Context) -> dict[str, Any]:
    """The preset's base model, made or taken from the cache; nothing for a model that is downloaded."""
    if context.job.spec.model.uri != TINY:
        return {}
    agent = context.job.spec.agent
    tools = [find_tool(name).schema for name in context.tools if name in TOOLS or name in own_tools()]
    source = cached_base(
        context.model_cache,
        context.job.spec.seed,
        tools,
        get_format(agent.format),
        lambda text: context.progress(BASE, message=text),
    )
    for file in source.iterdir():
        _link_or_copy(file, context.run.base / file.name)
    return json.loads((source / "base.json").read_text())


def _link_or_copy(file: Path, target: Path) -> None:
    """Two mounts of one file system have the same device, and cannot be linked across: only trying tells."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)


# ---- Synthesize -----------------------------------------------------------------------------------------------------


def _synthesize(context: Context, name: str) -> dict[str, Any]:
    settings = context.job.spec.stage(name).synthesize
    assert settings is not None
    tasks = list(repeated(context.tasks("train"), settings.trajectories))
    filters = Filters(settings.filters.require_correct, settings.filters.max_tool_errors)

    def progress(done: int) -> None:
        if done % 100 == 0 or done == len(tasks):
            context.progress(name, step=done, total_steps=len(tasks))

    async def work() -> dict[str, Any]:
        async with _tools(context, settings.tool_use == "Enabled", name) as tools:
            agent = context.agent(_planner(context, name), tools, rounds=settings.max_rounds)
            made = await synthesize(
                agent, tasks, exact_match, filters, context.job.spec.seed, settings.concurrency, progress
            )
        write_trajectories(made.kept, context.run.stage(name) / "trajectories" / TRAJECTORIES)
        return {"kept": len(made.kept), "dropped": dict(made.dropped)}

    return asyncio.run(work())


def _planner(context: Context, name: str) -> ChatModel:
    planner = context.job.spec.stage(name).synthesize.planner  # type: ignore[union-attr]
    if planner.model is not None:
        from thinkimg.models.api import ApiModel

        key = os.environ.get(PLANNER_KEY)
        return ApiModel(planner.model.base_url, planner.model.name, key)
    return ScriptedPlanner(get_format(context.job.spec.agent.format), planner.chains or DEFAULT_CHAINS)


class _tools:
    """A connected tool client, or none; at the end its statistics stand in the stage's folder."""

    def __init__(self, context: Context, enabled: bool, name: str) -> None:
        self.context = context
        self.client = context.client() if enabled else None
        self.path = context.run.stage(name) / "tools.json"

    async def __aenter__(self) -> Tools:
        if self.client is None:
            return NoTools()
        await self.client.connect()
        return self.client

    async def __aexit__(self, *_: object) -> None:
        if self.client is not None:
            await self.client.close()
            if self.context.rank == 0:
                write_json(self.path, self.client.stats())


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@dataclass
class _Saving:
    """How a training stage saves, where it goes on, and its newest complete checkpoint; empty in a local run."""

    every: int | None = None
    resume_from: Path | None = None
    newest: dict[str, Any] | None = None
    callbacks: Sequence[TrainerCallback] = ()


@contextmanager
def _checkpoints(context: Context, name: str, folder: Path) -> Iterator[_Saving]:
    """The checkpoints of one training that writes into `folder`. SIGTERM in the block ends it after one more.

    Raises:
        KeyboardInterrupt: at the block's end, when SIGTERM came.
    """
    if attempt_number() is None:
        yield _Saving()
        return
    settings = context.job.spec.checkpoint
    saving = _Saving(settings.every_steps, newest_checkpoint(folder))
    if saving.resume_from is not None:
        context.progress(name, message=f"going on from {saving.resume_from.name}")

    def saved(step: int, path: Path) -> None:
        where = os.path.relpath(path, context.data_folder.resolve())
        saving.newest = {"step": step, "path": where, "time": datetime.now(UTC).isoformat(timespec="seconds")}

    with asked_to_end() as asked:
        callback = CheckpointCallback(settings.keep, lambda: check_attempt(context.run.stage(name)), saved, asked)
        saving.callbacks = [callback]
        yield saving
    if callback.ended:
        raise KeyboardInterrupt


# ---- SFT ------------------------------------------------------------------------------------------------------------


class _Progress(TrainerCallback):
    """Every line says all that is known: whoever reads the log may see the last one only."""

    def __init__(self, context: Context, name: str, saving: _Saving, every: int = 10) -> None:
        self.context, self.name, self.saving, self.every = context, name, saving, every
        self.shown: dict[str, Any] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.global_step % self.every == 0:
            self.shown = {key: logs[key] for key in ("loss", "reward") if key in logs}
            self._say(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._say(state)

    def _say(self, state: Any) -> None:
        saved = {"checkpoint": self.saving.newest} if self.saving.newest else {}
        self.context.progress(self.name, step=state.global_step, total_steps=state.max_steps, **self.shown, **saved)


def _sft(context: Context, name: str) -> dict[str, Any]:
    stage = context.job.spec.stage(name)
    settings = stage.sft
    assert settings is not None
    loaded = context.load(stage.from_)
    trajectories = _cold_start(context, name)
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
        output = folder / _EXTENDED if attempt else folder
        with _checkpoints(context, name, output) as saving:
            record["loss"] = train_sft(
                loaded.model, loaded.processor, loaded.family, samples, replace(options, save_steps=saving.every),
                output, folder / "log.jsonl", [*saving.callbacks, _Progress(context, name, saving)], saving.resume_from,
            )  # fmt: skip
        if gate is None:
            break
        answers = folder / f"gate-{attempt + 1}.jsonl"
        accuracy = _gate_accuracy(context, name, answers, loaded, gate.questions, settings.tool_use == "Enabled")
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


def _cold_start(context: Context, name: str) -> list[Trajectory]:
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


def _gate_accuracy(
    context: Context, name: str, answers: Path, loaded: LoadedModel, questions: int, tools: bool
) -> float:
    """Share of sampled answers that are right on validation questions; all ranks get rank 0's number."""
    accuracy = 0.0
    if context.rank == 0:
        answers.unlink(missing_ok=True)  # of an attempt that may have ended with other weights
        rows = _answers(context, answers, name, loaded.chat, context.tasks("validation", questions), 1.0, tools)
        accuracy = sum(row.correct for row in rows) / len(rows)
    if context.world_size > 1:
        shared = [accuracy]
        torch.distributed.broadcast_object_list(shared, 0)
        accuracy = shared[0]
    return accuracy


# ---- GRPO -----------------------------------------------------------------------------------------------------------


def _grpo(context: Context, name: str) -> dict[str, Any]:
    stage = context.job.spec.stage(name)
    grpo = stage.grpo
    assert grpo is not None
    loaded = context.load(stage.from_)
    client = context.client() if grpo.tool_use == "Enabled" else None
    if client is not None:
        asyncio.run(_read_schemas(client))
    agent = context.agent(
        loaded.chat, _Limited(client, grpo.tool_concurrency) if client else NoTools(), rounds=grpo.max_rounds, 
        tokens_per_turn=grpo.max_tokens_per_turn, seconds=grpo.max_seconds_per_trajectory,
    )  # fmt: skip
    args = dict(grpo.args)
    passes = args.pop("gradient_accumulation_steps", 1)
    known = {key: args.pop(key) for key in list(args) if key in GRPOSettings.model_fields}
    settings = GRPOSettings(
        steps=grpo.max_steps,
        prompts_per_step=grpo.prompts_per_step,
        generations=grpo.num_generations,
        learning_rate=grpo.learning_rate,
        temperature=grpo.temperature,
        beta=grpo.beta,
        seed=context.job.spec.seed,
        attempts=grpo.resample_limit + 1,
        refill=grpo.refill,
        mask_truncated=grpo.mask_truncated,
        micro_batch=grpo.rollouts_per_process(context.world_size) if passes > 1 else None,
        save_total_limit=None,
        trl=args,
        **known,
    )
    rewards = make_rewards({reward.name: reward.weight for reward in grpo.rewards}, _score)
    folder = context.run.stage(name)
    try:
        with _checkpoints(context, name, folder) as saving:
            train_grpo(
                loaded.model, loaded.processor, loaded.family, agent, context.tasks("train"), rewards,
                settings.model_copy(update={"save_steps": saving.every}), folder,
                image_features=loaded.features, resume_from=saving.resume_from, world_size=context.world_size,
                callbacks=[*saving.callbacks, _Progress(context, name, saving, 5)],
                connect=client.connect if client else None, disconnect=client.close if client else None,
            )  # fmt: skip
    finally:
        if client is not None and context.rank == 0:
            write_json(folder / "tools.json", client.stats())
    context.save(name, loaded)
    return {}


@dataclass
class _Limited:
    """Tools of which at most `limit` calls are in flight; a call's deadline begins when its turn comes."""

    client: ToolClient
    limit: int

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.limit)

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        return self.client.schemas

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        async with self.slots:
            return await self.client.call(name, arguments, images)


async def _read_schemas(client: ToolClient) -> None:
    """The prompt needs the schemas now; connections belong to the loop that uses them, so these are closed again."""
    await client.connect()
    await client.close()


def _score(answer: str | None, reference: str) -> float:
    return float(exact_match(answer, reference))


# ---- Evaluate -------------------------------------------------------------------------------------------------------


def _evaluate(context: Context, name: str) -> dict[str, Any]:
    settings = context.job.spec.stage(name).evaluate
    assert settings is not None
    tasks = context.tasks(settings.split, settings.questions)
    entries = {}
    for number, model in enumerate(settings.models):
        context.progress(name, step=number, total_steps=len(settings.models), message=f"evaluating {model}")
        began = time.monotonic()
        folder = context.run.stage(name) / model
        folder.mkdir(exist_ok=True)
        loaded = context.load(model)
        tools = trained_with_tools(context.job, model)
        modes = {"greedy": 0.0} | ({"sampled": settings.temperature} if settings.sampled else {})
        rows = {
            mode: _answers(
                context, folder / f"{mode}.jsonl", f"{name}/{model}", loaded.chat, tasks, temperature, tools,
                settings.concurrency,
            )
            for mode, temperature in modes.items()
        }  # fmt: skip
        seconds = round(time.monotonic() - began, 1)
        entries[model] = summarise_rows(rows["greedy"], rows.get("sampled", ()), seconds)
    return {"models": entries}


def trained_with_tools(job: ToolRLJob, model: str) -> bool:
    if model == BASE:
        return bool(job.spec.tools)
    stage = job.spec.stage(model)
    block = stage.sft or stage.grpo
    return block is not None and block.tool_use == "Enabled"


def _answers(
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
    settings = AskSettings(label or stage, stage, temperature, context.job.spec.seed, concurrency)

    async def work() -> list[Row]:
        async with _tools(context, tools, name) as connected:
            with Store(path) as store:
                agent = context.agent(model, connected)
                names = await evaluate(agent, tasks, [find_rule("relaxed_normalised")], store, settings)
                store.put_in_order(names)
                return [row_of(store.record(name)) for name in names]

    return asyncio.run(work())


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
