"""What the operator says about a VisionTool: conditions, counts, and why pods wait. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from thinkimg.api import CUSTOM, VisionTool
from thinkimg.api.server_contract import refusal_in

from ..conditions import Condition, find_condition, merge_conditions
from ..kinds import Body
from ..settings import image_key
from .render import headless_name, selector_of, url_of
from .upgrades import Held

REASONS: Mapping[str, Mapping[str, str]] = {
    "Accepted": {
        "Valid": "The spec is valid and its objects are accepted by the API server.",
        "Invalid": "A field of the spec is wrong; the message names it and what would be right.",
        "NameTaken": "An object that the tool needs exists already and belongs to somebody else; it is left alone.",
        "Refused": "The API server, a quota or an admission policy refuses an object of the tool; the message is its.",
    },
    "Available": {
        "ServersReady": "At least one server has loaded its model and answers calls.",
        "NoServerReady": "Servers are wanted, but none is ready.",
        "ScaledToZero": "`replicas` is 0.",
        "NotAccepted": "The spec was never accepted, so there is nothing that could be available.",
    },
    "Progressing": {
        "RollingOut": "Servers are being started, replaced or stopped.",
        "Settled": "All servers are of the current spec, and ready.",
        "NotAccepted": "Nothing is changed until the spec is accepted.",
        "Unschedulable": "A pod fits on no node: too few GPUs, CPUs or memory, or no node with the labels asked for.",
        "ImagePullFailed": "A pod's image cannot be pulled: wrong name, or a secret is missing.",
        "ConfigurationMissing": "A pod refers to a Secret, ConfigMap, claim or key that does not exist.",
        "Crashing": "A server ends again and again; the message has the exit code, and which setting it refuses.",
        "PodsRefused": "Pods cannot be created: a quota, a policy, or a ServiceAccount that does not exist.",
        "DeadlineExceeded": "The roll-out has made no progress for too long.",
    },
    "HeldByJobs": {
        "JobsUnderWay": "The operator has another default image, and the tool keeps its own until jobs that have "
        "started with it are over; the message names them. It is there only where it was true once.",
        "NotHeld": "No job holds the image any more.",
    },
}
"""Every condition with every reason. `docs/reference/conditions.md` is made of it."""

PROBLEMS = ("Unschedulable", "ImagePullFailed", "ConfigurationMissing", "Crashing", "PodsRefused", "DeadlineExceeded")
"""Reasons of Progressing that somebody has to do something about; each is an event too."""
EVENTS = ("Invalid", "NameTaken", "Refused", "ServersReady", "NoServerReady", "ScaledToZero", *PROBLEMS)
"""Reasons of events: those of the condition whose transition they record."""

_WAITING = {
    "ErrImagePull": "ImagePullFailed",
    "ImagePullBackOff": "ImagePullFailed",
    "InvalidImageName": "ImagePullFailed",
    "ErrImageNeverPull": "ImagePullFailed",
    "CreateContainerConfigError": "ConfigurationMissing",
    "CreateContainerError": "ConfigurationMissing",
    "CrashLoopBackOff": "Crashing",
    "RunContainerError": "Crashing",
}
_REMEDIES = {
    "Unschedulable": "Free or add nodes, or lower spec.resources.",
    "ImagePullFailed": "Correct spec.image or spec.imagePullSecrets.",
    "ConfigurationMissing": "Create it, or correct the reference.",
    "Crashing": "See the log of the pod.",
}
_VALID = "The spec is valid."
_ANONYMOUS = "The tool has no spec.auth: whoever reaches its servers may call them."


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What a Deployment says of its pods."""

    observed: bool
    """Its controller has seen the current generation."""
    desired: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    stuck: str = ""
    """Message of its progress deadline."""
    refused: str = ""
    """Why it cannot create pods."""

    @property
    def settled(self) -> bool:
        return self.observed and self.desired == self.replicas == self.updated == self.ready


@dataclass(frozen=True)
class PodProblem:
    """Why a pod does not get ready."""

    reason: str
    message: str


@dataclass(frozen=True)
class Refusal:
    """Why a spec is not accepted."""

    reason: str
    message: str


def deployment_state(body: Body) -> DeploymentState:
    """Taken from a Deployment by the cache."""
    status = body.get("status") or {}
    progressing = find_condition(body, "Progressing") or {}
    failure = find_condition(body, "ReplicaFailure") or {}
    stuck = progressing.get("reason") == "ProgressDeadlineExceeded"
    return DeploymentState(
        observed=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0),
        desired=body["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        stuck=progressing.get("message", "") if stuck else "",
        refused=failure.get("message", "") if failure.get("status") == "True" else "",
    )


def pod_problem(pods: Iterable[Body]) -> PodProblem | None:
    """The most telling reason why pods wait; the same for any order of the pods."""
    found = {problem for pod in pods for problem in _problems_of(pod)}
    order = list(REASONS["Progressing"])
    return min(found, key=lambda problem: (order.index(problem.reason), problem.message), default=None)


