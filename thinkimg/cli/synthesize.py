"""`thinkimg synthesize`: cold-start trajectories."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import TRAIN, Command
from thinkimg.cli.options import (
    AsJson,
    Format,
    MaxRounds,
    MaxTokens,
    NoTools,
    Price,
    Prompt,
    Secrets,
    ToolServers,
    chosen_servers,
    known_prompt,
)
from thinkimg.cli.screen import print_json, stdout_kept
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.results import SynthesisResults


def synthesize(
    task: Annotated[
        str, typer.Argument(help="Whose questions: a built-in task, or a Python file.", autocompletion=completion.tasks)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; run again to go on.")],
    server: ToolServers = None,
    no_tools: NoTools = False,
    planner: Annotated[
        str | None, typer.Option(help="scripted, or a backend as of eval. Default: by --planner-args, else scripted.")
    ] = None,
    planner_args: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: model=… as of eval --model, base_url=…")
    ] = None,
    chain: Annotated[list[str] | None, typer.Option(help="NAME=WEIGHT of the scripted planner.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="A model that filters: model=… as of eval --model, base_url=…")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the task's.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: train.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Trajectories to try; questions are used again.")] = None,
    format: Format = None,
    prompt: Prompt = None,
    max_rounds: MaxRounds = None,
    max_tokens: MaxTokens = None,
    any_answer: Annotated[bool, typer.Option("--any-answer", help="Keep wrong answers, too.")] = False,
    max_tool_errors: Annotated[int, typer.Option(min=0, help="Keep those with at most so many failed calls.")] = 0,
    min_tool_calls: Annotated[int, typer.Option(min=0, help="Keep those with at least so many calls.")] = 0,
    refuse_repeats: Annotated[bool, typer.Option("--refuse-repeats", help="Drop those that repeat a call.")] = False,
    sharegpt: Annotated[bool, typer.Option("--sharegpt", help="Also write sharegpt.json.")] = False,
    price: Price = (0.0, 0.0),
    seed: Annotated[int, typer.Option(help="Of plans, and of synthetic charts.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Trajectories under way at once.")] = 16,
    secrets_dir: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """Make cold-start trajectories from any questions.

    A planner proposes calls, the tools execute them, filters drop what is wrong; reasons and cost are shown.
    """
    from thinkimg.jobs.synthesis import Options, run_synthesis
    from thinkimg.pairs import read_pairs

    options = Options(
        task=task,
        out=out,
        servers=chosen_servers(server, no_tools),
        planner=planner,
        planner_args=read_pairs(planner_args or (), "--planner-args"),
        chains=_weights(read_pairs(chain or (), "--chain")),
        judge=read_pairs(judge or (), "--judge"),
        data=data,
        split=split,
        count=count,
        format=format,
        prompt=known_prompt(prompt),
        max_rounds=max_rounds,
        max_tokens=max_tokens,
        secrets=secrets_dir,
        any_answer=any_answer,
        max_tool_errors=max_tool_errors,
        min_tool_calls=min_tool_calls,
        refuse_repeats=refuse_repeats,
        sharegpt=sharegpt,
        price=price,
        seed=seed,
        concurrency=concurrency,
    )
    with stdout_kept(as_json):
        found = run_synthesis(options)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found)


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f"the weight of {name} is a number that is not negative, not {weight!r}", "--chain")
    return {name: float(weight) for name, weight in given.items()}


def _show(found: "SynthesisResults") -> None:
    print(f"kept {found.kept} of {found.tasks} trajectories")
    for reason, count in found.dropped.items():
        print(f"  dropped {count}: {reason}")
    print(f"  tokens: {found.prompt_tokens} prompt, {found.completion_tokens} completion; cost {found.cost or 0:g}")


COMMANDS = (
    Command(
        "synthesize", synthesize, TRAIN,
        (
            "thinkimg synthesize charts --server http://127.0.0.1:8801 --count 200 --out cold-start",
            "thinkimg synthesize chartqa --planner openai --planner-args model=m "
            "--planner-args base_url=http://127.0.0.1:8000/v1 --server http://127.0.0.1:8801 --out cold-start",
        ),
        extras=("train", "evaluation"),
    ),
)  # fmt: skip
