"""`thinkimg gateway` and `thinkimg gateway keys`: tools and models for outsiders."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import TOOLS, Command
from thinkimg.cli.options import AsJson, KeysFile
from thinkimg.cli.screen import print_json


def gateway(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML of a gateway; the options below are stronger.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="A tool server's URL; may be given several times.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8700; 0 takes a free one.")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="What `gateway keys` wrote; every call then needs one.")
    ] = None,
    allow_anonymous: Annotated[bool, typer.Option(help="Serve a public interface without keys.")] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written when ready, beside the line on stdout.")] = None,
) -> None:
    """Serve tools and models to outsiders at one address.

    It speaks the tools API, OpenAI-compatible chat, MCP and OpenThinkIMG's protocol.
    """
    if context.invoked_subcommand is not None:
        return
    from thinkimg.gateway.config import parse_config, read_config
    from thinkimg.gateway.process import serve

    overrides: dict[str, Any] = {
        "host": host,
        "port": port,
        "keys_file": keys_file,
        "allow_anonymous": allow_anonymous or None,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if server:
        overrides["servers"] = [{"url": url} for url in server]
    serve(read_config(config, **overrides) if config else parse_config(overrides), ready_file)


def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: KeysFile,
    days: Annotated[int | None, typer.Option(help="It expires after so many days.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="HTTP requests.")] = None,
    calls_per_day: Annotated[int | None, typer.Option(help="Tool calls and chat completions of a UTC day.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Of models, read and written.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="It may read /metrics.")] = False,
) -> None:
    """Make a key and print it, once: the file holds its hash only."""
    from thinkimg.gateway.keys import add_key

    limits = {
        "requests_per_minute": requests_per_minute,
        "calls_per_day": calls_per_day,
        "tokens_per_day": tokens_per_day,
        "in_flight": in_flight,
        "metrics": metrics,
    }
    expires = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    print(add_key(file, name, expires=expires, **limits))


def list_keys(file: KeysFile, as_json: AsJson = False) -> None:
    """Show names, ids and limits."""
    from thinkimg.gateway.keys import read_keys

    found = read_keys(file)
    if as_json:
        print_json([key.model_dump(mode="json", exclude_defaults=True, exclude={"sha256"}) for key in found])
        return
    for key in found:
        document = key.model_dump(mode="json", exclude_defaults=True, exclude={"id", "name", "sha256"})
        print(f"{key.id}  {key.name}  {'  '.join(f'{field}={value}' for field, value in document.items())}")


def remove_key(
    name: Annotated[str, typer.Argument(help="Name or id.", autocompletion=completion.keys)],
    file: KeysFile,
) -> None:
    """Revoke a key. A gateway that runs notices within a second."""
    from thinkimg.gateway.keys import remove_key

    remove_key(file, name)


GATEWAY = Command(
    "gateway", gateway, TOOLS,
    (
        "thinkimg gateway --server http://127.0.0.1:8801 --server http://127.0.0.1:8802",
        "thinkimg gateway --config gateway.yaml --keys-file keys.json --host 0.0.0.0",
        "thinkimg gateway keys add alice --file keys.json --days 90",
    ),
    extras=("gateway",),
)  # fmt: skip
KEYS = (
    Command(
        "add", add_key, TOOLS,
        ("thinkimg gateway keys add alice --file keys.json --days 90 --requests-per-minute 60",),
        extras=("gateway",),
    ),
    Command("list", list_keys, TOOLS, ("thinkimg gateway keys list --file keys.json --json",), extras=("gateway",)),
    Command("remove", remove_key, TOOLS, ("thinkimg gateway keys remove alice --file keys.json",), extras=("gateway",)),
)  # fmt: skip