def missing_claim(name: str) -> PodProblem:
    return PodProblem("ConfigurationMissing", f"There is no claim {name}. Create it, or correct spec.weights.")


def _problems_of(pod: Body) -> Iterable[PodProblem]:
    if "deletionTimestamp" in pod["metadata"]:
        return
    scheduled = find_condition(pod, "PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        yield _problem("Unschedulable", scheduled.get("message", ""))
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = _WAITING.get(waiting.get("reason", ""))
        if reason is None:
            continue
        message = waiting.get("message", waiting["reason"])
        if reason == "Crashing":
            last = (container.get("lastState") or {}).get("terminated") or {}
            words = refusal_in(last.get("message") or "") or last.get("reason") or ""
            message = f"it ended with code {last.get('exitCode', '?')}" + (f": {words}" if words else "")
        yield _problem(reason, message)


def _problem(reason: str, message: str) -> PodProblem:
    return PodProblem(reason, f"{message.rstrip('. ')}. {_REMEDIES[reason]}")


def status_of(
    tool: VisionTool,
    image: str,
    generation: int,
    state: DeploymentState | None,
    problem: PodProblem | None,
    previous: Mapping[str, Any],
    now: datetime,
    keeps: Held | None = None,
) -> dict[str, Any]:
    """The status of an accepted tool.

    Args:
        state: of its Deployment; None when that is not known yet.
        problem: of its pods, looked at only when it takes long.
        previous: the status so far.
        keeps: the image that it keeps for jobs, if it does.
    """
    state = state or DeploymentState(observed=False, desired=tool.spec.replicas)
    conditions = [
        Condition("Accepted", "True", "Valid", _VALID if tool.spec.auth else f"{_VALID} {_ANONYMOUS}"),
        _available(tool, state),
        _progressing(state, problem),
    ]
    if keeps is not None or find_condition({"status": previous}, "HeldByJobs"):
        conditions.append(_held_by_jobs(keeps))
    return {
        "observedGeneration": generation,
        "replicas": state.replicas,
        "readyReplicas": state.ready,
        "selector": selector_of(tool.name),
        "url": url_of(tool.name, tool.metadata.namespace or "default"),
        "serversService": headless_name(tool),
        "image": image,
        "defaultImageOf": "" if tool.spec.image else image_key(tool.spec.tool, tool.spec.backend),
        "tools": [] if tool.spec.tool == CUSTOM else [tool.spec.tool],
        "conditions": merge_conditions(previous.get("conditions") or (), conditions, generation, now),
    }


def _held_by_jobs(keeps: Held | None) -> Condition:
    if keeps is None:
        return Condition("HeldByJobs", "False", "NotHeld", "No job holds the tool's image.")
    message = (
        f"The operator's default image is {keeps.default}. The tool keeps {keeps.image} until these jobs are over: "
        f"{', '.join(keeps.jobs)}. Set spec.image to change it now."
    )
    return Condition("HeldByJobs", "True", "JobsUnderWay", message)


def refused_status(refusal: Refusal, generation: int, previous: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The status of a tool that is not accepted. What ran before goes on, and keeps its Available."""
    conditions = [Condition("Accepted", "False", refusal.reason, refusal.message)]
    known = {condition.get("type") for condition in previous.get("conditions") or ()}
    if "Available" not in known:
        conditions.append(Condition("Available", "False", "NotAccepted", "The spec is not accepted."))
    conditions.append(Condition("Progressing", "False", "NotAccepted", "The spec is not accepted; nothing is changed."))
    merged = merge_conditions(previous.get("conditions") or (), conditions, generation, now)
    merged.sort(key=lambda condition: list(REASONS).index(condition["type"]) if condition["type"] in REASONS else 99)
    return {**previous, "observedGeneration": generation, "conditions": merged}


def _available(tool: VisionTool, state: DeploymentState) -> Condition:
    if state.ready > 0:
        # No counts here: they are fields of the status, and a message that changes is a write.
        return Condition("Available", "True", "ServersReady", "The tool answers calls.")
    if tool.spec.replicas == 0:
        message = "There are no servers, as spec.replicas is 0. Set it to 1 or more to use the tool."
        return Condition("Available", "False", "ScaledToZero", message)
    return Condition("Available", "False", "NoServerReady", "No server is ready yet; Progressing says why.")


def _progressing(state: DeploymentState, problem: PodProblem | None) -> Condition:
    if state.settled:
        return Condition("Progressing", "False", "Settled", "All servers run the current spec.")
    if state.refused:
        return Condition("Progressing", "True", "PodsRefused", state.refused)
    if problem is not None:
        return Condition("Progressing", "True", problem.reason, problem.message)
    if state.stuck:
        return Condition("Progressing", "False", "DeadlineExceeded", f"{state.stuck} See the pods of the tool.")
    return Condition("Progressing", "True", "RollingOut", "Servers are being started or replaced.")
