"""One tool server as a process: binds, loads, announces itself, drains on SIGTERM, never outlives its supervisor."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from thinkimg.errors import UserError
from thinkimg.serving.config import ServerConfig, read_config
from thinkimg.serving.server import create_app
from thinkimg.serving.service import ToolService

EXIT_USER_ERROR = 2
EXIT_INFRASTRUCTURE = 70
_PARENT_POLL_SECONDS = 1.0
log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM (or SIGINT when nobody supervises).

    Returns:
        0 after a drain, 2 for the user's error, 70 when the tools could not be loaded.
    """
    options = _parser().parse_args(arguments)
    if options.supervised_by is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        _end_with_parent(options.supervised_by)
    _configure_logging()
    announce = _Announcer(options.ready_file)
    try:
        config = read_config(options.config)
        listening = _bind(config)
    except UserError as error:
        announce.failed(error)
        return EXIT_USER_ERROR
    return asyncio.run(_serve(config, listening, announce, options.supervised_by is not None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m thinkimg.serving", description="Serve vision tools over HTTP.")
    parser.add_argument("--config", type=Path, required=True, help="YAML or JSON of a ServerConfig")
    parser.add_argument("--ready-file", type=Path, help="written when ready, beside the line on standard output")
    parser.add_argument(
        "--supervised-by", type=int, metavar="PID", help="end when standard input closes or the parent is not PID"
    )
    return parser


class _Announcer:
    """Tells whoever started this process what became of it: one JSON line on stdout, and a file if asked."""

    def __init__(self, ready_file: Path | None) -> None:
        self._ready_file = ready_file

    def ready(self, url: str, tools: list[str]) -> None:
        self._say({"event": "ready", "url": url, "pid": os.getpid(), "tools": tools})

    def failed(self, error: Exception) -> None:
        family = getattr(error, "family", "infrastructure")
        field = getattr(error, "field", "")
        message = str(error).removeprefix(f"{field}: ") if field else str(error)
        self._say({"event": "failed", "family": family, "field": field, "message": message, "pid": os.getpid()})

    def _say(self, event: dict[str, Any]) -> None:
        line = json.dumps(event)
        print(line, flush=True)
        if self._ready_file is not None:
            partial = self._ready_file.with_suffix(".partial")
            partial.write_text(line + "\n", encoding="utf-8")
            partial.replace(self._ready_file)


def _bind(config: ServerConfig) -> socket.socket:
    """Raises `UserError` naming the port when it is taken."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # The protocol must be given: asyncio turns Nagle's algorithm off (40 ms a reply) only for sockets that say TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise UserError(f"{config.host}:{config.port} cannot be used: {reason}; choose another or 0", "port") from error
    return listening


def _url(config: ServerConfig, listening: socket.socket) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{listening.getsockname()[1]}"


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: it would end by the signal, we end with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(config: ServerConfig, listening: socket.socket, announce: _Announcer, supervised: bool) -> int:
    app = create_app(config)
    service: ToolService = app.state.service
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=config.drain_seconds or 1,
            backlog=2048,
        )
    )
    loop = asyncio.get_running_loop()
    outcome = [0]

    def drain() -> None:
        log.info("draining", extra={"in_flight": service.in_flight})
        service.draining = True
        server.should_exit = True

    def loaded(error: Exception | None) -> None:
        if error is None:
            announce.ready(_url(config, listening), list(service.tools))
        else:
            announce.failed(error)
            outcome[0] = EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_INFRASTRUCTURE
            server.should_exit = True

    for number in (signal.SIGTERM,) if supervised else (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    _load_in_thread(service, loop, loaded)
    await serving
    log.info("stopped", extra={"in_flight": service.in_flight})
    return outcome[0]


def _load_in_thread(service: ToolService, loop: asyncio.AbstractEventLoop, loaded: Any) -> None:
    """Probes are answered while models load."""

    def load() -> None:
        failure = None
        try:
            service.load()
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("the tools cannot be loaded")
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(loaded, failure)

    threading.Thread(target=load, name="load", daemon=True).start()


# ---- the parent -----------------------------------------------------------------------------------------------------


def _end_with_parent(parent: int) -> None:
    """End this process at once when its supervisor is gone, however it went.

    Standard input is a pipe whose other end only the supervisor holds; the parent's id is looked at too, because a
    process forked from the supervisor may hold that end open.
    """

    def watch() -> None:
        while os.getppid() == parent:
            readable, _, _ = select.select([0], [], [], _PARENT_POLL_SECONDS)
            if readable and not os.read(0, 1):
                break
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


# ---- logs -----------------------------------------------------------------------------------------------------------


class _JsonLines(logging.Formatter):
    """One JSON object a line; members given as `extra` are members of it."""

    _KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "event": record.getMessage(),
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in self._KNOWN})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _configure_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
