"""`thinkimg eval` and `thinkimg compare`."""

from pathlib import Path
from typing import Annotated

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import EVALUATE, Command
from thinkimg.cli.options import AsJson, Format, Price, Prompt
from thinkimg.cli.screen import print_json, stdout_kept
from thinkimg.errors import UserError


def evaluate(
    tasks: Annotated[
        list[str],
        typer.Argument(
            help="Benchmarks (chartqa, charxiv, vstar …) or files of your own.", autocompletion=completion.tasks
        ),
    ],
    model: Annotated[str, typer.Option(help="A folder or the hub's name; of openai, the endpoint's name.")],
    out: Annotated[Path, typer.Option(help="The folder to write; run again to go on.")],
    backend: Annotated[str, typer.Option(help="transformers, vllm or openai.")] = "transformers",
    model_args: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the backend; of openai: base_url=…, requests_per_minute=…")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called in tables. Default: its own name.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="A tool server or gateway; none: without tools.")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="Offer this tool only; may be given several times.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the task's: hf://…, a folder, a .jsonl file.")] = None,
    split: Annotated[str | None, typer.Option(help="Instead of the task's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many questions.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="Instead of the task's; several: the first decides.", autocompletion=completion.scorers),
    ] = None,
    judge: Annotated[list[str] | None, typer.Option(help="KEY=VALUE: base_url=…, model=…, api_key_variable=…")] = None,
    format: Format = "openthinkimg",
    prompt: Prompt = "full",
    max_rounds: Annotated[int, typer.Option(min=1, help="How often the model may speak.")] = 6,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens of a turn.")] = 512,
    max_seconds: Annotated[float, typer.Option(help="Of one question.")] = 600.0,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling, and of synthetic charts.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions under way at once.")] = 64,
    price: Price = (0.0, 0.0),
    shard: Annotated[str, typer.Option(help="I/N: this process is number I of N, counted from 0.")] = "0/1",
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on benchmarks, with tools or without.

    Run the same command again to go on after an interruption. The key of the servers is read from
    THINKIMG_TOOL_API_KEY.
    """
    from thinkimg.evaluation.run import Options, run_evaluation, show
    from thinkimg.pairs import read_pairs

    options = Options(
        tasks=tasks,
        model=model,
        out=out,
        backend=backend,
        model_args=read_pairs(model_args or (), "--model-args"),
        name=name,
        servers=server or (),
        tools=tool or (),
        format=format,
        prompt="compact" if prompt == "compact" else "full",
        max_rounds=max_rounds,
        max_tokens=max_tokens,
        max_seconds=max_seconds,
        temperature=temperature,
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
    with stdout_kept(as_json):
        found = run_evaluation(options)
    if as_json:
        print_json([results.model_dump(mode="json") for results in found])
        return
    for results in found:
        show(results)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Outputs of `thinkimg eval`; the first is the baseline.")],
    baseline: Annotated[str | None, typer.Option(help="Name of the model to compare with.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Compare this score instead of the share of right answers.")
    ] = None,
    format: Annotated[str, typer.Option(help="md, csv, tex or json.")] = "md",
    out: Annotated[Path | None, typer.Option(help="Write the table here, in the format of its ending.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Put several models into one table, with paired differences."""
    from thinkimg.evaluation.tables import FORMATS, compare

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
        ),
        extras=("train", "evaluation"),
    ),
    Command(
        "compare", compare, EVALUATE,
        ("thinkimg compare evals/plain evals/tools", "thinkimg compare evals/plain evals/tools --out table.tex"),
    ),
)  # fmt: skip
