"""What pods and Jobs say about an attempt, and what follows from its failure. Pure.

All ranks of a stage live and die together: the first pod that fails, is deleted, or is lost with its node ends the
attempt. The next one has a higher number and starts when no pod of the earlier ones is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from thinkimg.api.pod_contract import (
    CONTAINER,
    Annotation,
    ExitCode,
    Label,
    TerminationMessage,
    Variable,
    misunderstanding,
)

from ..conditions import find_condition, is_true, parse_timestamp

Body = Mapping[str, Any]


_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "EvictionByEvictionAPI": "Drained",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
"""Reasons of the condition DisruptionTarget, in the words that `onPodReasons` knows. `TerminationByKubelet` is not
among them: a node under pressure evicts the pods that exceed their requests, and those say `Evicted`."""
_MEANING: Mapping[int, str] = {
    ExitCode.USER: ", the user's error",
    ExitCode.INFRASTRUCTURE: ", infrastructure",
    ExitCode.INTERRUPTED: ", interrupted",
}
_BLOCKED = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError",
            "CreateContainerError", "RunContainerError", "ErrImageNeverPull"}  # fmt: skip


@dataclass(frozen=True)
class JobSeen:
    """A Job as it stands."""

    name: str
    uid: str
    stage: str
    attempt: int
    created: datetime | None = None
    complete: bool = False
    failed: str = ""
    """Why it failed or is failing; empty when it does not."""
    suspended: bool = False
    deleting: bool = False
    image: str = ""
    """Of the stage's container."""
    contract: int = 0
    """Version of the contract that its pods were told; 0: none."""

    @property
    def finished(self) -> bool:
        return self.complete or bool(self.failed)


@dataclass(frozen=True)
class PodSeen:
    """A pod as it stands."""

    name: str
    uid: str
    stage: str
    attempt: int
    index: int
    phase: str = "Pending"
    ready: bool = False
    """Its stage runs, and its node is heard of; other containers decide nothing."""
    exit_code: int | None = None
    """Of an ordinary init container that failed, else of the stage's container; None while neither has ended."""
    succeeded_at: datetime | None = None
    """When the stage's container ended with 0."""
    lingering: tuple[str, ...] = ()
    """Containers that run on after that."""
    message: str = ""
    """Termination message."""
    reasons: frozenset[str] = frozenset()
    """Why it ended or will end; empty while all is well."""
    failed_at: datetime | None = None
    """The earliest sign that it will not succeed; None while there is none."""
    lost_since: datetime | None = None
    """Since when its node has not been heard of. It may come back: this alone is no failure."""
    gone_by: datetime | None = None
    """It is being deleted, and should be gone by then."""
    blocked: tuple[str, str] | None = None
    """Reason and message when it cannot start as things are."""
    image_id: str = ""
    """What its node says of the stage's image, once it runs."""

    @property
    def finished(self) -> bool:
        """No process of it runs any more."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def succeeded(self) -> bool:
        """Its stage has done its work, whatever became of other containers."""
        return self.succeeded_at is not None or self.phase == "Succeeded"


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended."""

    text: str
    """A sentence for people."""
    reasons: frozenset[str]
    exit_code: int | None = None

    @property
    def user_error(self) -> bool:
        return self.exit_code == ExitCode.USER


# ---- reading objects -------------------------------------------------------------------------------------------------


def observe_job(body: Body) -> JobSeen:
    labels = body["metadata"].get("labels", {})
    failed = next((c for t in ("FailureTarget", "Failed") if (c := _true_condition(body, t))), None)
    return JobSeen(
        body["metadata"]["name"],
        body["metadata"]["uid"],
        labels.get(Label.STAGE, ""),
        _number(labels.get(Label.ATTEMPT)),
        parse_timestamp(body["metadata"]["creationTimestamp"]),
        is_true(body, "Complete"),
        f"{failed.get('reason', '')}: {failed.get('message', '')}" if failed else "",
        bool(body.get("spec", {}).get("suspend")),
        "deletionTimestamp" in body["metadata"],
        *_image_and_contract(body),
    )


def _image_and_contract(job: Body) -> tuple[str, int]:
    containers = job.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    stage: Body = next((container for container in containers if container["name"] == CONTAINER), {})
    told = (given.get("value") for given in stage.get("env", ()) if given["name"] == Variable.CONTRACT)
    return stage.get("image", ""), _number(next(told, None))


