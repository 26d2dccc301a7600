"""Cold-start trajectories from any benchmark's or file's questions: what `thinkimg synthesize` runs."""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.jsonfile import write
from thinkimg.results import SynthesisResults, SynthesisSettings

if TYPE_CHECKING:
    from thinkimg.agent.agent import Agent
    from thinkimg.evaluation.tasks import EvaluationTask
    from thinkimg.models.reference import Model

ATTEMPTS = "attempts.jsonl"


@dataclass(frozen=True)
class Options:
    """Each attribute is an option of `thinkimg synthesize`.

    Attributes:
        servers: of tools; None: those that the planner was trained with, started.
        planner: `scripted`, or the backend of the model that `planner_args` name; None: by what they name.
        format, prompt, max_rounds, max_tokens: None: as the planner was trained, else as `Asking` says.
        secrets: where a manifest's secrets are files, `NAME/KEY`.
    """

    task: str
    out: Path
    servers: Sequence[str] | None = None
    planner: str | None = None
    planner_args: Mapping[str, Any] = field(default_factory=dict)
    chains: Mapping[str, float] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    split: str | None = None
    count: int | None = None
    format: str | None = None
    prompt: str | None = None
    max_rounds: int | None = None
    max_tokens: int | None = None
    any_answer: bool = False
    max_tool_errors: int = 0
    min_tool_calls: int = 0
    refuse_repeats: bool = False
    sharegpt: bool = False
    price: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    concurrency: int = 16
    secrets: Path | None = None


@dataclass(frozen=True)
class Planner:
    """Who proposes, how it is asked, and where its tools are. `found` is None, and there are `chains`, of the scripted
    one."""

    model: Any
    asking: Any
    servers: Mapping[str, str]
    trained: Any = None
    found: "Model | None" = None
    chains: Mapping[str, float] = field(default_factory=dict)


def run_synthesis(options: Options) -> SynthesisResults:
    """Write `OUT/settings.json`, `OUT/attempts.jsonl` (every trajectory, the dropped ones with their reason),
    `OUT/cold-start.jsonl` (those that are kept), `OUT/sharegpt.json` if asked for, and `OUT/synthesis.json`, which is
    returned. Trajectories that are there are filtered again if the filters have changed.

    Raises:
        UserError: wrong options; another process works on the folder, or it was begun with other settings.
        InfrastructureError: every trajectory was lost.
    """
    from thinkimg.agent.agent import Agent, Limits
    from thinkimg.agent.formats import get_format
    from thinkimg.api import Filters, Synthesize
    from thinkimg.data.sharegpt import write_sharegpt
    from thinkimg.evaluation.claim import check_rest, claim
    from thinkimg.evaluation.identity import named
    from thinkimg.evaluation.lmms import LmmsTask
    from thinkimg.evaluation.scorers import find_rule
    from thinkimg.evaluation.tasks import find_task
    from thinkimg.jobs.model_tools import tools_of_servers
    from thinkimg.jobs.stages.questions import TRAJECTORIES
    from thinkimg.models.backends import Metered, Prices, model_of
    from thinkimg.synthesis.opinion import ModelOpinion
    from thinkimg.synthesis.synthesize import LOST, repeated, synthesize
    from thinkimg.trajectory import write_trajectories
    from thinkimg.trajectory.store import Store

    task = find_task(options.task)
    if isinstance(task, LmmsTask):
        raise UserError(f"{task.name} is for evaluation: its questions are test data", "TASK")
    questions = list(task.tasks(options.data, options.split or "train", options.count, options.seed))
    if not questions:
        raise UserError("there are no questions", "--data")
    tasks = list(repeated(questions, options.count or len(questions)))
    filters = Filters(
        require_correct=not options.any_answer,
        max_tool_errors=options.max_tool_errors,
        min_tool_calls=options.min_tool_calls,
        refuse_repeats=options.refuse_repeats,
    )
    spec = Synthesize(filters=filters, concurrency=options.concurrency)
    rule = find_rule(task.scorer)
    judge, judging = model_of(options.judge, None, "--judge") if options.judge else (None, None)
    opinion = ModelOpinion(judging) if judging else None
    scored_by = [task.scorer] if rule.version == "1" else [task.scorer, rule.version]
    judged_by = " ".join([*scored_by, *(named(judge, options.judge) if judge else ())])

    async def work(planner: Planner) -> SynthesisResults:
        model, asked = Metered(planner.model, Prices(*options.price)), planner.asking
        limits = Limits(asked.max_rounds, asked.max_tokens, asked.max_context, asked.max_seconds)
        async with tools_of_servers(planner.servers, planner.trained) as tools:
            agent = Agent(model, tools, limits, get_format(asked.format), asked.prompt, asked.system_prompt)
            settings = _settings(options, task, planner, agent)
            unknown = claim(options.out, settings, options.out / ATTEMPTS)
            with Store(options.out / ATTEMPTS) as store:
                names = [one.id for one in tasks]
                rest = sum(not store.finished(name) for name in names)
                check_rest(options.out, settings, rest, len(names), unknown, shared=len(store) > 0)
                made = await synthesize(
                    agent, tasks, rule.score, spec, options.seed, store=store, opinion=opinion, judged_by=judged_by
                )
                store.put_in_order(dict.fromkeys([*names, *store.names]))  # a larger count goes on from all of them
                usage = [store.record(one.id)["meta"].get("usage", {}) for one in tasks]
        write_trajectories(made.kept, options.out / TRAJECTORIES)
        if options.sharegpt:
            write_sharegpt(made.kept, options.out / "sharegpt.json")
        totals = {key: sum(one.get(key, 0) for one in usage) for key in ("prompt_tokens", "completion_tokens", "cost")}
        return SynthesisResults(
            tasks=len(tasks), kept=len(made.kept), dropped=dict(made.dropped.most_common()), **totals
        )

    with _planner(options) as planner:
        found = asyncio.run(work(planner))
    write(options.out / "synthesis.json", found)
    if found.tasks == found.dropped.get(LOST):
        raise InfrastructureError(
            f"planner or tools answered none of {found.tasks} questions; run the same command again to go on"
        )
    return found


