"""Reconciling a ToolRLJob: observe, decide (pure), write the status, then do what it says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from thinkimg.api import ToolRLJob, ToolRLJobStatus, VisionTool, explain, path_of, read_stored
from thinkimg.api.pod_contract import CONTROLLER, Label
from thinkimg.api.server_contract import PORT

from ..apierrors import ApiError, NameTakenError
from ..cache import digest_of
from ..cluster import Cluster
from ..conditions import find_condition, is_true
from ..kinds import Body, Key, controller_of, key_of
from ..metrics import Metrics
from ..settings import Settings
from ..strategic_merge import PatchError
from ..versions import Newer
from ..visiontool.reconcile import parse as parse_tool
from ..visiontool.render import headless_name
from ..workqueue import Requeue
from .attempts import JobSeen, PodSeen, observe_job, observe_pod
from .decision import Decision, decide
from .metrics import JobMetrics, state_of
from .placement import has_its_own_pods
from .progress_logs import ProgressLogs
from .render import (
    ContractError,
    ToolEndpoint,
    claim_name,
    foreign_claims,
    legacy_names,
    render_attempt,
    render_claim,
    render_manifest,
    render_network_policy,
    render_service,
)
from .status import dump, refused, terminal
from .transitions import Transition, misunderstandings, outlived, transitions
from .world import ToolSeen, World

log = logging.getLogger(__name__)

REFUSED_RETRY_SECONDS = 30.0
STALE_RETRY_SECONDS = 0.2
_KEPT_METADATA = ("name", "namespace", "labels", "annotations", "uid", "generation")


class ManifestLostError(Exception):
    """Somebody deleted the manifest of a job that has started, and it cannot be written again as it was."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key}, which the job's first attempt read, is gone, and would be another if written anew")


_REFUSALS = (ApiError, NameTakenError, PatchError, ContractError, ManifestLostError)


