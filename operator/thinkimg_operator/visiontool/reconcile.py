"""Reconciliation of one VisionTool: render, apply what differs, remove what is left over, write the status once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from thinkimg.api import Problem, VisionTool, VisionToolStatus, explain, path_of, read_stored

from ..apierrors import ApiError, NameTakenError
from ..cluster import Cluster
from ..conditions import find_condition, parse_timestamp
from ..kinds import Body, Key, key_of
from ..settings import Settings
from ..strategic_merge import PatchError
from ..versions import Newer
from ..workqueue import Priority, Requeue
from .render import (
    claims_of,
    headless_name,
    image_of,
    plain_headless_name,
    render,
    selector_of,
    yielded_headless_name,
)
from .status import (
    PROBLEMS,
    DeploymentState,
    PodProblem,
    Refusal,
    deployment_state,
    missing_claim,
    pod_problem,
    refused_status,
    status_of,
)
from .upgrades import Held, held, is_called, uses

_PATIENCE_SECONDS = 4.0
"""A roll-out that takes longer has its pods looked at."""
_LOOK_AGAIN_SECONDS = 5.0
_REFUSED_AGAIN_SECONDS = 30.0
"""Quotas and policies change without an event for us."""


class VisionToolReconciler:
    """VisionTool → Deployment and Services, and budget, autoscaler, policy and monitor where they are wanted."""

    kind = "VisionTool"

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        kinds = ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"]
        self.child_kinds = [*kinds, *(["ServiceMonitor"] if settings.service_monitors else [])]
        cluster.cache.summarise("Deployment", deployment_state)
        self._newer = Newer()
        self._held: set[Key] = set()
        """Tools that keep an image or a name for jobs: they are looked at again when such a job changes."""

    def interested(self, body: Body) -> Iterable[Key]:
        """Tools whose jobs change, and the tool whose Service has the name of another tool."""
        namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
        if body["kind"] == "ToolRLJob":
            return [key for key in self._held if key.namespace == namespace and uses(body, key.name)]
        if body["kind"] == "VisionTool" and name.endswith("-pods"):
            other = Key(self.kind, namespace, name.removesuffix("-pods"))
            return [other] if self._cluster.cache.get(other) else []
        return []

    async def reconcile(self, key: Key) -> Requeue | None:
        body = await self._cluster.latest(key)
        if body is None:
            self._cluster.cache.forget(key)
            self._held.discard(key)
            return None
        if "deletionTimestamp" in body["metadata"]:  # owner references do the rest
            return None
        self._newer.look(body, VisionTool)
        outcome = await self._make_true(body)
        if isinstance(outcome, Refusal):
            status = refused_status(outcome, _generation(body), body.get("status") or {}, datetime.now(UTC))
            await self._say(body, status)
            return Requeue(_REFUSED_AGAIN_SECONDS) if outcome.reason != "Invalid" else None
        return await self._report(body, *outcome)

    async def _make_true(self, body: Body) -> tuple[VisionTool, Held | None] | Refusal:
        """Apply the children; or why that cannot be done, which is somebody's to correct."""
        try:
            tool = self._named(parse(body))
            keeps = await held(self._cluster, body, tool, self._settings)
            children = render(tool, self._settings_for(tool, keeps))
        except ValidationError as error:
            return Refusal("Invalid", _explained(error, body))
        except PatchError as error:
            return Refusal("Invalid", f"spec.{error}.")
        try:
            for child in children:
                await self._cluster.apply(child, body)
        except NameTakenError as error:
            message = f"{error}. Delete that {error.key.kind}, or rename the tool."
            return Refusal("NameTaken", message)
        except ApiError as error:
            if error.refused or error.forbidden:
                return Refusal(
                    "Refused", f"The API server refuses the tool's {_refused_object(child)}: {error.message}"
                )
            raise
        clean = await self._remove_leftovers(body["metadata"]["uid"], {key_of(child) for child in children})
        (self._held.discard if clean and keeps is None else self._held.add)(key_of(body))
        return tool, keeps

    def _named(self, tool: VisionTool) -> VisionTool:
        """With the name of its headless Service: another one once there is a tool that needs the plain one."""
        name, namespace = headless_name(tool), tool.metadata.namespace or ""
        if name == plain_headless_name(tool.name) and self._cluster.cache.get(Key(self.kind, namespace, name)):
            name = yielded_headless_name(tool)
        status = tool.status or VisionToolStatus()
        return tool.model_copy(update={"status": status.model_copy(update={"servers_service": name})})

    def _settings_for(self, tool: VisionTool, keeps: Held | None) -> Settings:
        if keeps is None:
            return self._settings
        return self._settings.with_tool_image(tool.spec.tool, tool.spec.backend, keeps.image)

    async def _remove_leftovers(self, uid: str, wanted: set[Key]) -> bool:
        """Whether all are gone. An attempt keeps the name under which it finds the servers until it ends."""
        clean = True
        cache = self._cluster.cache
        for key in cache.children(uid):
            seen = cache.get(key)
            if key not in wanted and key.kind in self.child_kinds and seen is not None and not seen.deleting:
                if key.kind == "Service" and await is_called(self._cluster, key.namespace, key.name):
                    clean = False
                    continue
                await self._cluster.delete(key, uid=seen.uid)
        return clean

    async def _report(self, body: Body, tool: VisionTool, keeps: Held | None) -> Requeue | None:
        """Write the status; look again while the roll-out is under way."""
        key = key_of(body)
        seen = self._cluster.cache.get(Key("Deployment", key.namespace, key.name))
        state: DeploymentState | None = seen.summary if seen else None
        previous = body.get("status") or {}
        now = datetime.now(UTC)
        problem: PodProblem | None = None
        again: Requeue | None = None
        if state is None or not state.settled:
            waited = _seconds_in_progress(body, now)
            after = max(_PATIENCE_SECONDS - waited, 0.1) if waited < _PATIENCE_SECONDS else _LOOK_AGAIN_SECONDS
            again = Requeue(after, Priority.NEWS)  # tools that nobody has looked at yet go first
            if waited >= _PATIENCE_SECONDS:
                problem = await self._problem(tool, key)
        image = image_of(tool.spec, self._settings_for(tool, keeps))
        status = status_of(tool, image, _generation(body), state, problem, previous, now, keeps)
        await self._say(body, status, keep=again is not None)
        return again

    async def _problem(self, tool: VisionTool, key: Key) -> PodProblem | None:
        """Why the tool's pods wait. The scheduler says `Unschedulable` of a claim that does not exist, too."""
        pods = self._cluster.list("Pod", key.namespace, labels=selector_of(key.name))
        problem = pod_problem([pod async for pod in pods])
        if problem is None or problem.reason != "Unschedulable":
            return problem
        for claim in claims_of(tool.spec):
            if await self._cluster.get(Key("PersistentVolumeClaim", key.namespace, claim)) is None:
                return missing_claim(claim)
        return problem

    async def _say(self, body: Body, status: Mapping[str, Any], *, keep: bool = False) -> None:
        """Events first: a crash in between says them again, under the same names, and loses none."""
        for reason, note, warning, occurrence in transitions(body, status):
            await self._cluster.event(body, reason, note, occurrence=occurrence, warning=warning)
        await self._cluster.patch_status(body, status, keep=keep)