def _settings(options: Options, task: "EvaluationTask", planner: Planner, agent: "Agent") -> SynthesisSettings:
    from thinkimg.evaluation.identity import asked_with, told_with

    arguments = {name: value for name, value in options.planner_args.items() if name != "model"}
    if planner.found is None:
        asked = {"backend": "scripted", **told_with(planner.asking, agent)}
    else:
        asked = asked_with(planner.found, options.planner, arguments, planner.asking, agent)
    data = options.data
    if data is not None and "://" not in data:
        path, mark, query = data.partition("?")
        data = f"{Path(path).resolve()}{mark}{query}"
    return SynthesisSettings(
        task=task.name,
        chains=dict(planner.chains),
        data=data,
        split=options.split or "train",
        seed=options.seed,
        **asked,
    )


@contextmanager
def _planner(options: Options) -> Iterator[Planner]:
    from thinkimg.agent.formats import get_format
    from thinkimg.client.discovery import keyed
    from thinkimg.jobs.model_tools import ready
    from thinkimg.models.backends import find_model, make_model
    from thinkimg.models.trained import asking
    from thinkimg.synthesis.planner import CHAINS, ScriptedPlanner

    given = {name: getattr(options, name) for name in ("format", "prompt", "max_rounds", "max_tokens")}
    arguments = dict(options.planner_args)
    if options.planner == "scripted" or (options.planner is None and not arguments):
        if unknown := options.chains.keys() - CHAINS.keys():
            raise UserError(f"there is no chain {min(unknown)!r}; there are {', '.join(CHAINS)}", "--chain")
        asked = asking(None, **given)
        chains = options.chains or dict.fromkeys(CHAINS, 1.0)
        yield Planner(
            ScriptedPlanner(get_format(asked.format), chains), asked, keyed(options.servers or ()), chains=chains
        )
        return
    written = str(arguments.pop("model", "") or "")
    if not written:
        raise UserError("the planner needs model=…", "--planner-args")
    found = find_model(written, options.planner, arguments, "--planner-args")
    print(f"planner's {found}", file=sys.stderr)
    with ready(found, options.servers, options.secrets) as (found, servers):
        model = make_model(found, options.planner, arguments, "--planner-args")
        yield Planner(model, asking(found.trained, **given), servers, found.trained, found)
