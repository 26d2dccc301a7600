"""What a ToolRLJob does next. Pure: the job, the world as it was seen, and the time give the new status and what is to
be written after it.

The status is written before anything is done, and a status written from an old view is refused by the API server.
So whatever happens in between, the next pass finds in the status what was decided, and does it: an attempt that the
status names is made, Jobs of earlier attempts are deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from thinkimg.api import StageStatus, ToolRLJob, ToolRLJobStatus, suggestion
from thinkimg.api.pod_contract import ProgressLine

from ..conditions import Condition, merge_conditions
from .attempts import (
    JobSeen,
    PodSeen,
    action_after,
    backoff_seconds,
    failure_of,
    overdue_at,
    still_runs,
)
from .progress import PROGRESS_SECONDS, read_checkpoint, read_progress, read_results
from .render import calls_tools, plan, pods_of

POLL_SECONDS = 5.0
"""How often is looked for tools and claims that a job waits for; their changes are not watched for its sake."""


@dataclass(frozen=True)
class ToolSeen:
    """A VisionTool that the job names."""

    name: str
    available: bool
    problem: str = ""
    """Why not, from its conditions."""


@dataclass(frozen=True)
class World:
    """What was seen. Order does not matter."""

    jobs: Sequence[JobSeen] = ()
    pods: Sequence[PodSeen] = ()
    tools: Mapping[str, ToolSeen] | None = None
    """Those of the job's tools that exist; None: not looked at, because nothing waits for them."""
    known_tools: Sequence[str] = ()
    """Names of all VisionTools of the namespace, to suggest one."""
    missing_claims: Sequence[str] = ()
    missing_code: str = ""
    """Name of the ConfigMap with the user's code, when it does not exist."""
    progress: ProgressLine | None = None
    """The last progress line of the running stage."""


@dataclass(frozen=True)
class Decision:
    """What follows. `status` is written first, the rest after it."""

    status: ToolRLJobStatus
    create: tuple[str, int] | None = None
    """Stage and attempt whose Job is to be made."""
    delete_jobs: tuple[JobSeen, ...] = ()
    delete_pods: tuple[PodSeen, ...] = ()
    """Pods of attempts whose Job is gone: nobody else ends them."""
    force_pods: tuple[PodSeen, ...] = ()
    """Pods that will not go by themselves."""
    delete_self: bool = False
    """The job's time to live is over."""
    requeue_after: float | None = None
    """Seconds until time alone changes something."""
    stale: bool = False
    """The world is newer than the status: read again."""


def terminal(status: ToolRLJobStatus | None) -> bool:
    """Complete or Failed, for good."""
    return status is not None and any(
        c.type in ("Complete", "Failed") and c.status == "True" for c in status.conditions
    )


def orphans(world: World) -> Iterator[PodSeen]:
    """Pods that may run, that nobody is ending, and whose Job does not exist."""
    known = {(job.stage, job.attempt) for job in world.jobs}
    for pod in world.pods:
        if not pod.finished and pod.gone_by is None and (pod.stage, pod.attempt) not in known:
            yield pod


def decide(job: ToolRLJob, world: World, now: datetime) -> Decision:
    """The next status of a job, and what to do."""
    now = now.astimezone(UTC).replace(microsecond=0)
    status = job.status.model_copy(deep=True) if job.status else ToolRLJobStatus()
    if terminal(status):
        return _after_the_end(job, status, world, now)
    return _Pass(job, status, world, now).decide()


