"""Evaluates one model on one or several tasks: what `thinkimg eval` runs. What is heavy is imported then."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thinkimg.api import UNUSED_SCOPE, Control, ControlKind, ControlScope
from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.results import EvaluationResults, EvaluationSettings

if TYPE_CHECKING:
    from thinkimg.agent.agent import Agent
    from thinkimg.agent.tools import Tools
    from thinkimg.client import ToolClient
    from thinkimg.evaluation.control import Controlled
    from thinkimg.evaluation.evaluate import Shard
    from thinkimg.evaluation.identity import Asked
    from thinkimg.evaluation.lmms import LmmsTask
    from thinkimg.evaluation.output import Output
    from thinkimg.evaluation.scorers import Scorer
    from thinkimg.evaluation.tasks import EvaluationTask
    from thinkimg.models.chat import ChatModel
    from thinkimg.models.reference import Model
    from thinkimg.models.trained import Asking
    from thinkimg.trajectory import Task

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
        adopts: also OpenThinkIMG's: answers of other evaluations may be among those that are there.
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
    samples: int = 1
    control: ControlKind | None = None
    control_scope: ControlScope = "question"
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
    adopts: bool = False


@dataclass(frozen=True)
class Chosen:
    """The options, the model that they mean, and how it is asked."""

    options: Options
    model: "Model"
    asking: "Asking"

    def settings(self, task: str, agent: "Agent", questions: "Asked", shards: int) -> EvaluationSettings:
        """All that an answer depends on. Scorers are not: answers are scored again."""
        from thinkimg.evaluation.identity import asked_with

        given, model = self.options, self.model
        return EvaluationSettings(
            task=task,
            name=given.name or model.name,
            temperature=given.temperature,
            samples=given.samples,
            seed=given.seed,
            stop=given.stop,
            data=given.data_of.get(task, given.data),
            split=given.split,
            limit=given.limit,
            questions=len(questions.names),
            data_content=questions.content,
            shards=shards,
            **asked_with(model, given.backend, given.model_args, self.asking, agent),
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
    if options.samples > 1:
        _refuse_equal_samples(options, tasks)
    if options.control is None and options.control_scope != "question":
        raise UserError(f"{UNUSED_SCOPE.message}. {UNUSED_SCOPE.remedy}", "--control-scope")
    scorers = {task.name: _scorers(options, task) for task in tasks}
    shard = Shard.parse(options.shard)
    chosen = _chosen(options)
    loaded = make_model(chosen.model, options.backend, options.model_args)
    model = Metered(loaded if options.stop is None else Stopped(loaded, options.stop), Prices(*options.price))

    async def work() -> list[EvaluationResults]:
        results = []
        async with _connected(chosen) as tools:
            agent = _agent(chosen.asking, model, tools)
            begun = []
            with ExitStack() as held:
                for task in tasks:  # before any question is asked
                    held.callback(task.close)
                    begun.append(await _begin(chosen, agent, task, shard))
                    if len(tasks) > 1:
                        task.close()  # what it holds may be large
                for one in begun:
                    found = await _on_task(chosen, agent, one, scorers[one.task.name])
                    results += [found] if found is not None else []
                    one.task.close()
        return results

    return asyncio.run(work())


def _refuse_equal_samples(options: Options, tasks: Sequence[Any]) -> None:
    """Raises `UserError` where all answers to a question would be the same one, or another harness counts them."""
    from thinkimg.evaluation.lmms import LmmsTask

    if any(isinstance(task, LmmsTask) for task in tasks):
        raise UserError(
            "lmms-eval's own metrics take one answer to each question: leave it out for lmms:…", "--samples"
        )
    many = f"{options.samples} answers to a question would be the same one {options.samples} times"
    extra = options.model_args.get("extra")
    sent = extra if isinstance(extra, Mapping) else {}
    if options.temperature == 0 or sent.get("temperature", 1) == 0:
        where = "extra.temperature" if options.temperature else "--temperature"
        raise UserError(f"{many} at temperature 0: give {where} above it, such as 1.0", "--samples")
    if sent.get("seed") is not None:
        raise UserError(f"{many}, since extra.seed fixes it: leave it out", "--samples")


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


@dataclass(frozen=True)
class _Begun:
    """A task whose output is this evaluation's.

    Attributes:
        names: of this process' questions.
        unknown: settings of the answers that are there which nobody wrote down.
        controlled: how its pictures are changed.
        again: the same questions with changed pictures, asked after these.
    """

    task: "EvaluationTask | LmmsTask"
    output: "Output"
    names: Sequence[str]
    unknown: Sequence[str]
    controlled: "Controlled | None" = None
    again: "_Begun | None" = None


def _questions(options: Options, task: "EvaluationTask | LmmsTask") -> "Iterator[Task]":
    from thinkimg.data.questions import told_apart
    from thinkimg.evaluation.samples import several

    data = options.data_of.get(task.name, options.data)
    return several(told_apart(task.tasks(data, options.split, options.limit, options.seed)), options.samples)


async def _begin(chosen: Chosen, agent: "Agent", task: "EvaluationTask | LmmsTask", shard: "Shard") -> _Begun:
    """Raises `UserError`: bad rows; the output belongs to another evaluation; a control that cannot be."""
    from thinkimg.evaluation.control import Controlled, check
    from thinkimg.evaluation.identity import Asked
    from thinkimg.evaluation.output import Output

    options = chosen.options
    control = Control(options.control, options.control_scope) if options.control else None
    if control is not None:
        check(control, tools=bool(agent.tools.schemas))
    whole = await asyncio.to_thread(Asked.of, _questions(options, task))
    controlled = await asyncio.to_thread(Controlled, control, _questions(options, task)) if control else None
    settings = chosen.settings(task.name, agent, whole, shard.count)
    output = Output(options.out / task.name, settings, shard, options.stores.get(task.name), options.adopts)
    names, unknown, again = whole.names[shard.index :: shard.count], output.claim(), None
    if control is not None:
        under = output.under(control)
        again = _Begun(task, under, names, under.claim(), controlled)
    return _Begun(task, output, names, unknown, again=again)


async def _on_task(
    chosen: Chosen, agent: "Agent", begun: _Begun, scorers: "Sequence[Scorer]"
) -> EvaluationResults | None:
    from thinkimg.evaluation.lmms import LmmsTask

    results = await _ask(chosen, agent, begun, scorers)
    if results is not None and isinstance(begun.task, LmmsTask) and not results.infrastructure:
        results = begun.output.add_harness(begun.task)
    if begun.again is not None:
        await _ask(chosen, agent, begun.again, scorers)
    return begun.output.add_controls() or results


async def _ask(chosen: Chosen, agent: "Agent", begun: _Begun, scorers: "Sequence[Scorer]") -> EvaluationResults | None:
    from thinkimg.evaluation.evaluate import Settings, evaluate
    from thinkimg.trajectory.store import Store

    options, output = chosen.options, begun.output
    name, task = output.settings.name, begun.task.name
    began = time.monotonic()
    with Store(output.store) as store, _progress() as progress:
        output.check_rest(store, begun.names, begun.unknown)
        bar = progress.add_task(f"{output.folder.name}: {name}", total=len(begun.names))
        asked = Settings(name, task, options.temperature, options.seed, options.concurrency, begun.controlled)
        questions = _questions(options, begun.task)
        names = await evaluate(agent, questions, scorers, store, asked, output.shard, lambda *_: progress.advance(bar))
        return output.finish(store, names, time.monotonic() - began)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _agent(asking: "Asking", model: "ChatModel", tools: "Tools") -> "Agent":
    from thinkimg.agent.agent import Agent, Limits
    from thinkimg.agent.formats import get_format

    limits = Limits(asking.max_rounds, asking.max_tokens, asking.max_context, asking.max_seconds)
    return Agent(model, tools, limits, get_format(asking.format), asking.prompt, asking.system_prompt)


def _scorers(options: Options, task: Any) -> "list[Scorer]":
    """Those that were asked for, or the benchmark's two; what one of these lacks is said."""
    from thinkimg.evaluation.lmms import LmmsTask
    from thinkimg.evaluation.roles import named_scorers, usual_scorers, why_not
    from thinkimg.evaluation.scorers import JUDGE, find_rule

    if isinstance(task, LmmsTask):
        folder = options.out / task.name
        return [task.scorer(options.judge, options.scorers, folder, options.limit, options.seed)]
    names = named_scorers(task, options.scorers) or usual_scorers(task, bool(options.judge))
    if not options.scorers and task.official and task.official not in names:
        lacking = why_not(task.official, bool(options.judge))
        print(f"{task.name}: the official score is left out: {lacking}", file=sys.stderr)
    return [_judge(options) if name == JUDGE else find_rule(name) for name in names]


