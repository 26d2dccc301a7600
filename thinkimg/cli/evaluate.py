"""`thinkimg eval` and `thinkimg compare`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import EVALUATE, Command
from thinkimg.cli.options import (
    AsJson,
    Backend,
    Format,
    MaxRounds,
    MaxSeconds,
    MaxTokens,
    ModelArguments,
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


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from thinkimg.evaluation.tasks.listing import cached_rows, lines, lmms_evals, ours

    rows = cached_rows()
    found = list(ours(rows))
    try:
        found += lmms_evals(rows)
    except UserError as error:
        print(f"without lmms-eval's tasks: {error}", file=sys.stderr)
    print("\n".join(lines(found)))
    raise typer.Exit


def evaluate(
    tasks: Annotated[
        list[str],
        typer.Argument(
            help="Benchmarks (chartqa, charxiv, vstar …), lmms:NAME of lmms-eval's, or files of your own.",
            autocompletion=completion.tasks,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A stage (runs/demo/v-toolrl), a folder, the hub's name, https://host/v1#NAME …",
            autocompletion=completion.models,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; run again to go on.")],
    backend: Backend = None,
    model_args: ModelArguments = None,
    name: Annotated[str | None, typer.Option(help="What the model is called in tables. Default: its own name.")] = None,
    server: ToolServers = None,
    no_tools: NoTools = False,
    tool: Annotated[list[str] | None, typer.Option(help="Offer this tool only; may be given several times.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the task's: hf://…, a folder, a .jsonl file.")] = None,
    split: Annotated[str | None, typer.Option(help="Instead of the task's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many questions.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of the task's two; official, normalised or a name; several: the first decides.",
            autocompletion=completion.scorers,
        ),
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: model=… as of --model, base_url=…, api_key_variable=…")
    ] = None,
    format: Format = None,
    prompt: Prompt = None,
    max_rounds: MaxRounds = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    samples: Annotated[
        int, typer.Option(min=1, help="Answers to each question, which --temperature must make differ: avg@k, pass@k.")
    ] = 1,
    control: Annotated[
        Literal["grey", "other", "none"] | None,
        typer.Option(help="Ask again with changed pictures: grey, other (another question's) or none. Does it look?"),
    ] = None,
    control_scope: Annotated[
        Literal["question", "tools", "all"],
        typer.Option(help="Who has the changed ones: the model of the question, its tools, or all."),
    ] = "question",
    seed: Annotated[int, typer.Option(help="Of sampling, and of synthetic charts.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions under way at once.")] = 64,
    price: Price = (0.0, 0.0),
    shard: Annotated[str, typer.Option(help="I/N: this process is number I of N, counted from 0.")] = "0/1",
    secrets_dir: Secrets = None,
    as_json: AsJson = False,
    list_: Annotated[
        bool,
        typer.Option("--list", is_eager=True, callback=_list, help="Show the benchmarks: metric, size, source; end."),
    ] = False,
) -> None:
    """Evaluate a model on benchmarks, with tools or without.

    Run the same command again to go on after an interruption. The key of the servers is read from
    THINKIMG_TOOL_API_KEY.
    """
    from thinkimg.evaluation.options import Options
    from thinkimg.evaluation.run import run_evaluation
    from thinkimg.evaluation.shown import show
    from thinkimg.jobs.model_tools import ready
    from thinkimg.models.backends import find_model
    from thinkimg.pairs import read_pairs

    options = Options(
        tasks=tasks,
        model=model,
        out=out,
        backend=backend,
        model_args=read_pairs(model_args or (), "--model-args"),
        name=name,
        servers=chosen_servers(server, no_tools),
        tools=tool or (),
        format=format,
        prompt=known_prompt(prompt),
        max_rounds=max_rounds,
        max_tokens=max_tokens,
        max_seconds=max_seconds,
        temperature=temperature,
        samples=samples,
        control=control,
        control_scope=control_scope,
        seed=seed,
        concurrency=concurrency,
        data=data,
        split=split,
        limit=limit,
        scorers=scorer or (),
        judge=read_pairs(judge or (), "--judge"),
        price=price,
        shard=shard,
    )
    found = find_model(model, backend, options.model_args)
    print(found, file=sys.stderr)
    with stdout_kept(as_json), ready(found, options.servers, secrets_dir) as (made, servers):
        results = run_evaluation(replace(options, source=made, servers=list(servers), server_keys=servers))
    if as_json:
        print_json([one.model_dump(mode="json") for one in results])
        return
    for one in results:
        show(one)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Outputs of `thinkimg eval`; the first is the baseline.")],
    baseline: Annotated[str | None, typer.Option(help="Name of the model to compare with.")] = None,
    scorer: Annotated[
        str | None,
        typer.Option(help="Compare this score (official, normalised or a name) instead of the share of right answers."),
    ] = None,
    format: Annotated[str, typer.Option(help="md, csv, tex or json.")] = "md",
    out: Annotated[Path | None, typer.Option(help="Write the table here, in the format of its ending.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Put several models into one table, with paired differences."""
    from thinkimg.evaluation.formats import FORMATS
    from thinkimg.evaluation.tables import compare

    if as_json and out is not None:
        raise UserError("prints the table, and --out writes it: leave one of them away", "--json")
    chosen = out.suffix.lstrip(".") if out is not None else "json" if as_json else format
    if chosen not in FORMATS:
        raise UserError(f"{chosen!r} is none of {', '.join(FORMATS)}", "--out" if out is not None else "--format")
    text = FORMATS[chosen](compare(folders, scorer, baseline))
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


COMMANDS = (
    Command(
        "eval", evaluate, EVALUATE,
        (
            "thinkimg eval chartqa --model Qwen/Qwen2.5-VL-3B-Instruct --out evals/plain --limit 100",
            "thinkimg eval charts --backend openai --model m --model-args base_url=http://127.0.0.1:8000/v1 "
            "--server http://127.0.0.1:8700 --out evals/tools",
            "thinkimg eval lmms:chartqa --model https://host/v1#NAME --out evals/harness",
            "thinkimg eval --list",
        ),
        extras=("train", "evaluation"),
    ),
    Command(
        "compare", compare, EVALUATE,
        ("thinkimg compare evals/plain evals/tools", "thinkimg compare evals/plain evals/tools --out table.tex"),
    ),
)  # fmt: skip
