"""What every stage of a ToolRLJob is given, and what stages are made of: questions, tool clients, agents, models."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import get_format
from thinkimg.agent.tools import NoTools, Tools
from thinkimg.api import Manifest, ToolRLJob, bytes_of
from thinkimg.api.pod_contract import ProgressLine, SavedCheckpoint
from thinkimg.client import PATIENCE, ResultCache, ToolClient, merge_stats
from thinkimg.jobs.attempt import check_attempt
from thinkimg.jobs.environment import claims_folder
from thinkimg.jobs.layout import BASE, Run
from thinkimg.jobs.stages.questions import load_tasks
from thinkimg.jsonfile import read, write
from thinkimg.models.chat import ChatModel
from thinkimg.models.generator import NO_FILTERS, Filters
from thinkimg.models.image_features import keep_at_most
from thinkimg.models.loading import Loading
from thinkimg.models.pretrained import LoadedModel, load_model
from thinkimg.models.reference import Model, Reader
from thinkimg.models.saving import check_can_be_saved
from thinkimg.results import ToolCalls
from thinkimg.trajectory import Task

TINY = "preset://tiny"


def call_seconds_of(manifest: Manifest, job: ToolRLJob) -> float:
    """Until a call of any of the job's tools is given up: the longest `callTimeoutSeconds` of those in the manifest."""
    return max((tool.spec.call_timeout_seconds for tool in manifest.tools_of(job)), default=Context.call_seconds)


@dataclass(frozen=True)
class Context:
    """What every stage needs.

    Attributes:
        tools: names of the built-in tools that the job uses.
        endpoints: addresses of the tool servers; empty for stages without tools.
        tool_keys: endpoint -> key, where a server wants one.
        call_seconds: until a tool call, with its retries, is given up; `call_seconds_of` finds it.
        cache_tools: keep tool results in this process's memory, from an empty start.
        rank, world_size: of this process.
    """

    job: ToolRLJob
    run: Run
    tools: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    tool_keys: Mapping[str, str] = field(default_factory=dict)
    call_seconds: float = 30
    data_folder: Path = Path(".")
    model_cache: Path = Path.home() / ".cache" / "thinkimg" / "models"
    cache_tools: bool = True
    rank: int = 0
    world_size: int = 1

    def progress(
        self,
        stage: str,
        step: int | None = None,
        total_steps: int | None = None,
        message: str = "",
        checkpoint: SavedCheckpoint | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Say how far the stage is, in one line of rank 0's standard output."""
        if self.rank == 0:
            print(ProgressLine(stage, step, total_steps, message, checkpoint, figures or {}).format(), flush=True)

    # ---- what stages are made of ----------------------------------------------------------------------------------

    def tasks(self, split: str, count: int | None = None) -> list[Task]:
        """Questions of a split; train, validation and test share nothing, and neither do seeds."""
        return load_tasks(self.job.spec.data, split, self.job.spec.seed, self.data_folder, count)

    def client(self) -> ToolClient:
        cache = ResultCache() if self.cache_tools else None
        return ToolClient(
            self.endpoints, self.tool_keys, timeout_seconds=self.call_seconds, cache=cache, patience=PATIENCE
        )

    def described_client(self) -> ToolClient:
        """A client that knows the tools' schemas, for prompts are made of them; connections belong to the loop that
        uses them, so they are closed again."""
        client = self.client()

        async def read_schemas() -> None:
            await client.connect()
            await client.close()

        asyncio.run(read_schemas())
        return client

    def agent(self, model: ChatModel, tools: Tools, filters: Filters = NO_FILTERS, **limits: Any) -> Agent:
        spec = self.job.spec.agent
        chosen = {
            "rounds": spec.max_rounds,
            "tokens_per_turn": spec.max_tokens_per_turn,
            "tokens": spec.max_tokens,
            "seconds": spec.max_seconds_per_trajectory,
        } | limits
        format = get_format(spec.format)
        return Agent(model, tools, Limits(**chosen), format, spec.prompt, spec.system_prompt, filters)

    def model(self, name: str) -> Model:
        """Of a stage, or the base. Raises `UserError`: it is not there."""
        spec, reader = self.job.spec.model, Reader("spec.model.uri", self.data_folder, claims_folder())
        if name == BASE and spec.uri != TINY:
            return replace(reader, revision=spec.revision).read(spec.uri)
        return reader.read(str(self.run.model(name)))

    @property
    def loading(self) -> Loading:
        spec = self.job.spec.model
        keep_at_most(bytes_of(spec.image_cache_size))
        return Loading(spec.trust_remote_code, spec.min_pixels, spec.max_pixels, spec.thinks, field="spec.model.uri")

    def load(self, name: str) -> LoadedModel:
        return load_model(self.model(name), self.loading)

    def load_to_train(self, name: str) -> LoadedModel:
        """Raises `UserError` if what comes of it could not be saved."""
        loaded = self.load(name)
        check_can_be_saved(loaded.model, loaded.processor, "spec.model.uri")
        return loaded

    def save(self, name: str, loaded: LoadedModel) -> None:
        """Rank 0 saves a stage's model, if no later attempt has taken over."""
        if self.rank == 0:
            check_attempt(self.run.stage(name))
            loaded.save(self.run.model(name))


class StageTools:
    """A connected tool client, or none; at the end its statistics stand in the stage's folder, with those of clients
    before it."""

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
                before = read(self.path, ToolCalls).tools if self.path.exists() else {}
                write(self.path, ToolCalls(tools=merge_stats(before, self.client.stats())))