def parse(body: Body) -> VisionTool:
    """The resource as the API has it; what only the API server writes is left out. Raises `ValidationError`."""
    metadata = {name: body["metadata"][name] for name in ("name", "namespace", "uid") if name in body["metadata"]}
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body["spec"]}
    tool = read_stored(VisionTool, document)
    service = (body.get("status") or {}).get("serversService", "")
    return tool.model_copy(update={"status": VisionToolStatus(servers_service=service)})


def transitions(body: Body, status: Mapping[str, Any]) -> list[tuple[str, str, bool, str]]:
    """Events to record before `status` is written: reason, note, whether it is a warning, and what makes it unique.

    A tool that is refused, that gets or loses its last ready server, or whose pods have a problem.
    """
    found = []
    for condition in status["conditions"]:
        before = find_condition(body, condition["type"]) or {}
        same = (before.get("status"), before.get("reason")) == (condition["status"], condition["reason"])
        if same and (condition["type"] != "Accepted" or before.get("message") == condition["message"]):
            continue
        occurrence = f"{condition['observedGeneration']} {before.get('lastTransitionTime')} {before.get('reason')}"
        type_, reason, message = condition["type"], condition["reason"], condition["message"]
        if type_ == "Accepted" and condition["status"] == "False":
            found.append((reason, message, True, occurrence))
        elif type_ == "Available" and condition["status"] == "True" and before.get("status") != "True":
            found.append((reason, message, False, occurrence))
        elif type_ == "Available" and before.get("status") == "True" and condition["status"] == "False":
            found.append((reason, message, reason == "NoServerReady", occurrence))
        elif type_ == "Progressing" and reason in PROBLEMS:
            found.append((reason, message, True, occurrence))
    return found


def _generation(body: Body) -> int:
    return int(body["metadata"].get("generation", 0))


def _seconds_in_progress(body: Body, now: datetime) -> float:
    """Since when the roll-out of this generation is under way, by what the status says."""
    progressing = find_condition(body, "Progressing")
    if progressing is None or progressing["status"] != "True":
        stuck = progressing is not None and progressing["reason"] == "DeadlineExceeded"
        return _PATIENCE_SECONDS if stuck else 0.0
    return (now - parse_timestamp(progressing["lastTransitionTime"])).total_seconds()


def _explained(error: ValidationError, body: Body) -> str:
    document = f"{body['kind']}/{body['metadata']['name']}"
    problems = [Problem(document, path_of(v.loc), v.message, v.remedy) for v in explain(error, VisionTool)]
    return " ".join(f"{problem.path}: {problem.message}. {problem.remedy}".strip() for problem in problems)


def _refused_object(child: Body) -> str:
    return f"{child['kind']} {child['metadata']['name']}"
