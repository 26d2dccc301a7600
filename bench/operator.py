"""The operator under load, on a real API server: how near it comes to a bare writer of the same objects, and its cost.

    python -P bench/operator.py [--tools 1000,5000] [--jobs 200] [--jobs-runs 3] [--kopf-tools 200] [--idle-seconds 60]

For each number of VisionTools: 16 tasks of a plain HTTP client write the children and a status of as many tools (no
watch, no decision, no check), then the operator does the same for tools of its own. Each has a control plane of its
own: one that has seen a thousand tools come and go is slower for whoever writes next. Fewer than 3,000 tools have a pod
each, which starts on a simulated node, and are compared three times; the middle comparison counts. More have none.
`writes_ratio` is the operator's writes per second over the writer's, taken from the audit log between first write and
last first status; `cpu_ms` is what the operator itself used for a tool. After the largest number: memory, start-up with
everything there, requests that write in a resync with nothing to do, CPU at rest. The tools stand in namespaces of a
hundred: Kubernetes' own controllers look at all objects of a namespace for each of its Deployments, and thousands in
one would measure them.

`rate_1000_without_pods` is there to compare like with like: the mean of one run just before the largest number and one
just after it, so that a machine that gets faster or slower meanwhile counts half.

`jobs_ready_ratio`: seconds until all pods of ToolRLJobs of eight pods are ready on simulated nodes, over those of the
same Jobs created by themselves, in the middle one of three runs. Beside it, not gated: the same tools by an operator in
kopf's documented style (synchronous create and update handlers with the official client). The last line is one JSON
object.

`-P`, because this file has the name of a module of Python's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY / "hack" / "cluster"), str(REPOSITORY)]

import controlplane  # noqa: E402
from thinkimg_operator.kinds import KINDS, Body, key_of  # noqa: E402
from thinkimg_operator.ownership import stamp  # noqa: E402
from thinkimg_operator.settings import Settings  # noqa: E402
from thinkimg_operator.visiontool.reconcile import parse  # noqa: E402
from thinkimg_operator.visiontool.render import render  # noqa: E402
from thinkimg_operator.visiontool.status import status_of  # noqa: E402

from tests.support.cluster.joblab import JOBS, Lab, job, sft  # noqa: E402
from tests.support.cluster.shipped_access import ACCOUNT, grant, grant_everywhere  # noqa: E402
from tests.support.cluster.testcluster import Cluster, Namespace  # noqa: E402

TASKS = 16
TOOLS_OF_A_NAMESPACE = 100
PODS_OF_A_JOB = 8
RUNS, LARGE = 3, 3000
"""Fewer tools than the second number have pods, and are compared as often as the first says: half a minute alone says
little on a machine that others use too."""
TOOLS_OF_A_NODE = 50
WRITES = {"create", "update", "patch", "delete"}


def tool(index: int, namespace: str, replicas: int) -> Body:
    return {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "VisionTool",
        "metadata": {"name": f"tool-{index:05}", "namespace": namespace},
        "spec": {"tool": "OCR", "replicas": replicas, "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
    }


class Writer:
    """A plain HTTP client with 16 tasks: the fastest that one Python process writes to this API server."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.plane
        self.url = cluster.plane.url
        config = json.loads(cluster.kubeconfig.read_text())
        self.headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}", "User-Agent": "bare-writer"}

    async def each(self, items: list[Any], action: Any) -> float:
        """Seconds until `action(session, item)` is done for all."""
        started = time.monotonic()
        left = iter(items)
        connector = aiohttp.TCPConnector(ssl=False, limit=TASKS)
        async with aiohttp.ClientSession(connector=connector, headers=self.headers) as session:

            async def work() -> None:
                for item in left:
                    await action(session, item)

            await asyncio.gather(*(work() for _ in range(TASKS)))
        return time.monotonic() - started

    async def send(self, session: aiohttp.ClientSession, method: str, path: str, body: Body, kind: str) -> Body:
        headers = {"Content-Type": f"application/{kind}"}
        async with session.request(method, f"{self.url}{path}", data=json.dumps(body), headers=headers) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text)

    async def create(self, session: aiohttp.ClientSession, body: Body) -> Body:
        return await self.send(session, "POST", KINDS[body["kind"]].path(body["metadata"]["namespace"]), body, "json")

    async def fill(self, session: aiohttp.ClientSession, writes: list[Write]) -> None:
        """Children and status of one tool."""
        for path, body, kind in writes:
            await self.send(session, "PATCH", path, body, kind)