class ToolRLJobReconciler:
    """Makes ToolRLJobs true. What it keeps in memory (the last progress line of each job) decides nothing."""

    kind = "ToolRLJob"
    child_kinds = ("Service", "NetworkPolicy", "ConfigMap", "Job")

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        cluster.cache.summarise(self.kind, lambda body: state_of(_status_of(body)))
        self._metrics = JobMetrics(
            metrics.registry, lambda: [seen.summary for _, seen in cluster.cache.of_kind(self.kind)]
        )
        self._image = settings.stage_image
        self._clock = clock
        self._newer = Newer()
        self._logs = ProgressLogs(cluster)
        self._waiting: dict[Key, set[str]] = {}
        """Jobs that wait for tools, with the tools' names: whom to tell when a tool changes. A job that is missing
        here asks again by itself."""

    def interested(self, body: Body) -> Iterable[Key]:
        """Jobs that a change concerns: of a pod, the job in its label (the owner is the attempt's Job); of a tool, all
        jobs that wait for it."""
        namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
        if body["kind"] == "Pod":
            job = body["metadata"].get("labels", {}).get(Label.JOB)
            return [Key(self.kind, namespace, job)] if job else []
        if body["kind"] == "VisionTool":
            return [key for key, tools in self._waiting.items() if key.namespace == namespace and name in tools]
        return []

    async def reconcile(self, key: Key) -> Requeue | None:
        body = await self._cluster.latest(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._forget(key)
            return None  # owner references clean up
        if (body["spec"].get("managedBy") or CONTROLLER) != CONTROLLER:
            return None
        try:
            status = _status_of(body)
        except ValidationError as error:
            self._newer.unreadable(key, str(error))
            return None
        self._newer.look(body, ToolRLJob)
        try:
            job = _parse(body)
        except ValidationError as error:
            message = " ".join(f"{path_of(v.loc)}: {v.message}. {v.remedy}" for v in explain(error, ToolRLJob))
            return await self._refuse(body, "Invalid", message)
        job.status = status
        world, tools = await self._observe(job, key)
        decision = decide(job, world, self._clock())
        if decision.stale:
            return Requeue(STALE_RETRY_SECONDS)
        self._note_waiting(key, job, decision)
        job.status = decision.status  # what follows is made under the names, and of the images, that it says
        pinned = decision.status.pinned
        if decision.create is not None and (status is None or status.start_time is None):
            refusal = await self._refusal(body, job, decision.create, tools)
            if refusal:  # before the job has started, while its spec can still be corrected
                await self._refuse(body, "Refused", refusal)
                return Requeue(REFUSED_RETRY_SECONDS)
            if pinned is not None:
                pinned.manifest_digest = digest_of(render_manifest(job, tools)["data"])
        await self._tell(body, transitions(status, decision.status))
        await self._tell(body, misunderstandings(status, decision.status, world.pods))
        await self._tell(body, outlived(status, decision.status, world.pods))
        if await self._cluster.patch_status(body, dump(decision.status), keep=not terminal(decision.status)):
            self._metrics.observe(status, decision.status, self._clock())
        return await self._act(body, job, decision, tools)

    def _forget(self, key: Key) -> None:
        self._logs.forget(key)
        self._waiting.pop(key, None)

    def _note_waiting(self, key: Key, job: ToolRLJob, decision: Decision) -> None:
        if any(c.type == "ToolsReady" and c.status == "False" for c in decision.status.conditions):
            self._waiting[key] = {tool.name for tool in job.spec.tools}
        else:
            self._waiting.pop(key, None)

    # ---- observe ----------------------------------------------------------------------------------------------------

    async def _observe(self, job: ToolRLJob, key: Key) -> tuple[World, list[VisionTool]]:
        """The world, read from the API server and not from memory: whether old pods are gone must not be guessed."""
        ours = f"{Label.JOB_UID}={job.metadata.uid}"
        jobs: list[JobSeen] = []
        pods: list[PodSeen] = []
        if job.status is not None:  # else nothing was ever made for it: a status is written before anything else
            jobs = [observe_job(body) async for body in self._cluster.list("Job", key.namespace, labels=ours)]
            pods = [observe_pod(body) async for body in self._cluster.list("Pod", key.namespace, labels=ours)]
        world = World(jobs=jobs, pods=pods, default_image=self._image, taken=await self._taken(job, key.namespace))
        if terminal(job.status):
            return world, []
        running = next((s for s in job.status.stages if s.state != "Succeeded"), None) if job.status else None
        if running is not None and running.state == "Running":
            master = next(
                (p for p in pods if (p.stage, p.attempt, p.index) == (running.name, running.attempt, 0)), None
            )
            world = replace(world, progress=await self._logs.latest(key, running.name, master))
            ended: list[JobSeen | PodSeen] = [
                *(seen for seen in jobs if seen.complete),
                *(pod for pod in pods if pod.succeeded),
            ]
            if not any(seen.stage == running.name for seen in ended):
                return world, []  # no next stage begins, and nobody asks for the tools
        bodies = {
            tool.name: await self._cluster.get(Key("VisionTool", key.namespace, tool.name)) for tool in job.spec.tools
        }
        known = {name: body for name, body in bodies.items() if body is not None}
        names: list[str] = []
        if len(known) < len(bodies):
            names = [body["metadata"]["name"] async for body in self._cluster.list("VisionTool", key.namespace)]
        missing = [
            claim
            for claim in foreign_claims(job)
            if await self._cluster.get(Key("PersistentVolumeClaim", key.namespace, claim)) is None
        ]
        code = job.spec.code.config_map_ref.name if job.spec.code else ""
        if code and await self._cluster.get(Key("ConfigMap", key.namespace, code)) is not None:
            code = ""
        seen_tools = {name: _see_tool(name, body) for name, body in known.items()}
        world = replace(world, tools=seen_tools, known_tools=names, missing_claims=missing, missing_code=code)
        return world, [tool for body in known.values() if (tool := _parse_tool(body)) is not None]

    async def _taken(self, job: ToolRLJob, namespace: str) -> frozenset[str]:
        """Kinds of the children from before names had the uid whose names are somebody else's; nobody else asks."""
        if job.status is None or job.status.start_time is None or job.status.names or terminal(job.status):
            return frozenset()
        old = legacy_names(job)
        names = {"Service": old.service, "NetworkPolicy": old.service, "ConfigMap": old.manifest}
        found = {kind: await self._cluster.get(Key(kind, namespace, name)) for kind, name in names.items()}
        return frozenset(kind for kind, body in found.items() if body and controller_of(body) != job.metadata.uid)

    # ---- write ------------------------------------------------------------------------------------------------------

    async def _tell(self, body: Body, happened: Iterable[Transition]) -> None:
        for transition in happened:
            await self._cluster.event(
                body, transition.reason, transition.note, occurrence=transition.occurrence, warning=transition.warning
            )

    async def _refuse(self, body: Body, reason: str, message: str) -> Requeue | None:
        before = _status_of(body)
        after = refused(before, reason, message, body["metadata"].get("generation", 0), self._clock())
        await self._tell(body, transitions(before, after))
        await self._cluster.patch_status(body, dump(after))
        return None

    async def _refusal(self, body: Body, job: ToolRLJob, first: tuple[str, int], tools: Sequence[VisionTool]) -> str:
        """Why the API server would refuse the first attempt, or one of a stage whose pods are placed by themselves, or
        whose name is taken; empty when all can be made."""
        attempts = [first, *((s.name, 1) for s in job.spec.stages if s.name != first[0] and has_its_own_pods(s))]
        try:
            for child in (render_service(job), render_network_policy(job), render_manifest(job, tools)):
                await self._cluster.check_name(child, body)
            for attempt in attempts:
                rendered = render_attempt(job, *attempt, [_endpoint(tool) for tool in tools], self._image)
                await self._cluster.check_create(rendered, body)
        except _REFUSALS as error:
            if not _is_final(error):
                raise
            return _advice(error)
        return ""

    async def _act(self, body: Body, job: ToolRLJob, decision: Decision, tools: Sequence[VisionTool]) -> Requeue | None:
        namespace = body["metadata"]["namespace"]
        for seen in decision.delete_jobs:
            # Foreground: the Job is gone only when its pods are.
            await self._delete(Key("Job", namespace, seen.name), seen.uid, propagation="Foreground")
        for pod in decision.delete_pods:
            await self._delete(Key("Pod", namespace, pod.name), pod.uid)
        for pod in decision.force_pods:
            log.warning("pod %s/%s is removed by force: nothing confirms its end", namespace, pod.name)
            note = f"pod {pod.name} was removed by force: its node has not confirmed its end"
            await self._cluster.event(body, "PodForceDeleted", note, occurrence=pod.uid, warning=True)
            await self._delete(Key("Pod", namespace, pod.name), pod.uid, grace_seconds=0)
        if decision.delete_self:
            await self._delete(Key(self.kind, namespace, job.name), body["metadata"]["uid"])
            return None
        if any(stage.state == "Running" for stage in decision.status.stages):
            for child in (render_service(job), render_network_policy(job)):  # ranks find and reach each other by them
                await self._cluster.apply(child, owner=body)
        if decision.create is not None:
            try:
                if not await self._create(body, job, *decision.create, tools):
                    return Requeue(STALE_RETRY_SECONDS)
            except _REFUSALS as error:
                if not _is_final(error):
                    raise
                current = await self._cluster.get(Key(self.kind, namespace, job.name))
                if current is not None:
                    await self._refuse(current, "Refused", _advice(error))
                return Requeue(REFUSED_RETRY_SECONDS)
        return None if decision.requeue_after is None else Requeue(decision.requeue_after)

    async def _delete(self, key: Key, uid: str, **options: Any) -> None:
        try:
            await self._cluster.delete(key, uid=uid, **options)
        except ApiError as error:
            if not error.conflict:  # another object of that name: the one that was meant is gone
                raise

    async def _create(self, body: Body, job: ToolRLJob, stage: str, attempt: int, tools: Sequence[VisionTool]) -> bool:
        """Make the Job of an attempt and what its pods need. False when meanwhile the job says something else."""
        namespace = body["metadata"]["namespace"]
        attempt_body = render_attempt(job, stage, attempt, [_endpoint(tool) for tool in tools], self._image)
        for child in (render_service(job), render_network_policy(job)):
            self._cluster.cache.forget(key_of(child))  # nobody watches them: what is remembered may be gone
            await self._cluster.apply(child, owner=body)
        await self._write_manifest(body, job, tools)
        claim = render_claim(job)
        key = Key("PersistentVolumeClaim", namespace, claim_name(job))
        if claim is not None and await self._cluster.get(key) is None:
            owner = body if job.spec.storage.retention_policy == "Delete" else None
            await self._cluster.create(claim, owner=owner)
        current = await self._cluster.get(Key(self.kind, namespace, job.name))
        if current is None or not _wants(current, body["metadata"]["uid"], stage, attempt):
            return False
        await self._cluster.create(attempt_body, owner=body)
        return True

    async def _write_manifest(self, body: Body, job: ToolRLJob, tools: Sequence[VisionTool]) -> None:
        """Once: it stays as it is for all attempts.

        Raises:
            ManifestLostError: it is gone, and this version would write another.
        """
        manifest = render_manifest(job, tools)
        key = key_of(manifest)
        wanted = job.status.pinned.manifest_digest if job.status and job.status.pinned else ""
        if wanted not in ("", digest_of(manifest["data"])) and await self._cluster.get(key) is None:
            raise ManifestLostError(key)
        await self._cluster.create(manifest, owner=body)


def _wants(body: Body, uid: str, stage: str, attempt: int) -> bool:
    """Whether the job, read again, still waits for this attempt to begin."""
    metadata, status = body["metadata"], _status_of(body)
    if metadata["uid"] != uid or "deletionTimestamp" in metadata or status is None or terminal(status):
        return False
    stands = next((seen for seen in status.stages if seen.name == stage), None)
    waits = stands is not None and stands.attempt == attempt and stands.state in ("Pending", "Restarting")
    return waits and not body["spec"].get("suspend")


def _parse(body: Body) -> ToolRLJob:
    metadata = {name: body["metadata"][name] for name in _KEPT_METADATA if name in body["metadata"]}
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body["spec"]}
    return read_stored(ToolRLJob, document)


