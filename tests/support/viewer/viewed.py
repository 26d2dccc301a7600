"""A viewer of runs as a server on a free port, in a thread."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from thinkimg.viewer.discovery import find_runs
from thinkimg.viewer.index import Index
from thinkimg.viewer.server import create_app


@contextlib.contextmanager
def viewed(index: Path, *paths: Path, token: str | None = None, read: bool = True) -> Iterator[str]:
    """Yields its address, when all is read (or at once, to watch it read)."""
    made = Index(find_runs(paths), index)
    if read:
        made.refresh()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(made, token), log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