Write = tuple[str, Body, str]
"""Path, body, and kind of patch."""


def writes_of(body: Body) -> list[Write]:
    """All that is written for one tool, made before the clock starts."""
    resource = parse(body)
    found: list[Write] = []
    for child in render(resource, Settings()):
        stamped = stamp(child, body)
        key = key_of(stamped)
        path = f"{KINDS[key.kind].path(key.namespace, key.name)}?fieldManager=bare&force=true"
        found.append((path, stamped, "apply-patch+yaml"))
    status = status_of(resource, "image", 1, None, None, {}, datetime.now().astimezone())
    path = KINDS["VisionTool"].path(body["metadata"]["namespace"], body["metadata"]["name"], "status")
    return [*found, (path, {"status": status}, "merge-patch+json")]


def bare_rate(cluster: Cluster, spaces: Sequence[Namespace], count: int, replicas: int) -> float:
    """Writes per second of the bare writer, for `count` tools."""
    writer = Writer(cluster)
    prepared: list[list[Write]] = []

    async def create(session: aiohttp.ClientSession, index: int) -> None:
        prepared.append(writes_of(await writer.create(session, tool(index, _home(spaces, index), replicas))))

    asyncio.run(writer.each(list(range(count)), create))
    seconds = asyncio.run(writer.each(prepared, writer.fill))
    return sum(len(writes) for writes in prepared) / seconds


