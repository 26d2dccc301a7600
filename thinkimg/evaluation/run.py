"""Evaluates one model on one or several tasks: what `thinkimg eval` runs. What is heavy is imported then."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.results import EvaluationResults, EvaluationSettings

if TYPE_CHECKING:
    from thinkimg.agent.agent import Agent
    from thinkimg.agent.tools import Tools
    from thinkimg.client import ToolClient
    from thinkimg.evaluation.scorers import Scorer
    from thinkimg.models.chat import ChatModel

console = Console(stderr=True)


@dataclass(frozen=True)
class Options:
    """One model on one or several tasks; each attribute is an option of `thinkimg eval`.

    The last three are OpenThinkIMG's: task -> file of its trajectories; task -> data; a text that ends a reply.
    """

    tasks: Sequence[str]
    model: str
    out: Path
    backend: str = "transformers"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    servers: Sequence[str] = ()
    tools: Sequence[str] = ()
    format: str = "openthinkimg"
    prompt: Literal["full", "compact"] = "full"
    max_rounds: int = 6
    max_tokens: int = 512
    max_seconds: float = 600.0
    temperature: float = 0.0
    seed: int = 0
    concurrency: int = 64
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    scorers: Sequence[str] = ()
    judge: Mapping[str, Any] = field(default_factory=dict)
    price: tuple[float, float] = (0.0, 0.0)
    shard: str = "0/1"
    stores: Mapping[str, Path] = field(default_factory=dict)
    data_of: Mapping[str, str] = field(default_factory=dict)
    stop: str | None = None

    def settings(self, task: str, tools: Sequence[str], shards: int) -> EvaluationSettings:
        """All that an answer depends on. Scorers are not: answers can be scored again."""
        return EvaluationSettings(
            task=task,
            name=self.name or Path(self.model).name,
            backend=self.backend,
            model=self.model,
            format=self.format,
            prompt=self.prompt,
            max_rounds=self.max_rounds,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            data=self.data_of.get(task, self.data),
            split=self.split,
            limit=self.limit,
            tools=sorted(tools),
            shards=shards,
        )


def run_evaluation(options: Options) -> list[EvaluationResults]:
    """Evaluate on every task and write `OUT/<task>/`; what is finished there is not asked again.

    Returns:
        The results of each task; of those alone whose shards are all finished.

    Raises:
        UserError: wrong options; the output belongs to another evaluation or to a process that runs.
        InfrastructureError: endpoint, engine or tool servers do not work.
    """
    from thinkimg.evaluation.evaluate import Shard
    from thinkimg.evaluation.tasks import find_task
    from thinkimg.models.backends import Metered, Prices, Stopped, make_model

    tasks = [find_task(name) for name in options.tasks]
    if options.data is not None and len(tasks) > 1:
        raise UserError("--data and --split speak of one task; name one", "--data")
    scorers = {task.name: _scorers(options, task.scorer) for task in tasks}
    shard = Shard.parse(options.shard)
    loaded = make_model(options.backend, options.model, options.model_args)
    model = Metered(loaded if options.stop is None else Stopped(loaded, options.stop), Prices(*options.price))

    async def work() -> list[EvaluationResults]:
        results = []
        async with _connected(options) as tools:
            agent = _agent(options, model, tools)
            for task in tasks:
                found = await _on_task(options, agent, task, scorers[task.name], shard)
                results += [found] if found is not None else []
        return results

    return asyncio.run(work())


async def _on_task(
    options: Options, agent: "Agent", task: Any, scorers: "Sequence[Scorer]", shard: Any
) -> EvaluationResults | None:
    from thinkimg.evaluation.evaluate import Settings, evaluate
    from thinkimg.evaluation.output import Output
    from thinkimg.trajectory.store import Store

    settings = options.settings(task.name, list(agent.tools.schemas), shard.count)
    output = Output(options.out / task.name, settings, shard, options.stores.get(task.name))
    output.claim()
    began = time.monotonic()
    with Store(output.store) as store, _progress() as progress:
        bar = progress.add_task(f"{task.name}: {settings.name}", total=options.limit)
        chosen = Settings(settings.name, task.name, options.temperature, options.seed, options.concurrency)
        questions = task.tasks(settings.data, options.split, options.limit, options.seed)
        names = await evaluate(agent, questions, scorers, store, chosen, shard, lambda *_: progress.advance(bar))
        return output.finish(store, names, time.monotonic() - began)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _agent(options: Options, model: "ChatModel", tools: "Tools") -> "Agent":
    from thinkimg.agent.agent import Agent, Limits
    from thinkimg.agent.formats import get_format

    limits = Limits(rounds=options.max_rounds, tokens_per_turn=options.max_tokens, seconds=options.max_seconds)
    return Agent(model, tools, limits, get_format(options.format), options.prompt)


def _scorers(options: Options, default: str) -> "list[Scorer]":
    from thinkimg.evaluation.judge import Judge
    from thinkimg.evaluation.scorers import JUDGE, find_rule

    names = list(dict.fromkeys(options.scorers or (default,)))
    return [Judge(_judge(options)) if name == JUDGE else find_rule(name) for name in names]


def _judge(options: Options) -> "ChatModel":
    from thinkimg.models.backends import make_model

    arguments = dict(options.judge)
    if "base_url" not in arguments or "model" not in arguments:
        raise UserError("the judge needs base_url=… and model=…", "--judge")
    return make_model("openai", str(arguments.pop("model")), arguments)


class _connected:
    """A tool client's tools while the block lasts, or none without servers."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.client: ToolClient | None = None

    async def __aenter__(self) -> "Tools":
        from thinkimg.agent.tools import NoTools, only
        from thinkimg.client import ResultCache, ToolClient

        servers = self.options.servers
        if not servers:
            if self.options.tools:
                raise UserError("tools need a server: start one with `thinkimg serve`, and give --server URL", "--tool")
            return NoTools()
        key = os.environ.get(Variable.API_KEY)
        self.client = ToolClient(servers, dict.fromkeys(servers, key) if key else None, cache=ResultCache())
        await self.client.connect()
        return only(self.client, self.options.tools) if self.options.tools else self.client

    async def __aexit__(self, *_: object) -> None:
        if self.client is not None:
            await self.client.close()


def show(results: EvaluationResults) -> None:
    """The figures of one task on standard output."""
    from thinkimg.figures import interval, percent, rate

    print(f"{results.task}: {results.model}, {results.n} questions")
    for scorer, score in results.scores.items():
        print(f"  {scorer}: {percent(score.mean)} (95 %: {interval(score.ci95)})")
    print(f"  tool calls per answer: {rate(results.tool_calls_per_answer)}; errors: {results.errors or 'none'}")
    if results.infrastructure:
        print(f"  {results.infrastructure} answers were lost to the infrastructure; run again to ask them again")