class _Pass:
    """One decision. The status is its working copy."""

    def __init__(self, job: ToolRLJob, status: ToolRLJobStatus, world: World, now: datetime) -> None:
        self.job, self.status, self.world, self.now = job, status, world, now
        self.policy = job.spec.failure_policy
        self.failed: tuple[str, str] | None = None
        """Reason and message, once the job has failed."""
        self.wakes: list[datetime] = []
        names = plan(job)
        if [stage.name for stage in status.stages] != names and status.start_time is None:
            status.stages = [StageStatus(name=name) for name in names]

    def decide(self) -> Decision:
        if self._newer_world():
            return Decision(self.status, stale=True)
        self._advance()
        if self.failed is None:
            self._count_suspended_time()
            self._check_deadlines()
        if self.failed is None and not self.job.spec.suspend:
            self._begin()
        status = self._reported()
        ended = terminal(status)
        obsolete = [*self._obsolete(ended)]
        return Decision(
            status,
            create=None if ended else self._to_create(),
            delete_jobs=tuple(job for job in obsolete if not job.deleting),
            delete_pods=tuple(self._orphans(ended)),
            force_pods=tuple(self._overdue(ended)),
            requeue_after=self._requeue_after(ended),
        )

    def _newer_world(self) -> bool:
        attempts = {stage.name: stage.attempt for stage in self.status.stages}
        seen: list[JobSeen | PodSeen] = [*self.world.jobs, *self.world.pods]
        return any(one.attempt > attempts.get(one.stage, 0) for one in seen)

    # ---- the stages -------------------------------------------------------------------------------------------------

    @property
    def current(self) -> StageStatus | None:
        """The first stage that has not succeeded."""
        return next((stage for stage in self.status.stages if stage.state != "Succeeded"), None)

    def _job_of(self, stage: StageStatus) -> JobSeen | None:
        return next((j for j in self.world.jobs if (j.stage, j.attempt) == (stage.name, stage.attempt)), None)

    def _pods_of(self, stage: StageStatus) -> list[PodSeen]:
        return [pod for pod in self.world.pods if (pod.stage, pod.attempt) == (stage.name, stage.attempt)]

    def _advance(self) -> None:
        """Take note of what became of the current attempt."""
        stage = self.current
        if stage is None:
            return
        job, pods = self._job_of(stage), self._pods_of(stage)
        if stage.state in ("Pending", "Restarting") and job is not None and not job.deleting:
            stage.state, stage.job_name, stage.restart_time = "Running", job.name, None
            stage.attempt_start_time = job.created
        if stage.state != "Running":
            # It was made and deleted again before anybody saw it run: what comes next gets a number of its own.
            stage.attempt += bool(job or pods)
            return
        stage.ready_pods = sum(pod.ready for pod in pods)
        self._read(stage, pods)
        patience = timedelta(seconds=self.policy.node_lost_seconds)
        failure = None if job is not None and job.complete else failure_of(job, pods, self.now - patience)
        if job is not None and job.complete:
            stage.state, stage.completion_time, stage.ready_pods = "Succeeded", self.now, 0
            self._advance()
        elif failure is not None:
            action = action_after(failure, stage.name, self.policy)
            stage.failure = f"attempt {stage.attempt}: {failure.text}"[:1024]
            stage.ready_pods = 0
            self._after_failure(stage, action, "UserError" if failure.user_error else "FailedByRule")
        elif self.job.spec.suspend:
            stage.state, stage.ready_pods = "Pending", 0
            stage.attempt += 1
        else:
            self.wakes += [pod.lost_since + patience for pod in pods if pod.lost_since]

    def _after_failure(self, stage: StageStatus, action: str, reason: str) -> None:
        if action == "Fail":
            self._fail(stage, reason, f"stage {stage.name}, {stage.failure}")
        elif action == "Restart" and self.status.restarts >= self.policy.max_restarts:
            used = (
                f"all {self.policy.max_restarts} restarts are used" if self.policy.max_restarts else "none is allowed"
            )
            self._fail(stage, "RestartsExhausted", f"{used}: stage {stage.name}, {stage.failure}")
        else:
            self.status.restarts += action == "Restart"
            stage.restarts += 1
            pause = backoff_seconds(stage.restarts, self.policy)
            stage.state, stage.restart_time = "Restarting", self.now + timedelta(seconds=pause)
            stage.attempt += 1

    def _fail(self, stage: StageStatus, reason: str, message: str) -> None:
        self.failed = (reason, message)
        stage.state, stage.completion_time, stage.restart_time = "Failed", self.now, None

    def _read(self, stage: StageStatus, pods: Sequence[PodSeen]) -> None:
        """Progress from the log, results from the last words of rank 0. Nothing is decided by either."""
        if self.world.progress:
            stage.progress = read_progress(self.world.progress, stage.progress, self.now)
            stage.checkpoint = read_checkpoint(self.world.progress) or stage.checkpoint
        rows = [row for pod in pods if pod.index == 0 and pod.finished for row in read_results(pod.message)]
        if rows:
            known = {result.model: result for result in self.status.results} | {row.model: row for row in rows}
            self.status.results = list(known.values())[:20]

    def _begin(self) -> None:
        """Give the current stage its first attempt, once nothing is missing."""
        stage = self.current
        if stage is None or stage.attempt or self._waits_for(stage):
            return
        stage.attempt, stage.start_time = 1, self.now
        self.status.start_time = self.status.start_time or self.now

    def _waits_for(self, stage: StageStatus) -> tuple[str, str] | None:
        """Reason and message of what has to be there before an attempt of the stage."""
        if self.job.spec.scheduling.gang != "None":
            return "NotStarted", "see the condition Accepted"
        if self.world.missing_claims:
            names = ", ".join(self.world.missing_claims)
            return "ClaimNotFound", (
                f"there is no PersistentVolumeClaim {names} in this namespace; create it, or correct "
                "spec.storage.claimName and the pvc:// URIs"
            )
        if self.world.missing_code:
            return "CodeNotFound", (
                f"there is no ConfigMap {self.world.missing_code} in this namespace; create it, or correct "
                "spec.code.configMapRef"
            )
        tools = self._tools_condition()
        needed = self.status.start_time is None or calls_tools(self.job, stage.name)
        if needed and tools.status != "True":
            return "WaitingForTools", tools.message
        return None

    def _to_create(self) -> tuple[str, int] | None:
        stage = self.current
        if stage is None or self.job.spec.suspend or stage.state == "Running" or not stage.attempt:
            return None
        if self._job_of(stage) is not None or self._older(stage) or self._waits_for(stage):
            return None
        if stage.restart_time is not None and self.now < stage.restart_time:
            return None
        return stage.name, stage.attempt

    def _older(self, stage: StageStatus) -> list[JobSeen | PodSeen]:
        """What is left of earlier attempts of the stage: Jobs, and pods that may run."""
        seen: list[JobSeen | PodSeen] = [*self.world.jobs, *(pod for pod in self.world.pods if not pod.finished)]
        return [one for one in seen if one.stage == stage.name and one.attempt <= stage.attempt]

    def _obsolete(self, ended: bool) -> Iterator[JobSeen]:
        """Jobs of earlier attempts; at the end, whatever still runs."""
        attempts = {stage.name: stage.attempt for stage in self.status.stages}
        for job in self.world.jobs:
            if job.attempt < attempts.get(job.stage, 0) or (ended and still_runs(job, self.world.pods)):
                yield job

    def _orphans(self, ended: bool) -> Iterator[PodSeen]:
        attempts = {stage.name: stage.attempt for stage in self.status.stages}
        for pod in orphans(self.world):
            if pod.attempt < attempts.get(pod.stage, 0) or ended:
                yield pod

    def _overdue(self, ended: bool) -> Iterator[PodSeen]:
        for pod in self.world.pods:
            moment = overdue_at(pod, self.policy.node_lost_seconds)
            if moment is not None and moment <= self.now:
                yield pod
            elif moment is not None:
                self.wakes.append(moment)

    # ---- time -------------------------------------------------------------------------------------------------------

    def _previous(self, type_: str) -> Any:
        return next((c for c in self.status.conditions if c.type == type_), None)

    def _count_suspended_time(self) -> None:
        """When the job is resumed, add up how long it was suspended."""
        before = self._previous("Suspended")
        if before and before.status == "True" and not self.job.spec.suspend and self.status.start_time:
            since = max(before.last_transition_time or self.now, self.status.start_time)
            self.status.suspended_seconds += max(0, int((self.now - since).total_seconds()))

    def _check_deadlines(self) -> None:
        stage = self.current
        if stage is None or self.job.spec.suspend:
            return
        active = self.job.spec.active_deadline_seconds
        if active is not None and self.status.start_time is not None:
            end = self.status.start_time + timedelta(seconds=active + self.status.suspended_seconds)
            if self.now >= end:
                message = f"it was active for more than {active} s; raise spec.activeDeadlineSeconds, or ask for less"
                return self._fail(stage, "ActiveDeadlineExceeded", message)
            self.wakes.append(end)
        waiting_since = self._waiting_since(stage)
        start = self.job.spec.start_deadline_seconds
        if start is not None and waiting_since is not None:
            end = waiting_since + timedelta(seconds=start)
            if self.now >= end:
                why = self._previous("PodsReady")
                message = f"stage {stage.name} was not ready after {start} s: {why.message if why else ''}"
                return self._fail(stage, "StartDeadlineExceeded", message)
            self.wakes.append(end)
        return None

    def _waiting_since(self, stage: StageStatus) -> datetime | None:
        """Since when tools, claims or pods of the stage are waited for; None while they are not: all pods are ready, or
        an earlier attempt has yet to end."""
        before = self._previous("PodsReady")
        if before is None or before.status != "False" or self._all_ready(stage) or stage.state == "Restarting":
            return None
        if before.reason == "NodeLost":  # it was ready, and has a time limit of its own
            return None
        ended = [s.completion_time for s in self.status.stages if s.completion_time is not None]
        began = stage.attempt_start_time if stage.state == "Running" else None
        return max(filter(None, [before.last_transition_time, stage.start_time, began, *ended]), default=None)

    def _requeue_after(self, ended: bool) -> float | None:
        if ended:
            return None
        stage = self.current
        seconds = [max(0.0, (wake - self.now).total_seconds()) for wake in self.wakes]
        if stage is not None and stage.state == "Running":
            seconds.append(PROGRESS_SECONDS)
        elif stage is not None and not self.job.spec.suspend:
            if stage.restart_time is not None and stage.restart_time > self.now:
                seconds.append((stage.restart_time - self.now).total_seconds())
            if stage.attempt or self._waits_for(stage):
                seconds.append(POLL_SECONDS)
        return min(seconds, default=None)

    # ---- what is said -----------------------------------------------------------------------------------------------

    def _reported(self) -> ToolRLJobStatus:
        """The status with its conditions."""
        generation = self.job.metadata.generation or 0
        stage = self.current
        done = stage is None
        self.status.observed_generation = generation
        self.status.current_stage = "" if stage is None or not stage.attempt else stage.name
        if (done or self.failed) and self.status.completion_time is None:
            self.status.completion_time = self.now
        conditions = [
            self._accepted_condition(stage),
            self._tools_condition(),
            self._pods_condition(stage),
            self._suspended_condition(),
            Condition("Complete", "True", "AllStagesSucceeded", "all stages succeeded")
            if done
            else Condition(
                "Complete", "False", "StagesLeft", f"{self._left()} of {len(plan(self.job))} stages are left"
            ),
            Condition("Failed", "True", *self.failed)
            if self.failed
            else Condition("Failed", "False", "NotFailed", "nothing has ended the job"),
        ]
        return with_conditions(self.status, conditions, generation, self.now)

    def _accepted_condition(self, stage: StageStatus | None) -> Condition:
        gang = self.job.spec.scheduling.gang
        if gang != "None":
            message = f"spec.scheduling.gang: {gang} is not there in this version; write None, or remove it"
            return Condition("Accepted", "False", "NotSupported", message)
        before = self._previous("Accepted")
        same = before is not None and before.observed_generation == self.status.observed_generation
        if same and before.reason == "Refused" and stage is not None and stage.state != "Running":
            return Condition("Accepted", "False", "Refused", before.message)  # until it is tried again with success
        return Condition("Accepted", "True", "Valid", "the manifest is valid")

    def _left(self) -> int:
        return sum(stage.state != "Succeeded" for stage in self.status.stages)

    def _tools_condition(self) -> Condition:
        names = [tool.name for tool in self.job.spec.tools]
        if not names:
            return Condition("ToolsReady", "True", "NoneNeeded", "the job uses no tools")
        tools = self.world.tools
        if tools is None:
            before = self._previous("ToolsReady")
            if before is not None:
                return Condition(before.type, before.status, before.reason, before.message)
            tools = {}
        unknown = [name for name in names if name not in tools]
        if unknown:
            hint = suggestion(unknown[0], self.world.known_tools)
            message = f"there is no VisionTool {', '.join(unknown)} in this namespace. {hint} Create it, or correct "
            return Condition("ToolsReady", "False", "ToolNotFound", f"{message}spec.tools.")
        waiting = [tools[name] for name in names if not tools[name].available]
        if waiting:
            text = "; ".join(f"{tool.name}: {tool.problem or 'not Available yet'}" for tool in waiting)
            return Condition("ToolsReady", "False", "ToolNotAvailable", f"waiting for {text}")
        return Condition("ToolsReady", "True", "AllAvailable", f"{', '.join(names)}: Available")

    def _all_ready(self, stage: StageStatus) -> bool:
        if stage.state != "Running":
            return False
        well = sum(pod.ready or pod.phase == "Succeeded" for pod in self._pods_of(stage))
        return well >= pods_of(self.job, stage.name)

    def _pods_condition(self, stage: StageStatus | None) -> Condition:
        def unready(reason: str, message: str) -> Condition:
            return Condition("PodsReady", "False", reason, message)

        if stage is None or self.failed:
            return unready("Finished", "no pod is needed any more")
        if self.job.spec.suspend:
            return Condition("PodsReady", "Unknown", "Suspended", "no pod is wanted while the job is suspended")
        waits = self._waits_for(stage)
        if stage.state != "Running" and waits and not self._older(stage):
            return unready(*waits)
        if stage.state == "Restarting":
            left = [one for one in self._older(stage) if isinstance(one, PodSeen)]
            waiting = f"{len(left)} pods of it have yet to end" if left else f"attempt {stage.attempt} starts next"
            return unready("Restarting", f"{stage.failure}; {waiting}")
        pods = self._pods_of(stage)
        wanted = pods_of(self.job, stage.name)
        if self._all_ready(stage):
            return Condition("PodsReady", "True", "AllReady", f"stage {stage.name}: all {wanted} pods are ready")
        job = self._job_of(stage)
        if job is not None and job.suspended:
            return unready("WaitingForQuota", f"Job {job.name} is suspended: its queue has not admitted it")
        blocked = sorted((pod for pod in pods if pod.blocked), key=lambda pod: pod.index)
        if blocked and blocked[0].blocked:
            word, message = blocked[0].blocked
            reason, remedy = _BLOCKED.get(word, _IMAGE)
            return unready(reason, f"pod {blocked[0].name}: {message} {remedy}".strip())
        lost = next((pod for pod in pods if pod.lost_since), None)
        if lost is not None:
            away = f"the node of pod {lost.name} has not been heard of since {lost.lost_since:%H:%M:%S} UTC"
            limit = f"the attempt ends if it stays away for {self.policy.node_lost_seconds} s"
            return unready("NodeLost", f"{away}; {limit}")
        if not pods and job is not None:
            return unready("Starting", f"Job {job.name} has made no pod yet; if it stays so, its events say why")
        ready = sum(pod.ready for pod in pods)
        return unready("Starting", f"stage {stage.name}: {ready} of {wanted} pods are ready")

    def _suspended_condition(self) -> Condition:
        if self.failed or self.current is None or not self.job.spec.suspend:
            return Condition("Suspended", "False", "NotSuspended", "spec.suspend is false")
        alive = sum(not pod.finished for pod in self.world.pods)
        ending = f"{alive} pods have yet to end" if alive else "set spec.suspend to false to go on"
        return Condition("Suspended", "True", "Suspended", ending)


