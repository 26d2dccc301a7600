"""Cold-start trajectories from any benchmark's or file's questions: what `thinkimg synthesize` runs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError
from thinkimg.jsonfile import write
from thinkimg.results import SynthesisResults


@dataclass(frozen=True)
class Options:
    """Each attribute is an option of `thinkimg synthesize`."""

    task: str
    out: Path
    servers: Sequence[str] = ()
    planner: str = "scripted"
    planner_args: Mapping[str, Any] = field(default_factory=dict)
    chains: Mapping[str, float] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    split: str | None = None
    count: int | None = None
    format: str = "openthinkimg"
    prompt: str = "full"
    max_rounds: int = 6
    max_tokens: int = 512
    any_answer: bool = False
    max_tool_errors: int = 0
    min_tool_calls: int = 0
    refuse_repeats: bool = False
    sharegpt: bool = False
    price: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    concurrency: int = 16


def run_synthesis(options: Options) -> SynthesisResults:
    """Write `OUT/attempts.jsonl` (every trajectory, the dropped ones with their reason), `OUT/cold-start.jsonl` (those
    that are kept), `OUT/sharegpt.json` if asked for, and `OUT/synthesis.json`, which is returned.

    Raises:
        UserError: wrong options; another process works on the folder.
    """
    from thinkimg.agent.agent import Agent, Limits
    from thinkimg.agent.formats import get_format
    from thinkimg.agent.tools import NoTools
    from thinkimg.client import ResultCache, ToolClient
    from thinkimg.data.sharegpt import write_sharegpt
    from thinkimg.evaluation.scorers import find_rule
    from thinkimg.evaluation.tasks import find_task
    from thinkimg.jobs.stages.questions import TRAJECTORIES
    from thinkimg.models.backends import Metered, Prices
    from thinkimg.synthesis.opinion import ModelOpinion
    from thinkimg.synthesis.synthesize import Filters, repeated, synthesize
    from thinkimg.trajectory import Trajectory, write_trajectories
    from thinkimg.trajectory.store import Store

    task = find_task(options.task)
    questions = list(task.tasks(options.data, options.split or "train", options.count, options.seed))
    if not questions:
        raise UserError("there are no questions", "--data")
    tasks = list(repeated(questions, options.count or len(questions)))
    filters = Filters(not options.any_answer, options.max_tool_errors, options.min_tool_calls, options.refuse_repeats)
    rule = find_rule(task.scorer)

    def right(answer: str | None, reference: str) -> bool:
        return rule.of(Trajectory(question="", reference=reference, answer=answer)) == 1.0

    opinion = ModelOpinion(_endpoint(options.judge, "--judge")) if options.judge else None
    model = Metered(_planner(options), Prices(*options.price))
    limits = Limits(rounds=options.max_rounds, tokens_per_turn=options.max_tokens)
    client = ToolClient(options.servers, cache=ResultCache()) if options.servers else None

    async def work() -> SynthesisResults:
        if client is not None:
            await client.connect()
        try:
            agent = Agent(model, client or NoTools(), limits, get_format(options.format), options.prompt)  # type: ignore[arg-type]
            with Store(options.out / "attempts.jsonl") as store:
                made = await synthesize(
                    agent, tasks, right, filters, options.seed, options.concurrency, store=store, opinion=opinion
                )
                store.put_in_order([one.id for one in tasks])
                usage = [store.record(one.id)["meta"].get("usage", {}) for one in tasks]
        finally:
            if client is not None:
                await client.close()
        write_trajectories(made.kept, options.out / TRAJECTORIES)
        if options.sharegpt:
            write_sharegpt(made.kept, options.out / "sharegpt.json")
        totals = {key: sum(one.get(key, 0) for one in usage) for key in ("prompt_tokens", "completion_tokens", "cost")}
        return SynthesisResults(
            tasks=len(tasks), kept=len(made.kept), dropped=dict(made.dropped.most_common()), **totals
        )

    found = asyncio.run(work())
    write(options.out / "synthesis.json", found)
    return found


def _planner(options: Options) -> Any:
    from thinkimg.agent.formats import get_format
    from thinkimg.models.backends import make_model
    from thinkimg.synthesis.planner import CHAINS, ScriptedPlanner

    if options.planner != "scripted":
        arguments = dict(options.planner_args)
        model = str(arguments.pop("model", ""))
        if not model:
            raise UserError("the planner needs model=…", "--planner-args")
        return make_model(options.planner, model, arguments)
    if unknown := options.chains.keys() - CHAINS.keys():
        raise UserError(f"there is no chain {min(unknown)!r}; there are {', '.join(CHAINS)}", "--chain")
    return ScriptedPlanner(get_format(options.format), options.chains or dict.fromkeys(CHAINS, 1.0))


def _endpoint(given: Mapping[str, Any], field: str) -> Any:
    from thinkimg.models.backends import make_model

    arguments = dict(given)
    if "model" not in arguments:
        raise UserError("needs base_url=… and model=…", field)
    return make_model("openai", str(arguments.pop("model")), arguments)
