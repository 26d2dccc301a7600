"""Serves the page until Ctrl-C, or writes a selection as one file."""

import contextlib
import socket
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from thinkimg.errors import UserError
from thinkimg.serving.connections import BoundedServer
from thinkimg.serving.health import Health
from thinkimg.viewer.export import export_page
from thinkimg.viewer.index import Index
from thinkimg.viewer.selection import Selection
from thinkimg.viewer.server import Viewer, create_app

PORT = 8750
_CLIENT_SECONDS = 60.0
_OF_THE_PAGE = ("t", "vs", "turn", "layers", "tokens", "a", "b", "only")
"""What the page's address says beside filters: what is open, and how it is shown."""


def listen(host: str, port: int | None) -> socket.socket:
    """Bind where the page will be served; callers may connect from now on.

    Args:
        port: None takes 8750, or a free one where that is taken.

    Raises:
        UserError: the port is taken; it is named.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for chosen in (PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), chosen))
            listening.listen(128)  # who reads the address may come before the server is up
            return listening
        except OSError as error:
            listening.close()
            reason = error
    raise UserError(f"{host}:{port} cannot be used: {reason.strerror or reason}; choose another or 0", "--port")


def serve(index: Index, listening: socket.socket, token: str | None) -> None:
    """Serve the page until Ctrl-C or SIGTERM. With a token, every request needs it."""
    app = create_app(index, token)
    server = BoundedServer(
        app, Health(), _CLIENT_SECONDS, log_level="warning", timeout_graceful_shutdown=2, lifespan="on"
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
    values = dict(parse_qsl(fragment.rpartition("?")[2], keep_blank_values=True))
    return Selection.parse(values, _OF_THE_PAGE)
