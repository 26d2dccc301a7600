"""`thinkimg ask` and `export`: what a trained model is for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkimg.cli.options import Secrets
from thinkimg.cli.screen import notes

if TYPE_CHECKING:
    from thinkimg.trajectory import Trajectory


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[Path, typer.Option(help="A trained stage of a run.")],
    image: Annotated[list[Path], typer.Option(help="A picture; may be given several times.")],
    out: Annotated[Path | None, typer.Option(help="Write the trajectory (JSON lines and pictures) here.")] = None,
    secrets_dir: Secrets = None,
) -> None:
    """Ask a trained model about your own picture, live tools and all."""
    from thinkimg.jobs.ask import ask_model

    trajectory = ask_model(model, image, question, out, secrets_dir)
    _show_turns(trajectory)
    print(trajectory.answer or f"(no answer: {trajectory.status})")


def _show_turns(trajectory: "Trajectory") -> None:
    for turn in trajectory.turns:
        for result in turn.message.tool_results:
            notes.print(f"[cyan]{result.name}[/] ({result.seconds * 1000:.0f} ms): ", end="")
            notes.print(result.text, markup=False, highlight=False)
        if turn.role == "assistant":
            notes.print(turn.message.text, style="dim", markup=False, highlight=False)


def export(
    model: Annotated[Path, typer.Argument(help="A trained stage: runs/demo/stages/v-toolrl, or runs/demo/v-toolrl.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
) -> None:
    """Write a trained model with its processor and a model card that holds the table."""
    from thinkimg.jobs.export import export_model

    export_model(model, out)
    notes.print(f"wrote {out}: load it with transformers' AutoModelForImageTextToText.from_pretrained")
