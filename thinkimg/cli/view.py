"""`thinkimg view`: runs and trajectories in a browser, or as one file."""

import getpass
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer
from rich.console import Console

from thinkimg.cli.command import EVALUATE, Command
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.viewer.discovery import RunFolder
    from thinkimg.viewer.index import Index
    from thinkimg.viewer.selection import Selection


def view(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, or files of trajectories.")],
    host: Annotated[
        str, typer.Option(help="Where to listen. Beyond this machine, a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: 8750, or a free one if it is taken.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="THINKIMG_VIEW_TOKEN", help="Ask for this token, also on this machine.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the selection as one HTML file instead of serving.")] = None,
    select: Annotated[str, typer.Option(help="A filter, or the address of a page that shows it.")] = "",
) -> None:
    """Look at runs and their trajectories in a browser.

    Filters, pictures, tokens, models side by side, curves.
    """
    from thinkimg.serving.doors import is_loopback
    from thinkimg.viewer.discovery import find_runs
    from thinkimg.viewer.index import Index, cache_path
    from thinkimg.viewer.serve import listen, parse_select, serve

    runs = find_runs(paths)
    if not any((run.path / "stages").is_dir() or run.files() for run in runs):  # a run may have just begun
        raise UserError(
            "no trajectories there: name a run's folder, or a file of `thinkimg`'s JSON lines", str(paths[0])
        )
    selection = parse_select(select)
    index = Index(runs, cache_path(runs))
    if out is not None:
        _write(index, selection, out)
        return
    if not token and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    listening = listen(host, port)
    _announce(runs, host, listening.getsockname()[1], token, selection)
    serve(index, listening, token)


def _write(index: "Index", selection: "Selection", out: Path) -> None:
    from thinkimg.viewer.serve import write_selection

    try:
        index.refresh()
        write_selection(index, selection, out)
    finally:
        index.close()
    Console().print(f"wrote {out}", soft_wrap=True, highlight=False)


def _announce(runs: "Sequence[RunFolder]", host: str, port: int, token: str | None, selection: "Selection") -> None:
    from thinkimg.serving.doors import is_loopback

    chosen = selection.model_dump(exclude_defaults=True)
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    query = f"?token={token}" if token else ""
    fragment = f"#/trajectories?{urlencode(chosen)}" if chosen else ""
    shown = f"[{name}]" if ":" in name else name
    screen = Console()

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True, highlight=False, markup=False)

    say(f"{', '.join(run.name for run in runs)}: http://{shown}:{port}/{query}{fragment}")
    target = "127.0.0.1" if is_loopback(host) or host in ("0.0.0.0", "::") else shown
    say(f"from another machine: ssh -L {port}:{target}:{port} {getpass.getuser()}@{socket.gethostname()}")
    if is_loopback(host):
        say("Ctrl-C stops it")
    else:
        say("others can reach this address; they need the token in it. Ctrl-C stops it")


COMMANDS = (
    Command(
        "view", view, EVALUATE,
        (
            "thinkimg view runs/demo",
            "thinkimg view runs/demo --out wrong.html --select 'outcome=wrong&tool=OCR'",
        ),
        extras=("serving",), needs=("starlette", "uvicorn"),
    ),
)  # fmt: skip
