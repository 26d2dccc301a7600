"""`thinkimg view`: serve the page until Ctrl-C, or write a selection as one file."""

import contextlib
import getpass
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn
from rich.console import Console

from thinkimg.errors import UserError
from thinkimg.viewer.access import is_loopback
from thinkimg.viewer.discovery import RunFolder, find_runs
from thinkimg.viewer.export import export_page
from thinkimg.viewer.index import Index, cache_path
from thinkimg.viewer.selection import Selection
from thinkimg.viewer.server import Viewer, create_app

PORT = 8750


def view(
    paths: Sequence[Path],
    host: str,
    port: int | None,
    token: str | None,
    out: Path | None,
    select: str,
    screen: Console,
) -> None:
    """Serve `paths`, or write what `select` chooses to `out`.

    Args:
        port: None takes 8750, or a free one where that is taken.
        token: asked for on every request; made here if others can reach `host` and none is given.
        select: a filter as in the page's address, or the whole address.
        screen: where the addresses are printed.

    Raises:
        UserError: a path without trajectories, a port that is taken, a filter that is wrong.
    """
    runs = find_runs(paths)
    if not any((run.path / "stages").is_dir() or run.files() for run in runs):  # a run may have just begun
        raise UserError(
            "no trajectories there: name a run's folder, or a file of `thinkimg`'s JSON lines", str(paths[0])
        )
    selection = parse_select(select)
    index = Index(runs, cache_path(runs))
    if out is not None:
        try:
            index.refresh()
            write_selection(index, selection, out)
            screen.print(f"wrote {out}", soft_wrap=True, highlight=False)
        finally:
            index.close()
        return
    if not token and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    listening = _bind(host, port)
    _announce(screen, runs, host, listening.getsockname()[1], token, selection)
    server = uvicorn.Server(
        uvicorn.Config(create_app(index, token), log_level="warning", timeout_graceful_shutdown=2, lifespan="on")
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped
        server.run(sockets=[listening])


def write_selection(index: Index, selection: Selection, out: Path) -> None:
    """One HTML file that opens without a server."""
    viewer = Viewer(index)
    html = export_page(viewer.queries, selection, viewer.trajectory)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(out)


def parse_select(text: str) -> Selection:
    """`tool=OCR&error=any`, or the address of a page that shows the selection."""
    fragment = urlsplit(text).fragment if "#" in text else text
    return Selection.parse(dict(parse_qsl(fragment.rpartition("?")[2], keep_blank_values=True)))


def _bind(host: str, port: int | None) -> socket.socket:
    """Raises `UserError` naming the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for chosen in (PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), chosen))
            listening.listen(128)  # who reads the address below may come before the server is up
            return listening
        except OSError as error:
            listening.close()
            reason = error
    raise UserError(f"{host}:{port} cannot be used: {reason.strerror or reason}; choose another or 0", "--port")


def _announce(
    screen: Console, runs: Sequence[RunFolder], host: str, port: int, token: str | None, selection: Selection
) -> None:
    chosen = selection.model_dump(exclude_defaults=True)
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    query = f"?token={token}" if token else ""
    fragment = f"#/trajectories?{urlencode(chosen)}" if chosen else ""
    shown = f"[{name}]" if ":" in name else name

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True, highlight=False, markup=False)

    say(f"{', '.join(run.name for run in runs)}: http://{shown}:{port}/{query}{fragment}")
    target = "127.0.0.1" if is_loopback(host) or host in ("0.0.0.0", "::") else shown
    say(f"from another machine: ssh -L {port}:{target}:{port} {getpass.getuser()}@{socket.gethostname()}")
    if is_loopback(host):
        say("Ctrl-C stops it")
    else:
        say("others can reach this address; they need the token in it. Ctrl-C stops it")
