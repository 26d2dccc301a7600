"""`thinkimg synthesize`: cold-start trajectories."""

import json
from pathlib import Path
from typing import Annotated

import typer

from thinkimg.cli.options import Format, Price, Prompt


def synthesize(
    task: Annotated[str, typer.Argument(help="Whose questions: a built-in task, or a Python file.")],
    out: Annotated[Path, typer.Option(help="The folder to write; run again to go on.")],
    server: Annotated[list[str] | None, typer.Option(help="A tool server or gateway.")] = None,
    planner: Annotated[str, typer.Option(help="scripted, openai, transformers or vllm.")] = "scripted",
    planner_args: Annotated[list[str] | None, typer.Option(help="KEY=VALUE: model=…, base_url=…")] = None,
    chain: Annotated[list[str] | None, typer.Option(help="NAME=WEIGHT of the scripted planner.")] = None,
    judge: Annotated[list[str] | None, typer.Option(help="A model that filters: base_url=…, model=…")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the task's.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: train.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Trajectories to try; questions are used again.")] = None,
    format: Format = "openthinkimg",
    prompt: Prompt = "full",
    any_answer: Annotated[bool, typer.Option("--any-answer", help="Keep wrong answers, too.")] = False,
    max_tool_errors: Annotated[int, typer.Option(min=0, help="Keep those with at most so many failed calls.")] = 0,
    min_tool_calls: Annotated[int, typer.Option(min=0, help="Keep those with at least so many calls.")] = 0,
    refuse_repeats: Annotated[bool, typer.Option("--refuse-repeats", help="Drop those that repeat a call.")] = False,
    sharegpt: Annotated[bool, typer.Option("--sharegpt", help="Also write sharegpt.json.")] = False,
    price: Price = (0.0, 0.0),
    seed: Annotated[int, typer.Option(help="Of plans, and of synthetic charts.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Make cold-start trajectories: a planner proposes, the tools execute, filters drop; reasons and cost are shown."""
    from thinkimg.jobs.synthesis import Options, run_synthesis
    from thinkimg.pairs import read_pairs

    options = Options(
        task=task,
        out=out,
        servers=server or (),
        planner=planner,
        planner_args=read_pairs(planner_args or (), "--planner-args"),
        chains={name: float(weight) for name, weight in read_pairs(chain or (), "--chain").items()},
        judge=read_pairs(judge or (), "--judge"),
        data=data,
        split=split,
        count=count,
        format=format,
        prompt=prompt,
        any_answer=any_answer,
        max_tool_errors=max_tool_errors,
        min_tool_calls=min_tool_calls,
        refuse_repeats=refuse_repeats,
        sharegpt=sharegpt,
        price=price,
        seed=seed,
        concurrency=concurrency,
    )
    print(json.dumps(run_synthesis(options)))
