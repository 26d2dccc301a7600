"""`thinkimg tools`, `example`, `serve` and `up`: look at vision tools, call one, serve them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from thinkimg.cli import completion
from thinkimg.cli.command import TOOLS, Command
from thinkimg.cli.options import AsJson, Secrets
from thinkimg.cli.screen import notes, print_json, stdout_kept
from thinkimg.errors import UserError


def tools(
    name: Annotated[
        str | None, typer.Argument(help="Show the schema of this tool.", autocompletion=completion.tools)
    ] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="Call it: KEY=VALUE …, as in a manifest.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture, img_1; given again, img_2 …")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as a picture to this file.")] = None,
    backend: Annotated[str | None, typer.Option(help="Instead of the tool's default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the backend.")] = None,
    server: Annotated[str | None, typer.Option(help="Call it at this address instead of in this process.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the vision tools, show one's schema, or call one."""
    from thinkimg.cli import tool_call

    of_a_call = {"--image": image, "--out": out, "--backend": backend, "--option": option}
    if not (name and (arguments or image)) and any(of_a_call.values()):
        idle = next(word for word, value in of_a_call.items() if value)
        raise UserError("it belongs to a call: give the tool's name, and arguments or --image", idle)
    if server is not None and (backend or option):
        raise UserError("a server has its own: --backend and --option are for calls in this process", "--backend")
    if name is None:
        listed = tool_call.listing(server)
        if as_json:
            print_json(listed)
        else:
            tool_call.print_listing(listed, Console())
    elif not (arguments or image):
        print_json(tool_call.schema_of(name, server).as_function())
    else:
        call = tool_call.Call(name, arguments or [], image or [], backend, option or [], server)
        with stdout_kept(as_json):
            result = tool_call.run(call, out)
        if as_json:
            print_json({"text": result.text, "data": result.data})
        else:
            print(result.text)
        if result.images and out is None:
            notes.print("the picture that it returned is not kept: name a file with --out", soft_wrap=True)


def example(
    out: Annotated[Path, typer.Argument(help="File to write, PNG.")] = Path("chart.png"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a figure with four panels, to try the tools on."""
    from thinkimg.viewer.export import example_picture

    picture = example_picture()
    try:
        with out.open("wb" if force else "xb") as file:
            file.write(picture)
    except FileExistsError:
        raise UserError("it is there already; name another file, or give --force", str(out)) from None
    except OSError as error:
        raise UserError(f"it cannot be written: {error.strerror}", str(out)) from error
    notes.print(f"{out}; try: thinkimg tools OCR --image {out} --out read.png", soft_wrap=True, markup=False)


def serve(
    names: Annotated[
        list[str] | None, typer.Argument(help="The tools: OCR Crop …", autocompletion=completion.tools)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML or JSON with everything, instead of names.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="0, the default, takes a free one.")] = None,
    backend: Annotated[str | None, typer.Option(help="Of the tool, if there is one.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the backend; values as in a manifest.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that run tools. Default: 4.")] = None,
    device: Annotated[str | None, typer.Option(help="CUDA_VISIBLE_DEVICES, e.g. 0.")] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve an address that other machines reach without a key.")
    ] = False,
) -> None:
    """Serve tools over HTTP in this process.

    Until Ctrl-C or SIGTERM. The key that callers need is read from THINKIMG_TOOL_API_KEY.
    """
    from thinkimg.pairs import read_pairs
    from thinkimg.serving.config import parse_config, read_config
    from thinkimg.serving.process import serve as run_server

    if bool(names) == (config is not None):
        raise UserError("name tools to serve, or give --config FILE, one of the two", "NAMES")
    if (backend or option) and len(names or ()) != 1:
        raise UserError("--backend and --option speak of one named tool; a --config has them for each", "--backend")
    given = {"host": host, "port": port, "workers": workers, "allow_anonymous": allow_anonymous or None}
    overrides = {field: value for field, value in given.items() if value is not None}
    if config is None:
        options = read_pairs(option or [], "--option")
        entries = [{"name": name, "backend": backend, "options": options} for name in names or ()]
        chosen = parse_config({"tools": entries, **overrides})
    else:
        chosen = read_config(config, **overrides)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # before anything imports torch
    code = run_server(chosen)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a tool that hangs in a thread must not keep the process


def up(
    file: Annotated[Path, typer.Argument(help="A file with `services`, or a manifest with VisionTools.")],
    from_openthinkimg: Annotated[bool, typer.Option(help="The file is OpenThinkIMG's all_service.yaml.")] = False,
    logs: Annotated[
        Path | None, typer.Option(help="Folder for logs, one file a process. Default: logs/<file>.")
    ] = None,
    secrets_dir: Secrets = None,
    keys_file: Annotated[Path | None, typer.Option(help="Of the gateway: what `gateway keys` wrote.")] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="The gateway serves a public interface without keys.")
    ] = False,
) -> None:
    """Start every server of a file, and restart those that die.

    A table shows how they are; Ctrl-C stops all.
    """
    from thinkimg.cli.fleet import run_fleet
    from thinkimg.openthinkimg.services import read_openthinkimg
    from thinkimg.serving.fleet import read_fleet

    plan = read_openthinkimg(file) if from_openthinkimg else read_fleet(file, secrets_dir)
    if plan.gateway is not None or keys_file or allow_anonymous:
        from thinkimg.gateway.fleet import on_this_machine_unless_guarded, with_gateway

        if from_openthinkimg:
            plan = on_this_machine_unless_guarded(plan, keys_file, allow_anonymous)
        plan = with_gateway(plan, file.parent, keys_file, allow_anonymous)
    for note in plan.notes:
        notes.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    run_fleet(plan.servers, logs or Path("logs") / file.stem, Console())


COMMANDS = (
    Command(
        "tools", tools, TOOLS,
        (
            "thinkimg tools",
            "thinkimg tools Crop",
            "thinkimg tools OCR --image chart.png --out read.png",
            "thinkimg tools Crop box=[0,0,50,50] --image chart.png --json",
        ),
        extras=("tools", "transformers"),
    ),
    Command("example", example, TOOLS, ("thinkimg example", "thinkimg example figure.png --force")),
    Command(
        "serve", serve, TOOLS,
        ("thinkimg serve OCR Crop --port 8801", "thinkimg serve SAM --backend transformers --device 0"),
        extras=("tools", "transformers"), needs=("fastapi", "uvicorn", "prometheus_client"),
    ),
    Command(
        "up", up, TOOLS,
        ("thinkimg up tools.yaml", "thinkimg up all_service.yaml --from-openthinkimg"),
        extras=("tools", "transformers"), needs=("fastapi", "uvicorn", "prometheus_client"),
    ),
)  # fmt: skip
