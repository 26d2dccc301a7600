"""The operator's HTTP face: `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from .metrics import Metrics


class Probes:
    """A small server.

    Attributes:
        address: `host:port` it listens on, once started.
    """

    def __init__(self, listen: str, metrics: Metrics, sick: Callable[[], str], ready: Callable[[], bool]) -> None:
        """
        Args:
            sick: why this process should be restarted; empty when it should not.
            ready: whether it does its part: leads with a filled cache, or waits to lead.
        """
        self.address = listen
        self._metrics = metrics
        self._sick = sick
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._page)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, _, port = self.address.rpartition(":")
        await web.TCPSite(self._runner, host.strip("[]") or None, int(port)).start()
        bound = self._runner.addresses[0]
        self.address = f"{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        reason = self._sick()
        return web.Response(text=f"{reason or 'alive'}\n", status=500 if reason else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "starting\n", status=200 if ready else 503)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), content_type="text/plain", charset="utf-8")
