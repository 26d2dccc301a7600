"""What is said of a job that is worked on: its conditions, in sentences that name what to do."""

from __future__ import annotations

from thinkimg.api import StageStatus, ToolRLJobStatus

from ..conditions import Condition
from .attempts import PodSeen
from .case import Case
from .render import plan, pods_of
from .start import waits_for
from .status import with_conditions
from .suspension import suspended_condition
from .tools_ready import tools_condition

_BLOCKED = {
    "Unschedulable": ("Unschedulable", "Ask for less in spec.stages[].resources, or add nodes."),
    "SchedulingGated": ("Unschedulable", ""),
    "CreateContainerConfigError": ("ContainerNotStarted", "Create the Secret or ConfigMap that the job names."),
    "CreateContainerError": ("ContainerNotStarted", ""),
    "RunContainerError": ("ContainerNotStarted", ""),
}
"""What keeps a pod from starting → our reason and the remedy. Everything else is about its image."""
_IMAGE = ("ImagePullFailed", "Correct spec.image or spec.imagePullSecrets.")


def reported(case: Case) -> ToolRLJobStatus:
    """The status with its conditions."""
    generation = case.job.metadata.generation or 0
    stage = case.current
    case.status.observed_generation = generation
    case.status.current_stage = "" if stage is None or not stage.attempt else stage.name
    if (stage is None or case.failed) and case.status.completion_time is None:
        case.status.completion_time = case.now
    conditions = [
        _accepted_condition(case, stage),
        tools_condition(case),
        _pods_condition(case, stage),
        suspended_condition(case),
        _complete_condition(case, stage),
        _failed_condition(case),
    ]
    return with_conditions(case.status, conditions, generation, case.now)


def _accepted_condition(case: Case, stage: StageStatus | None) -> Condition:
    gang = case.job.spec.scheduling.gang
    if gang != "None":
        message = f"spec.scheduling.gang: {gang} is not there in this version; write None, or remove it"
        return Condition("Accepted", "False", "NotSupported", message)
    before = case.condition("Accepted")
    same = before is not None and before.observed_generation == case.status.observed_generation
    if same and before.reason == "Refused" and stage is not None and stage.state != "Running":
        return Condition("Accepted", "False", "Refused", before.message)  # until it is tried again with success
    return Condition("Accepted", "True", "Valid", "the manifest is valid")


def _complete_condition(case: Case, stage: StageStatus | None) -> Condition:
    if stage is None:
        return Condition("Complete", "True", "AllStagesSucceeded", "all stages succeeded")
    left = sum(stage.state != "Succeeded" for stage in case.status.stages)
    return Condition("Complete", "False", "StagesLeft", f"{left} of {len(plan(case.job))} stages are left")


def _failed_condition(case: Case) -> Condition:
    if case.failed:
        return Condition("Failed", "True", *case.failed)
    return Condition("Failed", "False", "NotFailed", "nothing has ended the job")


def _pods_condition(case: Case, stage: StageStatus | None) -> Condition:
    if stage is None or case.failed:
        return _unready("Finished", "no pod is needed any more")
    if case.suspended:
        return Condition("PodsReady", "Unknown", "Suspended", "no pod is wanted while the job is suspended")
    waits = waits_for(case, stage)
    if stage.state != "Running" and waits and not case.remains_of(stage):
        return _unready(*waits)
    if stage.state == "Restarting":
        return _restarting(case, stage)
    if case.all_ready(stage):
        wanted = pods_of(case.job, stage.name)
        return Condition("PodsReady", "True", "AllReady", f"stage {stage.name}: all {wanted} pods are ready")
    return _starting(case, stage)


def _restarting(case: Case, stage: StageStatus) -> Condition:
    left = [one for one in case.remains_of(stage) if isinstance(one, PodSeen)]
    waiting = f"{len(left)} pods of it have yet to end" if left else f"attempt {stage.attempt} starts next"
    return _unready("Restarting", f"{stage.failure}; {waiting}")


def _starting(case: Case, stage: StageStatus) -> Condition:
    """Why the stage's pods are not all ready: the queue, a pod that is blocked, a lost node, or time."""
    job, pods = case.job_of(stage), case.pods_of(stage)
    if job is not None and job.suspended:
        return _unready("WaitingForQuota", f"Job {job.name} is suspended: its queue has not admitted it")
    if (blocked := _blocked(pods)) is not None:
        return blocked
    lost = next((pod for pod in pods if pod.lost_since), None)
    if lost is not None:
        away = f"the node of pod {lost.name} has not been heard of since {lost.lost_since:%H:%M:%S} UTC"
        limit = f"the attempt ends if it stays away for {case.policy.node_lost_seconds} s"
        return _unready("NodeLost", f"{away}; {limit}")
    if not pods and job is not None:
        return _unready("Starting", f"Job {job.name} has made no pod yet; if it stays so, its events say why")
    ready, wanted = sum(pod.ready for pod in pods), pods_of(case.job, stage.name)
    return _unready("Starting", f"stage {stage.name}: {ready} of {wanted} pods are ready")


def _blocked(pods: list[PodSeen]) -> Condition | None:
    """Of the pods that cannot start as things are, the first."""
    for pod in sorted(pods, key=lambda pod: pod.index):
        if pod.blocked:
            word, message = pod.blocked
            reason, remedy = _BLOCKED.get(word, _IMAGE)
            return _unready(reason, f"pod {pod.name}: {message} {remedy}".strip())
    return None


def _unready(reason: str, message: str) -> Condition:
    return Condition("PodsReady", "False", reason, message)
