"""`thinkimg play`: a page on this machine, on which a picture is given to the tools and models."""

import os
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinkimg.cli import completion
from thinkimg.cli.command import TOOLS, Command
from thinkimg.cli.screen import notes
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.serving.supervisor import ServerSpec

WITHOUT_WEIGHTS = (
    "OCR", "Crop", "ZoominSubplot", "Point", "SegmentRegionAroundPoint", "DrawHorizontalLineByY", "DrawVerticalLineByX",
    "DrawLine", "AdjustImage",
)  # fmt: skip
"""The tools that are there once the extra `tools` is installed."""


def play(
    tool: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve this tool; given again, more. Default: all without weights.", autocompletion=completion.tools
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to ask: a stage of a run, a folder, the hub's name, or https://HOST/v1#NAME."),
    ] = None,
    gateway: Annotated[str | None, typer.Option(help="Open the page of the gateway at this address instead.")] = None,
    key: Annotated[str | None, typer.Option(help="Of that gateway. Default: the one in the environment.")] = None,
    port: Annotated[int, typer.Option(help="Where the page is. 0, the default, takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open a page on which you give a picture to the tools and models.

    It starts tool servers and a gateway on this machine, until Ctrl-C, or uses a gateway that runs elsewhere.
    """
    if gateway is not None:
        if tool or model:
            raise UserError("a gateway has its own: --tool and --model are for one that is started here", "--gateway")
        from thinkimg.api.server_contract import Variable

        _open(gateway, key or os.environ.get(Variable.GATEWAY_KEY, ""), browser)
        return
    with tempfile.TemporaryDirectory(prefix="thinkimg-play-") as folder:
        _serve(tool or list(WITHOUT_WEIGHTS), model or [], port, browser, Path(folder))


def _serve(tools: list[str], models: list[str], port: int, browser: bool, folder: Path) -> None:
    from thinkimg.gateway.keys import add_key
    from thinkimg.serving import Supervisor

    keys_file = folder / "keys.json"
    key = add_key(keys_file, "play")
    notes.print(f"starting {len(tools)} tools" + (f" and {', '.join(models)}" if models else ""), soft_wrap=True)
    try:
        with Supervisor(_servers(tools, models, port, keys_file), folder / "logs") as running:
            _open(running.endpoints[-1], key, browser)
            notes.print("Ctrl-C stops it")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        notes.print("stopped")


def _servers(tools: list[str], models: list[str], port: int, keys_file: Path) -> "list[ServerSpec]":
    """One server for all tools, and the gateway before it, which is the last."""
    from thinkimg.gateway.fleet import with_gateway
    from thinkimg.serving import ServerConfig, ServerSpec
    from thinkimg.serving.fleet import Plan

    served = ServerSpec("tools", ServerConfig.model_validate({"tools": [{"name": name} for name in tools]}))
    settings: dict[str, Any] = {"port": port, "models": [{"name": name, "model": name} for name in models]}
    return with_gateway(Plan([served], gateway=settings), Path(), keys_file).servers


def _open(url: str, key: str, browser: bool) -> None:
    """The key stands behind `#`, which browsers send to nobody."""
    page = f"{url.rstrip('/')}/play" + (f"#key={key}" if key else "")
    print(page, flush=True)
    if browser and not webbrowser.open(page):
        notes.print("there is no browser here: open this address in one", soft_wrap=True)


COMMANDS = (
    Command(
        "play", play, TOOLS,
        (
            "thinkimg play",
            "thinkimg play --model runs/demo/v-toolrl",
            "thinkimg play --model https://api.example.com/v1#gpt-5 --tool OCR --tool Crop",
            "thinkimg play --gateway https://tools.example.com",
        ),
        extras=("gateway", "tools"), needs=("fastapi", "uvicorn", "prometheus_client", "httptools"),
    ),
)  # fmt: skip
