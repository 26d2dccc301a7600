"""The replicas of all endpoints: found, watched, set aside when they fail, hang or lag behind, and taken back."""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from thinkimg.client.balancing import has_alternative, laggards, may_set_aside_one_more
from thinkimg.client.discovery import Endpoint, Resolve
from thinkimg.client.replica import Replica
from thinkimg.errors import InfrastructureError, UserError, describe
from thinkimg.tools.tool import ToolSchema, normalise_name

_LIST_SECONDS = 5.0
_WATCH_SECONDS = 0.25
_SILENCE_SECONDS = 1.0
_ALIVE_SECONDS = 2.0
_GONE_SECONDS = 0.1
_SLOW_SECONDS = 2.0
_MAX_PROBE_PAUSE = 5.0
_MAX_SET_ASIDE_SECONDS = 60.0
_FORGIVEN_SECONDS = 60.0
_IDLE_SECONDS = 300.0
log = logging.getLogger(__name__)


@dataclass
class Service:
    """A tool and who serves it."""

    schema: ToolSchema
    replicas: list[Replica] = field(default_factory=list)


class ReplicaPool:
    """To be used from one event loop.

    Args:
        endpoints: see `Endpoint`.
        api_keys: endpoint -> key.
        resolve: asks DNS.
        refresh_seconds: between two looks at the DNS names; one that fails is looked up at once.

    Attributes:
        replicas: of all endpoints.
        services: tool name -> who serves it. Replaced whenever something changes.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], api_keys: Mapping[str, str], resolve: Resolve, refresh_seconds: float
    ) -> None:
        self._endpoints = endpoints
        self._keys = api_keys
        self._resolve = resolve
        self._refresh_seconds = refresh_seconds
        self._look_now = asyncio.Event()
        self._background: set[asyncio.Task[Any]] = set()
        self._random = random.Random()
        self._by_name: dict[str, Service] = {}
        self.replicas: list[Replica] = []
        self.services: dict[str, Service] = {}

    def find(self, name: str) -> Service | None:
        """By name or alias, in any spelling that `normalise_name` makes equal."""
        return self._by_name.get(normalise_name(name))

    # ---- finding ----------------------------------------------------------------------------------------------------

    async def open(self, seconds: float) -> None:
        """Find the servers, read their tools and start to watch.

        Raises:
            InfrastructureError: an endpoint of which no server answers within `seconds`.
            UserError: a wrong address or key; endpoints that serve different versions of one tool.
        """
        deadline = time.monotonic() + seconds
        await asyncio.gather(*(self._find_first(endpoint, deadline) for endpoint in self._endpoints))
        self._refuse_disagreement()
        self._rebuild()
        self._spawn(self._watch())
        for endpoint in self._endpoints:
            if endpoint.changes:
                self._spawn(self._follow(endpoint))

    async def close(self) -> None:
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    async def _find_first(self, endpoint: Endpoint, deadline: float) -> None:
        pause = 0.1
        while True:
            reason = await self._look_up(endpoint)
            if any(replica.endpoint == endpoint.text for replica in self.replicas):
                return
            if time.monotonic() + pause > deadline:
                raise InfrastructureError(f"no tools from {endpoint.text}: {reason}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _follow(self, endpoint: Endpoint) -> None:
        """Look the name up again and again."""
        while True:
            try:
                async with asyncio.timeout(self._refresh_seconds * self._random.uniform(0.8, 1.2)):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()
            try:
                await self._look_up(endpoint)
            except UserError as error:
                log.warning("%s: %s", endpoint.text, error)
            self._rebuild()
            await asyncio.sleep(_WATCH_SECONDS)  # however many failures ask for it

    async def _look_up(self, endpoint: Endpoint) -> str:
        """Take in servers that are new and ready, let go those whose address is gone. While a name has no address at
        all, those that are known stay: nothing better is to be had.

        Returns:
            Why one that is there was not taken in.
        """
        try:
            urls = await endpoint.urls(self._resolve)
        except OSError as error:
            return describe(error)
        known = {replica.url: replica for replica in self.replicas if replica.endpoint == endpoint.text}
        for url, replica in known.items() if urls else ():
            if url not in urls:
                self.replicas.remove(replica)
                self._spawn(_close_when_idle(replica))
        new = [Replica(url, self._keys.get(endpoint.text), endpoint.text) for url in urls if url not in known]
        return "; ".join(filter(None, await asyncio.gather(*(self._take_in(replica) for replica in new))))

    async def _take_in(self, replica: Replica) -> str:
        try:
            replica.schemas = await replica.list_tools(_LIST_SECONDS)
        except httpx.HTTPError as error:
            await replica.close()
            return describe(error)
        except UserError:
            await replica.close()
            raise
        self.replicas.append(replica)
        return ""

    # ---- who serves what --------------------------------------------------------------------------------------------

    def _offers(self) -> dict[str, list[Service]]:
        """Tool name -> its schemas, each with those who serve it so."""
        order = {endpoint.text: number for number, endpoint in enumerate(self._endpoints)}
        offers: dict[str, list[Service]] = {}
        for replica in sorted(self.replicas, key=lambda replica: order[replica.endpoint]):
            for schema in replica.schemas:
                variants = offers.setdefault(schema.name, [])
                service = next((variant for variant in variants if variant.schema == schema), None)
                if service is None:
                    service = Service(schema)
                    variants.append(service)
                service.replicas.append(replica)
        return offers

    def _rebuild(self) -> None:
        """Of different versions, as a rolling update has them, the one counts that most replicas serve; the others are
        not asked."""
        self.services = {
            name: max(variants, key=lambda variant: len(variant.replicas)) for name, variants in self._offers().items()
        }
        self._by_name = {}
        for service in self.services.values():
            for name in (service.schema.name, *service.schema.aliases):
                self._by_name.setdefault(normalise_name(name), service)

    def _refuse_disagreement(self) -> None:
        """At the start, only the addresses of one name may differ."""
        for name, variants in self._offers().items():
            one, *others = variants
            for other in others:
                if {replica.endpoint for replica in one.replicas} != {replica.endpoint for replica in other.replicas}:
                    raise UserError(
                        f"{other.replicas[0].url} serves {name} version {other.schema.version}, {one.replicas[0].url} "
                        f"serves version {one.schema.version}, or their schemas or backends differ; replicas of a tool "
                        "must agree",
                        "endpoints",
                    )

    # ---- health -----------------------------------------------------------------------------------------------------

    def answered(self, replica: Replica, started: float) -> None:
        """An attempt that began at `started` got its answer: one that was thought to be gone is back."""
        if replica.set_aside and not replica.slow and started > replica.changed:
            self._take_back(replica)

    def gone(self, replica: Replica) -> None:
        """It does not answer, or says that it cannot serve: set aside until it lists its tools again."""
        self._look_now.set()
        self._set_aside(replica, slow=False)

    def late(self, replica: Replica, tool: str) -> None:
        """A call of this tool ran out of time there: set aside for a while, unless that would be too many."""
        service = self.services.get(tool)
        if service is not None and may_set_aside_one_more(service.replicas):
            self._set_aside(replica, slow=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for replica in self.replicas:
                if replica.waiting_since is not None and now - replica.waiting_since > _SILENCE_SECONDS:
                    replica.waiting_since = now  # the next look is due after the next silence
                    self._spawn(self._look_after(replica))
            for name, service in self.services.items():
                for replica in laggards(name, service.replicas, now):
                    self.late(replica, name)

    async def _look_after(self, replica: Replica) -> None:
        """Nothing came for long. If the tool is only slow, the server still says that it lives; if it does not say so,
        what waits for it is tried elsewhere."""
        if await replica.lives(_ALIVE_SECONDS):
            return
        self.gone(replica)
        for attempt in list(replica.under_way):
            service = self.services.get(attempt.tool)
            if service is not None and has_alternative(service.replicas, [replica]):
                attempt.abandon()

    def _set_aside(self, replica: Replica, slow: bool) -> None:
        if replica.set_aside:
            return
        now = time.monotonic()
        if now - replica.changed > _FORGIVEN_SECONDS:
            replica.ejections = 0
        replica.ejections += 1
        replica.set_aside, replica.slow, replica.changed = True, slow, now
        log.info("%s is set aside: it is %s", replica.url, "slow" if slow else "gone")
        self._spawn(self._probe(replica, _SLOW_SECONDS if slow else _GONE_SECONDS))

    async def _probe(self, replica: Replica, pause: float) -> None:
        """Ask until it lists its tools, the later for the first time the more often it was set aside of late: one whose
        tool hangs lists them all the same."""
        pause = min(pause * 2.0 ** (replica.ejections - 1), _MAX_SET_ASIDE_SECONDS)
        while replica.set_aside and replica in self.replicas:
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            try:
                replica.schemas = await replica.list_tools(_ALIVE_SECONDS)
                self._take_back(replica)
            except (httpx.HTTPError, UserError):
                pass
            pause = min(2 * pause, max(pause, _MAX_PROBE_PAUSE))

    def _take_back(self, replica: Replica) -> None:
        if not replica.set_aside:
            return
        replica.set_aside, replica.slow, replica.changed = False, False, time.monotonic()
        replica.start_afresh()
        log.info("%s is back", replica.url)
        self._rebuild()

    def _spawn(self, work: "Coroutine[Any, Any, None]") -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _close_when_idle(replica: Replica) -> None:
    """One that ends finishes what it has."""
    deadline = time.monotonic() + _IDLE_SECONDS
    try:
        while replica.under_way and time.monotonic() < deadline:
            await asyncio.sleep(_WATCH_SECONDS)
    finally:
        await replica.close()
