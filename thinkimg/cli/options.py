"""Arguments and options that several commands share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from thinkimg.cli import completion
from thinkimg.errors import UserError

Manifest = Annotated[Path, typer.Argument(help="A file with a ToolRLJob and its VisionTools.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder. Default: runs/<job>.")]
JobName = Annotated[str | None, typer.Option("--job", help="Which ToolRLJob, if the file has several.")]
Secrets = Annotated[Path | None, typer.Option(help="Where the manifest's secrets are files, DIR/NAME/KEY.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Instead of the manifest's spec.seed.")]
ToolCache = Annotated[bool, typer.Option(help="Keep tool results in memory during a stage.")]


def _known_format(given: str | None) -> str | None:
    from thinkimg.agent.formats import FORMATS

    return _one_of(given, FORMATS)


def _known_prompt(given: str | None) -> str | None:
    return _one_of(given, ("full", "compact"))


def _one_of(given: str | None, known: Iterable[str]) -> str | None:
    if given is not None and given not in known:
        raise typer.BadParameter(f"there is no {given!r}; there are {', '.join(known)}")
    return given


Backend = Annotated[
    str | None,
    typer.Option(help="transformers, vllm, vllm-server or openai. Default: openai for an endpoint, else transformers."),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--model-args", help="KEY=VALUE: revision=…, base=… (of an adapter), trust_remote_code=yes, base_url=…"
    ),
]

MaxRounds = Annotated[
    int | None, typer.Option("--max-rounds", min=1, help="How often the model may speak. Default: as trained, else 6.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="New tokens of a turn. Default: as trained, else 512.")
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds", help="Without any sign of life: then a question is hung. Default: as trained, else 600."
    ),
]
ToolServers = Annotated[
    list[str] | None,
    typer.Option("--server", help="A tool server or gateway. Default: the tools that the model was trained with."),
]
NoTools = Annotated[bool, typer.Option("--no-tools", help="Without tools, also a model that was trained with some.")]

Price = Annotated[tuple[float, float], typer.Option(help="Of a million prompt tokens, and completion tokens.")]
Format = Annotated[
    str | None,
    typer.Option(
        help="Syntax of calls: openthinkimg or hermes. Default: the model's, else openthinkimg.",
        autocompletion=completion.formats,
        callback=_known_format,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="full or compact. Default: the model's, else full.",
        autocompletion=completion.prompts,
        callback=_known_prompt,
    ),
]

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: kubectl's current one.")]
KubeContext = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. Default: the current one.")]
ClusterJob = Annotated[str, typer.Argument(metavar="NAME", help="A ToolRLJob.")]

KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]


def chosen_servers(servers: list[str] | None, no_tools: bool) -> list[str] | None:
    """None: the model's own tools. Raises `UserError`: servers are named, and none are wanted."""
    if servers and no_tools:
        raise UserError("--server names tools, --no-tools wants none; give one of the two", "--no-tools")
    return [] if no_tools else servers or None


def known_prompt(prompt: str | None) -> Literal["full", "compact"] | None:
    """What the option's own check has let through, as its type."""
    return None if prompt is None else "compact" if prompt == "compact" else "full"