def _home(spaces: Sequence[Namespace], index: int) -> str:
    return spaces[index // TOOLS_OF_A_NAMESPACE].name


class Running:
    """An operator process and what it tells of itself."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.address = ""

    def metric(self, name: str) -> float:
        """Sum over all labels; 0 while nothing answers."""
        if not self.address:
            lines = self.log.read_text().splitlines()
            said = next((line for line in lines if "probes and metrics at" in line), "")
            self.address = json.loads(said)["event"].rpartition(" ")[2] if said else ""
        try:
            with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30) as page:
                text = page.read().decode()
        except (OSError, ValueError):
            return 0.0
        found = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def memory(self) -> float:
        """Resident megabytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    def cpu(self) -> float:
        """Seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def operator(cluster: Cluster, namespace: Namespace, arguments: list[str]) -> Iterator[Running]:
    kubeconfig = cluster.service_account_kubeconfig(namespace.name, ACCOUNT)
    log = cluster.folder / f"operator-{time.monotonic_ns()}.log"
    command = [str(Path(sys.executable).with_name("thinkimg-operator")), "run", *arguments]
    with log.open("wb") as out:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield Running(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait(what: str, done: Any, seconds: float) -> float:
    """Seconds until `done()`; asked once a second, as asking costs what is measured."""
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(1)
    return time.monotonic() - started


def writes(cluster: Cluster, agent: str, spaces: Sequence[Namespace]) -> list[Body]:
    """Audited writes of a user agent in some namespaces; leases are the election's business."""
    names = {space.name for space in spaces}
    return [
        event
        for event in cluster.audit()
        if event["verb"] in WRITES
        and event.get("userAgent", "").startswith(agent)
        and event.get("objectRef", {}).get("namespace") in names
        and event["objectRef"]["resource"] != "leases"
    ]


def moment(event: Body) -> float:
    return datetime.fromisoformat(event["stageTimestamp"].replace("Z", "+00:00")).timestamp()


def our_rate(cluster: Cluster, spaces: Sequence[Namespace], count: int) -> tuple[float, float]:
    """Writes and tools per second of the operator, from its first write to the last tool's first status."""
    found = writes(cluster, "thinkimg-operator", spaces)
    first_status: dict[tuple[str, str], float] = {}
    for event in found:
        if event["objectRef"]["resource"] == "visiontools":
            first_status.setdefault((event["objectRef"]["namespace"], event["objectRef"]["name"]), moment(event))
    assert len(first_status) == count, f"{len(first_status)} of {count} tools have a status"
    start, end = min(moment(event) for event in found), max(first_status.values())
    seconds = end - start
    return sum(moment(event) <= end for event in found) / seconds, count / seconds


@contextlib.contextmanager
def fresh_plane(count: int, replicas: int) -> Iterator[tuple[Cluster, list[Namespace]]]:
    """A control plane with the namespaces of `count` tools, and nodes where they have pods."""
    nodes = -(-count // TOOLS_OF_A_NODE) if replicas else 0
    with control_plane(nodes) as cluster, contextlib.ExitStack() as stack:
        homes = -(-count // TOOLS_OF_A_NAMESPACE)
        yield cluster, [stack.enter_context(cluster.namespace("tools")) for _ in range(homes)]


def measure(count: int, idle_seconds: float, *, thorough: bool) -> dict[str, Any]:
    """One number of tools, with the middle one of some comparisons; `thorough` adds what is measured with everything
    there."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    replicas, runs = (0, 1) if count >= LARGE else (1, RUNS)
    for left in reversed(range(runs)):
        with fresh_plane(count, replicas) as (cluster, bare):
            bare_writes = bare_rate(cluster, bare, count, replicas)
        with by_operator(count, replicas) as (cluster, ours, access, result):
            result["bare_writes_per_second"] = round(bare_writes, 1)
            result["writes_ratio"] = round(result["writes_per_second"] / bare_writes, 3)
            print(f"{count} tools of {replicas} pods: {result}", flush=True)
            found.append(result)
            if thorough and not left:
                more = with_everything_there(cluster, ours, access, count, idle_seconds)
    middle = sorted(found, key=lambda result: result["writes_ratio"])[len(found) // 2]
    return {**middle, **more, "rss_mb": max(result["rss_mb"] for result in [*found, more] if result)}


def rate_without_pods(count: int) -> float:
    """Tools per second of the operator alone."""
    with by_operator(count, 0) as (_, _, _, result):
        print(f"{count} tools of 0 pods: {result}", flush=True)
        return float(result["rate"])


@contextlib.contextmanager
def by_operator(count: int, replicas: int) -> Iterator[tuple[Cluster, list[Namespace], list[str], dict[str, Any]]]:
    """Tools that the operator brought to a status: their control plane, its namespaces, the operator's arguments and
    what was measured, while they last."""
    with fresh_plane(count, replicas) as (cluster, ours):
        access = grant_everywhere(ours[0])
        writer = Writer(cluster)
        bodies = [tool(index, _home(ours, index), replicas) for index in range(count)]
        asyncio.run(writer.each(bodies, writer.create))
        with operator(cluster, ours[0], access) as process:
            what = f"{count} tools settled"
            wait(what, lambda: process.metric("workqueue_adds_total") >= count and _quiet(process), 1200)
            our_writes, tools = our_rate(cluster, ours, count)
            result = {
                "writes_per_second": round(our_writes, 1),
                "rate": round(tools, 1),
                "cpu_ms": round(process.cpu() / count * 1000, 1),
                "rss_mb": process.memory(),
            }
        yield cluster, ours, access, result


def with_everything_there(
    cluster: Cluster, ours: Sequence[Namespace], access: list[str], count: int, idle_seconds: float
) -> dict[str, Any]:
    """Start-up, a resync with nothing to do, and rest."""
    result: dict[str, Any] = {}
    started = time.monotonic()
    with operator(cluster, ours[0], [*access, f"--resync-seconds={idle_seconds / 2}"]) as process:
        reconciled = "controller_runtime_reconcile_total"
        wait("everything was looked at", lambda: process.metric(reconciled) >= count and _quiet(process), 600)
        result["startup_s"] = round(time.monotonic() - started, 1)
        before, resyncs = len(writes(cluster, "thinkimg-operator", ours)), process.metric("thinkimg_resyncs_total")
        wait("a resync", lambda: process.metric("thinkimg_resyncs_total") > resyncs and _quiet(process), 600)
        result["resync_writes"] = len(writes(cluster, "thinkimg-operator", ours)) - before
        result["rss_mb"] = process.memory()
    with operator(cluster, ours[0], access) as process:
        wait("everything was looked at", lambda: process.metric(reconciled) >= count and _quiet(process), 600)
        used, since = process.cpu(), time.monotonic()
        time.sleep(idle_seconds)
        result["idle_core"] = round((process.cpu() - used) / (time.monotonic() - since), 4)
    return result


def _quiet(process: Running) -> bool:
    return process.metric("workqueue_depth") == 0 and process.metric("controller_runtime_active_workers") == 0


def jobs_ready_ratio(count: int, runs: int) -> float:
    """The middle one of some runs, of which each takes little more than a minute: one alone says little on a machine
    that others use too."""
    return statistics.median(_jobs_ready_ratio(count) for _ in range(runs))


def _jobs_ready_ratio(count: int) -> float:
    """Time until all pods of `count` ToolRLJobs are ready, over that of the same Jobs without an operator, each in a
    control plane of its own: trainers have minutes to end in, and would still be there."""
    nodes = -(-count * PODS_OF_A_JOB // 100)
    with control_plane(nodes) as cluster, cluster.namespace("jobs") as ours:
        Lab(ours).prepare()
        with operator(cluster, ours, grant(ours)) as process:
            wait("the operator leads", lambda: process.metric("leader_election_master_status") == 1, 60)
            bodies = [job(f"job-{index:03}", sft(nodes=PODS_OF_A_JOB)) for index in range(count)]
            with_operator = _until_ready(cluster, ours, JOBS.format(ours.name), bodies)
        made = ours.list("jobs")
    with control_plane(nodes) as cluster, cluster.namespace("plain") as plain:
        Lab(plain).prepare()
        path = f"/apis/batch/v1/namespaces/{plain.name}/jobs"
        alone = _until_ready(cluster, plain, path, [_as_new(body) for body in made])
    print(f"{count} jobs of {PODS_OF_A_JOB} pods: {with_operator:.1f} s, as plain Jobs {alone:.1f} s", flush=True)
    return round(with_operator / alone, 3)


@contextlib.contextmanager
def control_plane(nodes: int = 0) -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster.started(Path(folder) / "plane", controlplane.Options(nodes=nodes)) as cluster,
    ):
        yield cluster


def _until_ready(cluster: Cluster, namespace: Namespace, path: str, bodies: Sequence[Body]) -> float:
    """Seconds from the first request that creates one of the bodies until all pods of the namespace are ready."""
    writer = Writer(cluster)

    async def create(session: aiohttp.ClientSession, body: Body) -> None:
        await writer.send(session, "POST", path, body, "json")

    def ready() -> bool:
        counts = [body.get("status", {}).get("ready", 0) for body in namespace.list("jobs")]
        return sum(counts) == len(bodies) * PODS_OF_A_JOB

    started = time.monotonic()
    asyncio.run(writer.each(list(bodies), create))
    wait("all pods are ready", ready, 1200)
    return time.monotonic() - started


def _as_new(made: Body) -> Body:
    """A Job as it was before the API server and an owner had it."""
    template = made["spec"]["template"]
    spec = {name: value for name, value in made["spec"].items() if name != "selector"}
    spec["template"] = {**template, "metadata": _own(template["metadata"])}
    metadata = {"name": made["metadata"]["name"], **_own(made["metadata"])}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _own(metadata: Body) -> Body:
    """Labels and annotations, without those that the API server gives to a Job and its pods."""
    labels = metadata.get("labels", {})
    given = ("controller-uid", "job-name")
    kept = {name: value for name, value in labels.items() if not name.endswith(given)}
    return {"labels": kept, "annotations": metadata.get("annotations", {})}


KOPF = """
import kopf, kubernetes
from thinkimg_operator.settings import Settings
from thinkimg_operator.visiontool.reconcile import parse
from thinkimg_operator.visiontool.render import render

kubernetes.config.load_kube_config()
API = kubernetes.client.ApiClient()
POST = {
    "Deployment": kubernetes.client.AppsV1Api(API).create_namespaced_deployment,
    "Service": kubernetes.client.CoreV1Api(API).create_namespaced_service,
    "NetworkPolicy": kubernetes.client.NetworkingV1Api(API).create_namespaced_network_policy,
}

@kopf.on.create("thinkimg.dev", "v1alpha1", "visiontools")
def create(body, namespace, patch, **_):
    for child in render(parse(dict(body)), Settings()):
        kopf.adopt(child)
        POST[child["kind"]](namespace, child)
    patch.status["url"] = "http://" + body["metadata"]["name"]
"""


def kopf_rate(count: int) -> float:
    """Tools per second of an operator as kopf's tutorial writes it."""
    with control_plane() as cluster, cluster.namespace("kopf") as namespace:
        writer = Writer(cluster)
        asyncio.run(writer.each([tool(index, namespace.name, 0) for index in range(count)], writer.create))
        script, log = cluster.folder / "kopf_style.py", cluster.folder / "kopf_style.log"
        script.write_text(KOPF)
        command = [str(Path(sys.executable).with_name("kopf")), "run", f"--namespace={namespace.name}", str(script)]
        with log.open("wb") as out:
            environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:

            def urls() -> int:
                return sum("url" in item.get("status", {}) for item in namespace.list("visiontools"))

            wait(f"{count} tools have a status; its log is {log}", lambda: urls() == count, 900)
            found = [
                event
                for event in cluster.audit()
                if event["verb"] in WRITES
                and event.get("objectRef", {}).get("namespace") == namespace.name
                and "kopf" in event.get("userAgent", "")
            ]
            statuses = [moment(event) for event in found if event["objectRef"]["resource"] == "visiontools"]
            return round(count / (max(statuses) - min(statuses)), 1)
        finally:
            process.terminate()
            process.wait(timeout=60)


def counts(text: str) -> list[int]:
    return sorted(int(part) for part in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=counts, default="1000,5000", metavar="COUNT[,COUNT…]")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--jobs-runs", type=int, default=3)
    parser.add_argument("--kopf-tools", type=int, default=200)
    parser.add_argument("--idle-seconds", type=float, default=60)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    smallest, largest = given.tools[0], given.tools[-1]
    without_pods: list[float] = []
    for count in given.tools:
        if smallest < LARGE <= count:
            without_pods.append(rate_without_pods(smallest))
        measured = measure(count, given.idle_seconds, thorough=count == largest)
        found |= {f"{name}_{count}": measured.pop(name) for name in ("rate", "cpu_ms", "writes_ratio")}
        found |= measured
    if without_pods:
        without_pods.append(rate_without_pods(smallest))
        found[f"rate_{smallest}_without_pods"] = round(statistics.mean(without_pods), 1)
    if given.kopf_tools:
        found["plain_kopf"] = kopf_rate(given.kopf_tools)
    if given.jobs:
        found["jobs_ready_ratio"] = jobs_ready_ratio(given.jobs, given.jobs_runs)
    found["writes_ratio"] = min(found[f"writes_ratio_{count}"] for count in given.tools)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
