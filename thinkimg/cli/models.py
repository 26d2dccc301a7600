"""`thinkimg ask` and `export`: what a trained model is for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import EVALUATE, Command
from thinkimg.cli.options import AsJson, Secrets
from thinkimg.cli.screen import notes, print_json, stdout_kept

if TYPE_CHECKING:
    from thinkimg.trajectory import Trajectory


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[Path, typer.Option(help="A trained stage of a run.", autocompletion=completion.models)],
    image: Annotated[list[Path], typer.Option(help="A picture; may be given several times.")],
    out: Annotated[Path | None, typer.Option(help="Write the trajectory (JSON lines and pictures) here.")] = None,
    secrets_dir: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """Ask a trained model about your own picture, with live tools."""
    from thinkimg.jobs.ask import ask_model

    with stdout_kept(as_json):
        trajectory = ask_model(model, image, question, out, secrets_dir)
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
        Path,
        typer.Argument(
            help="A trained stage: runs/demo/stages/v-toolrl, or runs/demo/v-toolrl.",
            autocompletion=completion.models,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a trained model as a folder that transformers loads.

    The processor goes with it, and a model card that holds the table.
    """
    from thinkimg.jobs.export import export_model

    export_model(model, out)
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