_BLOCKED = {
    "Unschedulable": ("Unschedulable", "Ask for less in spec.stages[].resources, or add nodes."),
    "SchedulingGated": ("Unschedulable", ""),
    "CreateContainerConfigError": ("ContainerNotStarted", "Create the Secret or ConfigMap that the job names."),
    "CreateContainerError": ("ContainerNotStarted", ""),
    "RunContainerError": ("ContainerNotStarted", ""),
}
"""What keeps a pod from starting → our reason and the remedy. Everything else is about its image."""
_IMAGE = ("ImagePullFailed", "Correct spec.image or spec.imagePullSecrets.")


# ---- the end ---------------------------------------------------------------------------------------------------------


def _after_the_end(job: ToolRLJob, status: ToolRLJobStatus, world: World, now: datetime) -> Decision:
    """Nothing changes any more; what still runs is stopped, and in the end the job deletes itself."""
    running = tuple(seen for seen in world.jobs if still_runs(seen, world.pods) and not seen.deleting)
    lost = job.spec.failure_policy.node_lost_seconds
    moments = {pod: moment for pod in world.pods if (moment := overdue_at(pod, lost))}
    wakes = [moment for moment in moments.values() if moment > now]
    expired = False
    if job.spec.ttl_seconds_after_finished is not None and status.completion_time is not None:
        end = status.completion_time + timedelta(seconds=job.spec.ttl_seconds_after_finished)
        expired = now >= end
        wakes += [] if expired else [end]
    return Decision(
        status,
        delete_jobs=running,
        delete_pods=tuple(orphans(world)),
        force_pods=tuple(pod for pod, moment in moments.items() if moment <= now),
        delete_self=expired,
        requeue_after=min(((wake - now).total_seconds() for wake in wakes), default=None),
    )