def observe_pod(body: Body) -> PodSeen:
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels", {})
    phase = status.get("phase", "Pending")
    ended = _ended_container(body)
    succeeded_at = _end_of(ended, body) if ended and not ended.get("exitCode") else None
    lost = _lost_since(body)
    gone_by = parse_timestamp(metadata["deletionTimestamp"]) if "deletionTimestamp" in metadata else None
    signs = {} if succeeded_at else _signs(body, phase, ended)
    return PodSeen(
        metadata["name"],
        metadata["uid"],
        labels.get(Label.STAGE, ""),
        _number(labels.get(Label.ATTEMPT)),
        _number(metadata.get("annotations", {}).get(Annotation.COMPLETION_INDEX)),
        phase,
        _is_ready(body),
        ended.get("exitCode") if ended else None,
        succeeded_at,
        tuple(_running(status)) if succeeded_at else (),
        ended.get("message", "") if ended else status.get("message", ""),
        frozenset(signs),
        min(signs.values(), default=None),
        lost,
        gone_by,
        _blocked(body) if phase == "Pending" else None,
        _image_id(status),
    )


def _image_id(status: Body) -> str:
    stage = (seen for seen in status.get("containerStatuses") or [] if seen["name"] == CONTAINER)
    return next((seen.get("imageID", "") for seen in stage), "")


def _signs(body: Body, phase: str, ended: Body | None) -> dict[str, datetime]:
    """Reason → moment, for everything that says that the pod will not succeed."""
    metadata, status = body["metadata"], body.get("status", {})
    created = parse_timestamp(metadata["creationTimestamp"])
    signs: dict[str, datetime] = {}
    if phase == "Succeeded":
        return signs
    exit_time = None
    if ended and ended.get("exitCode"):
        exit_time = _end_of(ended, body)
        signs[ended.get("reason") or "Error"] = exit_time
    if phase == "Failed":
        signs[status.get("reason") or "Error"] = exit_time or created
    disruption = _true_condition(body, "DisruptionTarget")
    if disruption:
        reason = disruption.get("reason", "")
        signs[_DISRUPTIONS.get(reason, reason)] = _since(disruption, created)
    if "deletionTimestamp" in metadata:
        asked = _deletion_asked(metadata)
        if exit_time is None or asked <= exit_time:
            signs["Deleted"] = asked
    return signs


def _deletion_asked(metadata: Body) -> datetime:
    """`deletionTimestamp` is when the grace is over; it was asked for that much earlier."""
    return parse_timestamp(metadata["deletionTimestamp"]) - timedelta(
        seconds=metadata.get("deletionGracePeriodSeconds") or 0
    )


def _is_ready(body: Body) -> bool:
    """A pod with a container that is not ready is not Ready either; here the stage alone counts."""
    if is_true(body, "Ready"):
        return True
    others = [seen for seen in _serving_containers(body) if seen["name"] != CONTAINER]
    stage = [seen for seen in _serving_containers(body) if seen["name"] == CONTAINER]
    return any(seen.get("ready") for seen in stage) and not all(seen.get("ready") for seen in others)


def _lost_since(body: Body) -> datetime | None:
    """A node that is not heard of makes its pods unready, although their containers, as last seen, are ready."""
    status = body.get("status", {})
    condition = find_condition(body, "Ready")
    if status.get("phase") != "Running" or condition is None or condition["status"] == "True":
        return None
    containers = _serving_containers(body)
    if not containers or not all(c.get("ready") for c in containers) or body.get("spec", {}).get("readinessGates"):
        return None
    return _since(condition, parse_timestamp(body["metadata"]["creationTimestamp"]))


def _sidecars(body: Body) -> set[str]:
    """Names of the init containers that run beside the stage (native sidecars), such as a mesh injects."""
    containers = body.get("spec", {}).get("initContainers") or []
    return {container["name"] for container in containers if container.get("restartPolicy") == "Always"}


def _serving_containers(body: Body) -> list[Body]:
    """Statuses of all containers by which the kubelet judges whether a pod is Ready."""
    status, sidecars = body.get("status", {}), _sidecars(body)
    beside = [seen for seen in status.get("initContainerStatuses") or [] if seen["name"] in sidecars]
    return [*beside, *(status.get("containerStatuses") or [])]


def _ended_container(body: Body) -> Body | None:
    """The container that decides how a pod ended: an ordinary init container that failed, else the stage's own.

    A sidecar, native or not, that ends or starts again decides nothing.
    """
    status, sidecars = body.get("status", {}), _sidecars(body)
    before = [seen for seen in status.get("initContainerStatuses") or [] if seen["name"] not in sidecars]
    failed = [ended for seen in before if (ended := _terminated(seen)) and ended.get("exitCode")]
    stage = (_terminated(seen) for seen in status.get("containerStatuses") or [] if seen["name"] == CONTAINER)
    return next(iter(failed), next(stage, None))


