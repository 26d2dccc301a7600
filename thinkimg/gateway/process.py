"""A gateway as a process: binds, finds its tools, announces itself, drains on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette

from thinkimg.api.pod_contract import ExitCode
from thinkimg.errors import UserError
from thinkimg.extras import naming_the_extra
from thinkimg.gateway.app import create_app
from thinkimg.gateway.config import GatewayConfig, read_config
from thinkimg.gateway.core import Core
from thinkimg.gateway.openai import ServedModel
from thinkimg.serving.listener import Announcer, Server, bind, url_of
from thinkimg.serving.logs import configure_logging
from thinkimg.serving.memory import give_memory_back, share_one_arena
from thinkimg.serving.start import read_start

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run as a supervised process. Returns 0 after a drain, 2 for the user's error."""
    start = read_start("python -m thinkimg.gateway", "Serve tools and models at one address.", arguments)
    configure_logging()
    try:
        with naming_the_extra("a gateway", preferred=("gateway", "train")):
            serve(read_config(start.config), start.ready_file, supervised=start.supervised)
    except UserError as error:
        Announcer(start.ready_file).failed(error)
        return ExitCode.USER
    return 0


def serve(
    config: GatewayConfig,
    ready_file: Path | None = None,
    models: Sequence[ServedModel] = (),
    supervised: bool = False,
) -> None:
    """Run until SIGTERM, or SIGINT when nobody supervises. Standard output gets one JSON line when it is ready.

    Raises:
        UserError: wrong address or key of a tool server, a port that is taken, a file of keys that cannot be read.
    """
    configure_logging()
    app = create_app(config, models)
    listening = bind(config.host, config.port)
    signals = (signal.SIGTERM,) if supervised else (signal.SIGTERM, signal.SIGINT)
    asyncio.run(_serve(app.state.core, app, listening, Announcer(ready_file), signals))


async def _serve(
    core: Core, app: Starlette, listening: socket.socket, announce: Announcer, signals: Sequence[signal.Signals]
) -> None:
    share_one_arena()
    server = Server(
        app,
        core.health,
        core.config.limits.client_seconds,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=core.config.drain_seconds or 1,
    )

    def drain() -> None:
        log.info("draining")
        core.draining = True
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, drain)
    connecting = asyncio.create_task(_connect(core, server, announce, url_of(core.config.host, listening)))
    keeping = asyncio.create_task(give_memory_back())
    try:
        await server.serve(sockets=[listening])
    finally:
        keeping.cancel()
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
        await core.close()
    log.info("stopped")


async def _connect(core: Core, server: Server, announce: Announcer, url: str) -> None:
    """Probes are answered while the tool servers start."""
    try:
        await core.connect()
    except UserError:  # `serve` raises it
        server.should_exit = True
        raise
    announce.ready(url, list(core.client.schemas))
