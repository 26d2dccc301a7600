"""`thinkimg ask` and `export`: what a trained model is for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import EVALUATE, Command
from thinkimg.cli.options import (
    AsJson,
    Backend,
    Format,
    ModelArguments,
    NoTools,
    Prompt,
    Secrets,
    ToolServers,
    chosen_servers,
)
from thinkimg.cli.screen import notes, print_json, stdout_kept

if TYPE_CHECKING:
    from thinkimg.trajectory import Trajectory


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[
        str,
        typer.Option(
            help="A stage (runs/demo/v-toolrl), a folder, the hub's name, https://host/v1#NAME …",
            autocompletion=completion.models,
        ),
    ],
    image: Annotated[list[Path], typer.Option(help="A picture; may be given several times.")],
    backend: Backend = None,
    model_args: ModelArguments = None,
    server: ToolServers = None,
    no_tools: NoTools = False,
    format: Format = None,
    prompt: Prompt = None,
    out: Annotated[Path | None, typer.Option(help="Write the trajectory (JSON lines and pictures) here.")] = None,
    secrets_dir: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model about your own picture, with live tools.

    A stage of a run, or an exported one, is asked as it was trained, with the tools that it was trained with.
    """
    from thinkimg.jobs.ask import Question, ask_model
    from thinkimg.pairs import read_pairs

    asked = Question(
        text=question,
        images=image,
        model=model,
        backend=backend,
        model_args=read_pairs(model_args or (), "--model-args"),
        servers=chosen_servers(server, no_tools),
        format=format,
        prompt=prompt,
        secrets=secrets_dir,
    )
    with stdout_kept(as_json):
        trajectory = ask_model(asked, out)
    _show_turns(trajectory)
    if as_json:
        print_json(trajectory.model_dump(mode="json"))
    else:
        print(trajectory.answer or f"(no answer: {trajectory.status})")


def _show_turns(trajectory: "Trajectory") -> None:
    for turn in trajectory.turns:
        for result in turn.message.tool_results:
            notes.print(f"[cyan]{result.name}[/] ({result.seconds * 1000:.0f} ms): ", end="")
            notes.print(result.text, markup=False, highlight=False)
        if turn.role == "assistant":
            notes.print(turn.message.text, style="dim", markup=False, highlight=False)


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A stage of a run (runs/demo/v-toolrl), an adapter, any model.", autocompletion=completion.models
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    model_args: ModelArguments = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained model as a folder that transformers loads.

    The processor goes with it, and a model card that holds the table.
    """
    from thinkimg.jobs.export import export_model
    from thinkimg.pairs import read_pairs

    export_model(model, out, read_pairs(model_args or (), "--model-args"))
    notes.print(f"wrote {out}: load it with transformers' AutoModelForImageTextToText.from_pretrained")
    if as_json:
        print_json({"model": str(model), "out": str(out)})


COMMANDS = (
    Command(
        "ask", ask, EVALUATE,
        ('thinkimg ask "Which bar is the tallest?" --model runs/demo/v-toolrl --image chart.png',),
        extras=("train", "tools"), needs=("torch", "transformers"),
    ),
    Command("export", export, EVALUATE, ("thinkimg export runs/demo/v-toolrl models/v-toolrl",)),
)  # fmt: skip
