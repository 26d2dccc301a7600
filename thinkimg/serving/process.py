"""One tool server as a process: binds, loads, announces itself, drains on SIGTERM, never outlives its supervisor."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from typing import Any

from thinkimg.api.pod_contract import ExitCode
from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.extras import naming_the_extra
from thinkimg.serving.config import ServerConfig, read_config
from thinkimg.serving.doors import open_door
from thinkimg.serving.listener import Announcer, Server, bind, url_of
from thinkimg.serving.logs import configure_logging
from thinkimg.serving.memory import give_memory_back, share_one_arena
from thinkimg.serving.server import create_app
from thinkimg.serving.service import ToolService
from thinkimg.serving.start import read_start

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM (or SIGINT when nobody supervises).

    Returns:
        0 after a drain, 2 for the user's error, 70 when the tools could not be loaded.
    """
    start = read_start("python -m thinkimg.serving", "Serve vision tools over HTTP.", arguments)
    configure_logging()
    announce = Announcer(start.ready_file)
    try:
        config = read_config(start.config)
    except UserError as error:
        announce.failed(error)
        return ExitCode.USER
    return _run(config, announce, start.supervised)


def serve(config: ServerConfig) -> int:
    """`main` of a configuration at hand, with nobody who supervises."""
    configure_logging()
    return _run(config, Announcer(None), supervised=False)


def check_door(config: ServerConfig) -> None:
    """Raises `UserError`: others could reach the server, and it would ask nobody for a key."""
    remedy = (
        f"set api_key, or {Variable.API_KEY} in the environment; or allow_anonymous (`--allow-anonymous`) to let "
        "everybody call"
    )
    if problem := open_door(config.host, bool(config.key(os.environ)) or config.allow_anonymous, remedy):
        raise UserError(problem, "host")


def _run(config: ServerConfig, announce: Announcer, supervised: bool) -> int:
    try:
        check_door(config)
        listening = bind(config.host, config.port)
    except UserError as error:
        announce.failed(error)
        return ExitCode.USER
    return asyncio.run(_serve(config, listening, announce, supervised))


async def _serve(config: ServerConfig, listening: socket.socket, announce: Announcer, supervised: bool) -> int:
    share_one_arena()
    app = create_app(config)
    service: ToolService = app.state.service
    server = Server(
        app,
        service.health,
        config.client_seconds,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=config.drain_seconds or 1,
    )
    loop = asyncio.get_running_loop()
    outcome: list[int] = [ExitCode.DONE]

    def drain() -> None:
        log.info("draining", extra={"in_flight": service.in_flight})
        service.draining = True
        server.should_exit = True

    def loaded(error: Exception | None) -> None:
        if error is None:
            announce.ready(url_of(config.host, listening), list(service.tools))
        else:
            announce.failed(error)
            outcome[0] = ExitCode.USER if isinstance(error, UserError) else ExitCode.INFRASTRUCTURE
            server.should_exit = True

    for number in (signal.SIGTERM,) if supervised else (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    _load_in_thread(service, loop, loaded)
    keeping = asyncio.create_task(give_memory_back())
    await serving
    keeping.cancel()
    log.info("stopped", extra={"in_flight": service.in_flight})
    return outcome[0]


def _load_in_thread(service: ToolService, loop: asyncio.AbstractEventLoop, loaded: Any) -> None:
    """Probes are answered while models load."""

    def load() -> None:
        failure = None
        try:
            with naming_the_extra("a tool server", preferred=("tools", "transformers")):
                service.load()
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("the tools cannot be loaded")
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(loaded, failure)

    threading.Thread(target=load, name="load", daemon=True).start()