def _status_of(body: Body) -> ToolRLJobStatus | None:
    status = body.get("status")
    return read_stored(ToolRLJobStatus, status) if status else None


def _parse_tool(body: Body) -> VisionTool | None:
    """None when it is not valid; then it is not Available either."""
    try:
        return parse_tool(body)
    except ValidationError:
        return None


def _see_tool(name: str, body: Body) -> ToolSeen:
    condition = find_condition(body, "Available")
    accepted = find_condition(body, "Accepted")
    worst = accepted if accepted and accepted["status"] == "False" else condition
    return ToolSeen(name, is_true(body, "Available"), worst.get("message", "") if worst else "")


def _endpoint(tool: VisionTool) -> ToolEndpoint:
    """All ready servers of the tool by one name: stages balance their calls themselves."""
    url = f"dns+http://{headless_name(tool)}.{tool.metadata.namespace or ''}.svc:{PORT}"
    return ToolEndpoint(tool.name, url, tool.spec.auth.secret_ref if tool.spec.auth else None)


def _is_final(error: Exception) -> bool:
    """Whether somebody has to change something before it can succeed."""
    return not isinstance(error, ApiError) or error.refused or error.forbidden or error.reason == "AlreadyExists"


def _advice(error: Exception) -> str:
    """What the API server said, and what to do."""
    if isinstance(error, NameTakenError):
        return f"{error}. Delete that {error.key.kind}, or rename the job."
    if isinstance(error, ApiError) and error.reason == "AlreadyExists":
        return f"{error.message}, and it is somebody else's. Delete it, or rename the job."
    if isinstance(error, ContractError):
        return str(error)
    if isinstance(error, ManifestLostError):
        return f"{error}. Restore it from a backup, or delete the job and apply a new one."
    said = error.message if isinstance(error, ApiError) else str(error)
    return f"{said.rstrip('.')}. Correct the job, or what forbids it."