def refused(job_status: ToolRLJobStatus | None, reason: str, message: str, generation: int, now: datetime) -> (
    ToolRLJobStatus
):  # fmt: skip
    """The status of a job that cannot be worked on as it is: the manifest is not valid, or the API server refuses what
    follows from it. Everything else stays as it was."""
    status = job_status.model_copy(deep=True) if job_status else ToolRLJobStatus()
    status.observed_generation = generation
    return with_conditions(status, [Condition("Accepted", "False", reason, message)], generation, now)


def with_conditions(
    status: ToolRLJobStatus, conditions: Sequence[Condition], generation: int, now: datetime
) -> ToolRLJobStatus:
    """`status` with `conditions` merged into its own."""
    before = [condition.model_dump(mode="json", by_alias=True, exclude_none=True) for condition in status.conditions]
    merged = merge_conditions(before, conditions, generation, now)
    return ToolRLJobStatus.model_validate(dump(status) | {"conditions": merged})


def dump(status: ToolRLJobStatus) -> dict[str, Any]:
    """The status as the API server holds it."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


# ---- transitions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transition:
    """Something that happened, told once as an Event."""

    reason: str
    note: str
    occurrence: str
    """Tells it from a later one of the same reason."""
    warning: bool = False


def transitions(before: ToolRLJobStatus | None, after: ToolRLJobStatus) -> list[Transition]:
    """What happened between two statuses. The same two give the same list."""
    earlier = {stage.name: stage for stage in before.stages} if before else {}
    found = []
    for stage in after.stages:
        was = earlier.get(stage.name) or StageStatus(name=stage.name)
        where = f"{stage.name}/{was.attempt}"
        if stage.failure and stage.failure != was.failure:
            found.append(Transition("AttemptFailed", f"stage {stage.name}, {stage.failure}", where, warning=True))
        if stage.attempt > was.attempt and stage.state in ("Pending", "Restarting"):
            now = f"{stage.name}/{stage.attempt}"
            if stage.state == "Restarting":
                note = f"stage {stage.name} starts again as attempt {stage.attempt}"
                found.append(Transition("StageRestarting", note, now))
            elif was.attempt == 0:
                found.append(Transition("StageStarted", f"stage {stage.name} begins", now))
        if stage.state == "Succeeded" != was.state:
            found.append(Transition("StageSucceeded", f"stage {stage.name} succeeded", stage.name))
    return found + _of_conditions(before, after)


def _of_conditions(before: ToolRLJobStatus | None, after: ToolRLJobStatus) -> list[Transition]:
    old = {c.type: c for c in before.conditions} if before else {}
    found = []
    for condition in after.conditions:
        was = old.get(condition.type)
        said = was.status if was else "False"
        if condition.status == said:
            continue
        since = str(was.last_transition_time) if was else "first"
        if condition.type in ("Complete", "Failed"):
            found.append(Transition(condition.type, condition.message, "end", condition.type == "Failed"))
        elif condition.type == "Suspended":
            word = "Suspended" if condition.status == "True" else "Resumed"
            found.append(Transition(word, condition.message, since))
        elif condition.type == "Accepted" and condition.status == "False":
            found.append(Transition("Refused", condition.message, since, warning=True))
    if not old.get("Accepted"):
        found += [
            Transition("Refused", c.message, "first", warning=True)
            for c in after.conditions
            if c.type == "Accepted" and c.status == "False"
        ]
    return found
