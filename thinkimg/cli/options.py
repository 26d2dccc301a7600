"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Manifest = Annotated[Path, typer.Argument(help="A file with a ToolRLJob and its VisionTools.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder. Default: runs/<job>.")]
JobName = Annotated[str | None, typer.Option("--job", help="Which ToolRLJob, if the file has several.")]
Secrets = Annotated[Path | None, typer.Option(help="Where the manifest's secrets are files, DIR/NAME/KEY.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Instead of the manifest's spec.seed.")]

Price = Annotated[tuple[float, float], typer.Option(help="Of a million prompt tokens, and completion tokens.")]
Format = Annotated[str, typer.Option(help="Syntax of calls: openthinkimg or hermes.")]
Prompt = Annotated[str, typer.Option(help="full or compact.")]

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: kubectl's current one.")]
KubeContext = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. Default: the current one.")]
ClusterJob = Annotated[str, typer.Argument(metavar="NAME", help="A ToolRLJob.")]

KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]
