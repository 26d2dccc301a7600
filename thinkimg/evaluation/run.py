"""Evaluates one model on one or several tasks: what `thinkimg eval` runs. What is heavy is imported then."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thinkimg.errors import UserError
from thinkimg.evaluation.options import Chosen, Options, check_options, choose, scorers_of
from thinkimg.results import EvaluationResults

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
    from thinkimg.models.trained import Asking
    from thinkimg.trajectory import Task

console = Console(stderr=True)


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
    check_options(options, tasks)
    scorers = {task.name: scorers_of(options, task) for task in tasks}
    shard = Shard.parse(options.shard)
    chosen = choose(options)
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


@dataclass(frozen=True)
class _Begun:
    """A task whose output is this evaluation's.

    Attributes:
        names: of this process' questions.
        unknown: settings of the answers that are there which nobody wrote down.
        kept: all questions, of every process, where they are in memory.
        controlled: how its pictures are changed.
        again: the same questions with changed pictures, asked after these.
    """

    task: "EvaluationTask | LmmsTask"
    output: "Output"
    names: Sequence[str]
    unknown: Sequence[str]
    kept: "Sequence[Task] | None" = None
    controlled: "Controlled | None" = None
    again: "_Begun | None" = None


def _questions(options: Options, task: "EvaluationTask | LmmsTask") -> "Iterator[Task]":
    from thinkimg.data.questions import told_apart
    from thinkimg.evaluation.samples import several

    data = options.data_of.get(task.name, options.data)
    return several(told_apart(task.tasks(data, options.split, options.limit, options.seed)), options.samples)


async def _begin(chosen: Chosen, agent: "Agent", task: "EvaluationTask | LmmsTask", shard: "Shard") -> _Begun:
    """Raises `UserError`: bad rows; the output belongs to another evaluation; a control that cannot be."""
    from thinkimg.evaluation.control import Controlled, check, with_pictures
    from thinkimg.evaluation.identity import Asked
    from thinkimg.evaluation.output import Output

    options, control = chosen.options, chosen.options.changed_pictures
    if control is not None:
        check(control, tools=bool(agent.tools.schemas))

    def read() -> "tuple[Asked, Controlled | None, Sequence[Task] | None]":
        """The rows once. `other` keeps all pictures, so that nothing is read again."""
        tasks = _questions(options, task)
        if control is None:
            return Asked.of(tasks), None, None
        if control.kind != "other":
            return Asked.of(with_pictures(tasks)), Controlled(control, ()), None
        kept = list(tasks)
        return Asked.of(kept), Controlled(control, kept), kept

    whole, controlled, kept = await asyncio.to_thread(read)
    settings = chosen.settings(task.name, agent, whole, shard.count)
    output = Output(options.out / task.name, settings, shard, options.stores.get(task.name), options.adopts)
    begun = _Begun(task, output, whole.names[shard.index :: shard.count], output.claim(), kept)
    if control is None:
        return begun
    under = output.under(control)
    return replace(begun, again=replace(begun, output=under, unknown=under.claim(), controlled=controlled))


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
        questions = _questions(options, begun.task) if begun.kept is None else begun.kept
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


class _connected:
    """A tool client's tools while the block lasts, or none without servers."""

    def __init__(self, chosen: Chosen) -> None:
        self.options = chosen.options
        self.trained = chosen.model.trained
        self.client: ToolClient | None = None

    async def __aenter__(self) -> "Tools":
        from thinkimg.agent.tools import NoTools, only
        from thinkimg.client import PATIENCE, ResultCache, ToolClient
        from thinkimg.client.discovery import keyed

        servers = self.options.servers or ()
        if not servers:
            if self.options.tools:
                raise UserError("tools need a server: start one with `thinkimg serve`, and give --server URL", "--tool")
            return NoTools()
        self.client = ToolClient(
            servers,
            self.options.server_keys or keyed(servers),
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
