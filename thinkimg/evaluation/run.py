"""Evaluates one model on one or several tasks: what `thinkimg eval` runs. What is heavy is imported then."""

import asyncio
import os
import sys
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
    from thinkimg.models.reference import Model
    from thinkimg.models.trained import Asking

console = Console(stderr=True)


@dataclass(frozen=True)
class Options:
    """One model on one or several tasks; each attribute is an option of `thinkimg eval`.

    What is None is as the model was trained, where a run or a file says it, else as `Asking` says.

    Attributes:
        model: see `thinkimg.models.reference`; of `openai` with `base_url`, the endpoint's own name of it.
        backend: None: `openai` for an endpoint, else `transformers`.
        servers: of tools; none at all evaluates without tools. None is right for a model that was trained without.
        tools: offered of those that the servers have; none named: those that the model was trained with, else all.
        source: what `model` means, if that has been found already.
        stores, data_of, stop: OpenThinkIMG's: task -> file of its trajectories; task -> data; a text that ends a reply.
    """

    tasks: Sequence[str]
    model: str
    out: Path
    backend: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    servers: Sequence[str] | None = None
    tools: Sequence[str] = ()
    format: str | None = None
    prompt: Literal["full", "compact"] | None = None
    max_rounds: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
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
    source: "Model | None" = None


@dataclass(frozen=True)
class Chosen:
    """The options, the model that they mean, and how it is asked."""

    options: Options
    model: "Model"
    asking: "Asking"

    def settings(self, task: str, tools: Sequence[str], shards: int) -> EvaluationSettings:
        """All that an answer depends on. Scorers are not: answers can be scored again."""
        from thinkimg.models.backends import backend_of

        given, asked = self.options, self.asking
        return EvaluationSettings(
            task=task,
            name=given.name or self.model.name,
            backend=backend_of(self.model, given.backend),
            model=given.model,
            format=asked.format,
            prompt=asked.prompt,
            max_rounds=asked.max_rounds,
            max_tokens=asked.max_tokens,
            temperature=given.temperature,
            seed=given.seed,
            data=given.data_of.get(task, given.data),
            split=given.split,
            limit=given.limit,
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
    chosen = _chosen(options)
    loaded = make_model(chosen.model, options.backend, options.model_args)
    model = Metered(loaded if options.stop is None else Stopped(loaded, options.stop), Prices(*options.price))

    async def work() -> list[EvaluationResults]:
        results = []
        async with _connected(chosen) as tools:
            agent = _agent(chosen.asking, model, tools)
            for task in tasks:
                found = await _on_task(chosen, agent, task, scorers[task.name], shard)
                results += [found] if found is not None else []
        return results

    return asyncio.run(work())


def _chosen(options: Options) -> Chosen:
    """Raises `UserError`: no such model, or one that was trained with tools and is given no server."""
    from thinkimg.models.backends import find_model
    from thinkimg.models.trained import asking

    model = options.source
    if model is None:
        model = find_model(options.model, options.backend, options.model_args)
        print(model, file=sys.stderr)
    if options.servers is None and model.trained is not None and model.trained.tools:
        names = " ".join(tool.spec.tool for tool in model.trained.tools)
        raise UserError(
            f"{options.model} was trained with tools: start them (`thinkimg serve {names}`) and name the servers, or "
            "say that it is evaluated without any",
            "servers",
        )
    asked = asking(
        model.trained,
        format=options.format,
        prompt=options.prompt,
        max_rounds=options.max_rounds,
        max_tokens=options.max_tokens,
        max_seconds=options.max_seconds,
    )
    return Chosen(options, model, asked)


async def _on_task(
    chosen: Chosen, agent: "Agent", task: Any, scorers: "Sequence[Scorer]", shard: Any
) -> EvaluationResults | None:
    from thinkimg.evaluation.evaluate import Settings, evaluate
    from thinkimg.evaluation.output import Output
    from thinkimg.trajectory.store import Store

    options = chosen.options
    settings = chosen.settings(task.name, list(agent.tools.schemas), shard.count)
    output = Output(options.out / task.name, settings, shard, options.stores.get(task.name))
    output.claim()
    began = time.monotonic()
    with Store(output.store) as store, _progress() as progress:
        bar = progress.add_task(f"{task.name}: {settings.name}", total=options.limit)
        asked = Settings(settings.name, task.name, options.temperature, options.seed, options.concurrency)
        questions = task.tasks(settings.data, options.split, options.limit, options.seed)
        names = await evaluate(agent, questions, scorers, store, asked, shard, lambda *_: progress.advance(bar))
        return output.finish(store, names, time.monotonic() - began)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _agent(asking: "Asking", model: "ChatModel", tools: "Tools") -> "Agent":
    from thinkimg.agent.agent import Agent, Limits
    from thinkimg.agent.formats import get_format

    limits = Limits(rounds=asking.max_rounds, tokens_per_turn=asking.max_tokens, seconds=asking.max_seconds)
    return Agent(model, tools, limits, get_format(asking.format), asking.prompt)


def _scorers(options: Options, default: str) -> "list[Scorer]":
    from thinkimg.evaluation.judge import JudgeScorer
    from thinkimg.evaluation.scorers import JUDGE, find_rule

    names = list(dict.fromkeys(options.scorers or (default,)))
    return [JudgeScorer(_judge(options)) if name == JUDGE else find_rule(name) for name in names]


def _judge(options: Options) -> "ChatModel":
    from thinkimg.models.backends import model_of

    return model_of(options.judge, None, "--judge")[1]


class _connected:
    """A tool client's tools while the block lasts, or none without servers."""

    def __init__(self, chosen: Chosen) -> None:
        self.options = chosen.options
        self.trained = chosen.model.trained
        self.client: ToolClient | None = None

    async def __aenter__(self) -> "Tools":
        from thinkimg.agent.tools import NoTools, only
        from thinkimg.client import ResultCache, ToolClient

        servers = self.options.servers or ()
        if not servers:
            if self.options.tools:
                raise UserError("tools need a server: start one with `thinkimg serve`, and give --server URL", "--tool")
            return NoTools()
        key = os.environ.get(Variable.API_KEY)
        self.client = ToolClient(
            servers,
            dict.fromkeys(servers, key) if key else None,
            timeout_seconds=self.trained.call_seconds if self.trained else 30,
            cache=ResultCache(),
        )
        await self.client.connect()
        names = self.options.tools or (self.trained.tool_names if self.trained else None)
        return only(self.client, names) if names else self.client

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