def _judge(options: Options) -> "Scorer":
    from thinkimg.evaluation.identity import named
    from thinkimg.evaluation.judge import JudgeScorer
    from thinkimg.models.backends import model_of

    model, judge = model_of(options.judge, None, "--judge")
    return JudgeScorer(judge, named=" ".join(named(model, options.judge)))


class _connected:
    """A tool client's tools while the block lasts, or none without servers."""

    def __init__(self, chosen: Chosen) -> None:
        self.options = chosen.options
        self.trained = chosen.model.trained
        self.client: ToolClient | None = None

    async def __aenter__(self) -> "Tools":
        from thinkimg.agent.tools import NoTools, only
        from thinkimg.client import PATIENCE, ResultCache, ToolClient

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
            patience=PATIENCE,
        )
        await self.client.connect()
        names = self.options.tools or (self.trained.tool_names if self.trained else None)
        return only(self.client, names) if names else self.client

    async def __aexit__(self, *_: object) -> None:
        if self.client is not None:
            await self.client.close()


def show(results: EvaluationResults) -> None:
    """The figures of one task on standard output."""
    from thinkimg.evaluation.output import ITEMS
    from thinkimg.evaluation.samples import TIES, measures
    from thinkimg.figures import UNKNOWN, accuracy, interval, points, rate

    samples = results.samples
    asked = (
        f"{samples.samples} answers to each of {samples.questions}"
        if samples
        else f"{results.n + results.infrastructure}"
    )
    print(f"{results.task}: {results.model}, {asked} questions")
    for number, (scorer, score) in enumerate(results.scores.items()):
        said = accuracy(score.mean, score.bounds, results.refused, results.context_full)
        kind = ", ".join(word for word in (score.role, "" if number else "decides") if word)
        print(f"  {scorer}{f' ({kind})' if kind else ''}: {said} (95 %: {interval(score.ci95)})")
    for name, score in measures(samples) if samples else ():
        print(f"  {name}: {accuracy(score.mean, score.bounds)} (95 %: {interval(score.ci95)})")
    if samples and samples.ties:
        print(f"  {samples.ties} questions have several most frequent answers; {TIES}")
    if unanswered := results.refused + results.context_full:
        print(f"  {unanswered} counted as wrong without an answer; {ITEMS} says which, by status")
    print(f"  tool calls per answer: {rate(results.tool_calls_per_answer)}; errors: {results.errors or 'none'}")
    for name, metrics in results.lmms_eval.items():
        told = ", ".join(f"{metric} = {value:g}" for metric, value in metrics.items())
        print(f"  lmms-eval, {name}: {told}")
    for one in results.controls:
        said = f"{accuracy(one.accuracy, one.bounds)} (95 %: {interval(one.ci95)})"
        owed = points(one.owed.difference, one.owed.ci95, one.owed.p) if one.owed else UNKNOWN
        print(f"  pictures changed ({one.control}, {one.scope}): {said}; owed to seeing the true ones: {owed}")
    if results.infrastructure:
        print(f"  {results.infrastructure} answers were lost to the infrastructure; run again to ask them again")
