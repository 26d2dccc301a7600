"""The operator process: kopf brings the events of our resources; all is wired together here and done elsewhere.

Order of a start: lease, cache, workers, watches. Order of a stop: workers, lease, watches; the lease goes as early as
nothing is written any more, so that another process takes over within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient, Configuration

from thinkimg.api.pod_contract import Label

from .apierrors import ApiError
from .cluster import Cluster
from .controller import Controller, Hub
from .credentials import read_credentials
from .fence import fenced_client
from .kinds import KINDS
from .leader import Leader, LeadershipLostError
from .logs import configure_logging
from .metrics import Metrics
from .ownership import SELECT_OURS
from .probes import Probes
from .settings import VERSION, Settings, parse_settings
from .toolrljob.reconcile import ToolRLJobReconciler
from .visiontool.reconcile import VisionToolReconciler
from .watch import backoffs, watch_for_ever
from .workqueue import Reconciler

log = logging.getLogger(__name__)

RESOURCES = ("VisionTool", "ToolRLJob")
"""Kinds that kopf watches."""
CHILDREN = {"Deployment": SELECT_OURS, "Job": SELECT_OURS, "Pod": Label.JOB}
"""Kinds that `watch.py` watches, with the label selector that the API server applies. The resync sees to all others."""
_FINISH_SECONDS = 1.0
"""How long reconciliations may take to finish when the process stops."""
_LOGIN_SECONDS = 60


def main() -> None:
    """`thinkimg-operator run …`. Ends with 0 after SIGTERM, 1 when leadership was lost or something is broken."""
    settings = parse_settings()
    configure_logging(settings.log_format, settings.log_level)
    raise SystemExit(asyncio.run(run(settings)))


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (0), or until it cannot go on (1: a fresh process may)."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen_to_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)

    listen_to_signals()
    async with start_process(settings) as process:
        work = asyncio.create_task(process.work(after_kopf_is_up=listen_to_signals))
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        await process.stop()
        stop.cancel()
        failure = work.exception() if work.done() else None
        work.cancel()
        await asyncio.wait({work})
    if failure is not None:
        log.error("ended: %s", failure, exc_info=failure if not isinstance(failure, LeadershipLostError) else None)
    return 0 if stopping.is_set() else 1


class Process:
    """One operator process and all its parts. `start_process` makes one."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        cluster: Cluster,
        leader: Leader | None,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        self._cluster = cluster
        self._leader = leader
        self._controllers = [
            Controller(reconciler, cluster, metrics, settings.workers)
            for reconciler in reconcilers(cluster, settings, metrics)
        ]
        self.hub = Hub(cluster, self._controllers, metrics)
        self._working = False
        """Leads, and its cache is filled."""
        self._waiting = False
        """Waits to lead."""

    def is_up(self) -> bool:
        """Works, or waits to lead."""
        return self._working or self._waiting

    async def work(self, after_kopf_is_up: Any) -> None:
        """Lead, and work until something ends it with an exception."""
        if self._leader is not None:
            self._waiting = True
            await self._leader.acquire()
        async with asyncio.TaskGroup() as tasks:
            if self._leader is not None:
                tasks.create_task(self._leader.keep())
            await self._learn()
            for controller in self._controllers:
                controller.start()
            self._working = True
            tasks.create_task(self._watch_resources(after_kopf_is_up))
            for namespace, (kind, labels) in itertools.product(self._settings.namespaces or (None,), CHILDREN.items()):
                changed = partial(self.hub.event, kind)
                tasks.create_task(watch_for_ever(self._cluster, kind, namespace, labels, changed))
            tasks.create_task(self._resync_for_ever())
            tasks.create_task(self._mind_workers())

    async def stop(self) -> None:
        """Finish what is under way, then let another process lead."""
        for controller in self._controllers:
            await controller.stop(_FINISH_SECONDS)
        if self._leader is not None:
            await self._leader.release()

    async def _learn(self) -> None:
        while True:
            try:
                await self.hub.learn()
                return
            except ApiError as error:
                hint = " (are the custom resources installed? See charts/thinkimg-crds)" if error.not_found else ""
                log.warning("what exists cannot be listed yet: %s%s", error, hint)
                await asyncio.sleep(1)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                await self.hub.resync()
            except ApiError as error:
                log.warning("resync ended early: %s", error)

    async def _mind_workers(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for controller in self._controllers:
                failure = controller.failed_worker()
                if failure is not None:
                    raise failure

    async def _watch_resources(self, after_kopf_is_up: Any) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(partial(_login, self._configuration))
        kopf.on.startup(registry=registry)(_configure)
        for kind in RESOURCES:
            _watch_kind(registry, self.hub, kind)
        existing = asyncio.all_tasks()
        identity: Any = self._settings.identity  # kopf would ask for the user's name, and the image's user has none
        tasks = await kopf.spawn_tasks(
            registry=registry,
            identity=identity,
            standalone=True,
            clusterwide=not self._settings.namespaces,
            namespaces=self._settings.namespaces,
        )
        after_kopf_is_up()  # kopf has taken the signals for itself
        await kopf.run_tasks(tasks, ignored=existing)
        raise RuntimeError("kopf has ended")


@contextlib.asynccontextmanager
async def start_process(settings: Settings) -> AsyncIterator[Process]:
    """A process with its probes up. Its clients are closed at the end."""
    metrics, configuration = Metrics(), await read_credentials(settings.kubeconfig, settings.context)
    async with contextlib.AsyncExitStack() as stack:

        def client(may_send: Callable[[], bool] | None = None) -> ApiClient:
            api = fenced_client(configuration, may_send) if may_send else ApiClient(configuration)
            api.user_agent = f"thinkimg-operator/{VERSION} ({settings.identity})"
            stack.push_async_callback(api.close)
            return api

        leader = None
        if settings.leader_election:
            election = Cluster(client(), metrics=metrics, request_seconds=3.0)
            leader = Leader(election, settings.lease_namespace, settings.identity, metrics=metrics)
        may_write = leader.holds if leader else lambda: True
        cluster = Cluster(client(may_write), metrics=metrics, namespaces=settings.namespaces, may_write=may_write)
        process = Process(settings, configuration, cluster, leader, metrics)
        probes = Probes(settings.listen, metrics, process.hub.sick, process.is_up)
        await probes.start()
        stack.push_async_callback(probes.stop)
        log.info("probes and metrics at %s", probes.address)
        yield process


def reconcilers(cluster: Cluster, settings: Settings, metrics: Metrics) -> Sequence[Reconciler]:
    """One for each kind."""
    return [VisionToolReconciler(cluster, settings), ToolRLJobReconciler(cluster, settings, metrics)]


def _watch_kind(registry: kopf.OperatorRegistry, hub: Hub, kind: str) -> None:
    known = KINDS[kind]

    @kopf.on.event(known.group, known.version, known.plural, registry=registry, id=f"{kind} changed")
    async def changed(event: Any, **_: Any) -> None:
        body = {"apiVersion": known.api_version, "kind": kind, **event["object"]}
        hub.event(kind, event["type"], body)


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf copies every object it sees several times over, to tell handlers of changes what changed. There are none."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _Backoffs:
    """Pauses of kopf between tries of a request."""

    def __iter__(self) -> Iterator[float]:
        return backoffs()


def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = (
        0.1  # a task for each object that changed lately; 5 s of them cost 180 MB at 10,000
    )
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.persistence.diffbase_storage = _NoDiffs()


async def _login(configuration: Configuration, **_context: Any) -> kopf.ConnectionInfo:
    """The same credentials as everything else uses, for a minute: tokens of ServiceAccounts change."""
    bearer = (await configuration.auth_settings()).get("BearerToken")
    scheme, token = str(bearer["value"]).split(" ", 1) if bearer else ("", "")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        expiration=datetime.now(UTC) + timedelta(seconds=_LOGIN_SECONDS),
    )