def _terminated(seen: Body) -> Body | None:
    return (seen.get("state") or {}).get("terminated")


def _end_of(ended: Body, body: Body) -> datetime:
    return parse_timestamp(ended.get("finishedAt") or body["metadata"]["creationTimestamp"])


def _running(status: Body) -> list[str]:
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return [seen["name"] for seen in containers if (seen.get("state") or {}).get("running") is not None]


def _blocked(body: Body) -> tuple[str, str] | None:
    scheduled = find_condition(body, "PodScheduled")
    if scheduled and scheduled["status"] == "False" and scheduled.get("reason") in ("Unschedulable", "SchedulingGated"):
        return scheduled["reason"], scheduled.get("message", "")
    status = body.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _BLOCKED:
            return waiting["reason"], waiting.get("message", "")
    return None


def _true_condition(body: Body, type_: str) -> dict[str, Any] | None:
    condition = find_condition(body, type_)
    return condition if condition and condition["status"] == "True" else None


def _since(condition: Body, otherwise: datetime) -> datetime:
    return parse_timestamp(condition["lastTransitionTime"]) if condition.get("lastTransitionTime") else otherwise


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


# ---- what follows ----------------------------------------------------------------------------------------------------


def failure_of(job: JobSeen | None, pods: Sequence[PodSeen], lost_by: datetime) -> Failure | None:
    """The first failure among the pods of a running attempt, or the Job's own; None while all is well.

    A user's error counts before everything else: it will be there in the next attempt too. Nodes that have not been
    heard of since `lost_by` are given up; one that went away before another pod failed is the cause of that too.
    """
    if job is not None and job.suspended:
        return None  # whoever suspended it (Kueue) deletes the pods
    failed = [pod for pod in pods if pod.failed_at]
    lost = [pod for pod in pods if pod.lost_since and not pod.failed_at]
    if failed or any(pod.lost_since <= lost_by for pod in lost if pod.lost_since):
        failed += [replace(pod, failed_at=pod.lost_since, reasons=pod.reasons | {"NodeLost"}) for pod in lost]
        return _failure_of_pod(min(failed, key=_order_of_failures))
    if job is None or job.deleting:
        return Failure("its Job was deleted", frozenset({"Deleted"}))
    if job.failed:
        return Failure(f"its Job failed: {job.failed}", frozenset({job.failed.partition(":")[0]}))
    return None


def _order_of_failures(pod: PodSeen) -> tuple[object, ...]:
    """By time, which has whole seconds; a pod that was deleted in the second in which another failed follows from it,
    as the Job's controller then deletes the others."""
    return pod.exit_code != ExitCode.USER, pod.failed_at, "Deleted" in pod.reasons, pod.index


def still_runs(job: JobSeen, pods: Iterable[PodSeen]) -> bool:
    """Whether somebody has to delete a Job to end it. One with a failed pod ends its others by itself, and its pods
    stay, so that their logs can be read."""
    mine = [pod for pod in pods if (pod.stage, pod.attempt) == (job.stage, job.attempt)]
    return not job.finished and not any(pod.phase == "Failed" for pod in mine)


def _failure_of_pod(pod: PodSeen) -> Failure:
    said = last_words(pod.message) or ("its log says why" if pod.message else "")
    text = f"pod {pod.name} "
    if pod.exit_code:
        text += f"ended with exit code {pod.exit_code}{_MEANING.get(pod.exit_code, '')}"
    else:
        text += "failed"
    outside = sorted(pod.reasons - {"Error", "Completed"})
    text += f" ({', '.join(outside)})" if outside else ""
    return Failure(f"{text}: {said}" if said else text, pod.reasons, pod.exit_code)


def last_words(message: str) -> str:
    """The reason in a stage's termination message. Any other text is the end of a log, which may hold what is not for
    everybody who may read the job: nothing of it."""
    words = TerminationMessage.parse(message)
    if words is None:
        return ""
    return "; ".join(filter(None, [words.message, not_understood(words)]))


def not_understood(words: TerminationMessage) -> str:
    """Why a stage's message cannot be read: its image speaks another version of the contract. Empty when it can."""
    return misunderstanding("the stage's image", "this operator", words.contract)


def overdue_at(pod: PodSeen, node_lost_seconds: int) -> datetime | None:
    """When a pod that is being deleted is given up and removed by force; None when it is not being deleted.

    On a lost node nothing confirms its end, so that it would stay for ever.
    """
    if pod.gone_by is None:
        return None
    return (pod.lost_since or pod.gone_by) + timedelta(seconds=node_lost_seconds)
