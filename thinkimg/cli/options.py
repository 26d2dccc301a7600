"""Arguments and options that several commands share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from thinkimg.cli import completion

Manifest = Annotated[Path, typer.Argument(help="A file with a ToolRLJob and its VisionTools.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder. Default: runs/<job>.")]
JobName = Annotated[str | None, typer.Option("--job", help="Which ToolRLJob, if the file has several.")]
Secrets = Annotated[Path | None, typer.Option(help="Where the manifest's secrets are files, DIR/NAME/KEY.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Instead of the manifest's spec.seed.")]
ToolCache = Annotated[bool, typer.Option(help="Keep tool results in memory during a stage.")]


def _known_format(given: str) -> str:
    from thinkimg.agent.formats import FORMATS

    return _one_of(given, FORMATS)


def _known_prompt(given: str) -> str:
    return _one_of(given, ("full", "compact"))


def _one_of(given: str, known: Iterable[str]) -> str:
    if given not in known:
        raise typer.BadParameter(f"there is no {given!r}; there are {', '.join(known)}")
    return given


Price = Annotated[tuple[float, float], typer.Option(help="Of a million prompt tokens, and completion tokens.")]
Format = Annotated[
    str,
    typer.Option(
        help="Syntax of calls: openthinkimg or hermes.", autocompletion=completion.formats, callback=_known_format
    ),
]
Prompt = Annotated[
    str, typer.Option(help="full or compact.", autocompletion=completion.prompts, callback=_known_prompt)
]

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: kubectl's current one.")]
KubeContext = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. Default: the current one.")]
ClusterJob = Annotated[str, typer.Argument(metavar="NAME", help="A ToolRLJob.")]

KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]
