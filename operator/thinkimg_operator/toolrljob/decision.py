"""What a ToolRLJob does next. Pure: the job, the world as it was seen, and the time give the new status and what is to
be written after it. Each rule has a file of its own in this package; here they are put in order.

The status is written before anything is done, and a status written from an old view is refused by the API server.
So whatever happens in between, the next pass finds in the status what was decided, and does it: an attempt that the
status names is made, Jobs of earlier attempts are deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from thinkimg.api import StageStatus, ToolRLJob, ToolRLJobStatus

from .advance import advance
from .attempts import JobSeen, PodSeen
from .case import Case
from .cleanup import obsolete_jobs, orphaned_pods, overdue_pods, running_jobs
from .deadlines import check_deadlines
from .pins import pin_started
from .progress import PROGRESS_SECONDS
from .render import plan
from .report import reported
from .start import begin, to_create, waits_for
from .status import terminal
from .suspension import count_suspended_time
from .time_to_live import expires_at
from .world import World

POLL_SECONDS = 5.0
"""Pause between two looks at the tools and claims that a job waits for. They are not watched."""


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


def decide(job: ToolRLJob, world: World, now: datetime) -> Decision:
    """The next status of a job, and what to do."""
    now = now.astimezone(UTC).replace(microsecond=0)
    status = job.status.model_copy(deep=True) if job.status else ToolRLJobStatus()
    case = Case(job, status, world, now)
    if terminal(status):
        return _after_the_end(case)
    names = plan(job)
    if [stage.name for stage in status.stages] != names and status.start_time is None:
        status.stages = [StageStatus(name=name) for name in names]
    if _is_newer(world, status):
        return Decision(status, stale=True)
    pin_started(case)
    advance(case)
    if case.failed is None:
        count_suspended_time(case)
        check_deadlines(case)
    if case.failed is None and not case.suspended:
        begin(case)
    return _follow(case)


def _is_newer(world: World, status: ToolRLJobStatus) -> bool:
    """Whether the world shows an attempt that the status does not know yet."""
    attempts = {stage.name: stage.attempt for stage in status.stages}
    seen: list[JobSeen | PodSeen] = [*world.jobs, *world.pods]
    return any(one.attempt > attempts.get(one.stage, 0) for one in seen)


def _follow(case: Case) -> Decision:
    """What follows for a job that was not over before."""
    status = reported(case)
    ended = terminal(status)
    return Decision(
        status,
        create=None if ended else to_create(case),
        delete_jobs=tuple(obsolete_jobs(case, ended)),
        delete_pods=tuple(orphaned_pods(case, ended)),
        force_pods=tuple(overdue_pods(case)),
        requeue_after=None if ended else _requeue_after(case),
    )


def _after_the_end(case: Case) -> Decision:
    """Nothing changes any more; what still runs is stopped, and in the end the job deletes itself."""
    end = expires_at(case)
    expired = end is not None and case.now >= end
    if end is not None and not expired:
        case.wakes.append(end)
    force_pods = tuple(overdue_pods(case))
    return Decision(
        case.status,
        delete_jobs=tuple(running_jobs(case)),
        delete_pods=tuple(case.world.orphans()),
        force_pods=force_pods,
        delete_self=expired,
        requeue_after=min(((wake - case.now).total_seconds() for wake in case.wakes), default=None),
    )


def _requeue_after(case: Case) -> float | None:
    """Seconds until time alone changes something."""
    stage = case.current
    seconds = [max(0.0, (wake - case.now).total_seconds()) for wake in case.wakes]
    if stage is not None and stage.state == "Running":
        seconds.append(PROGRESS_SECONDS)
    elif stage is not None and not case.suspended:
        if stage.restart_time is not None and stage.restart_time > case.now:
            seconds.append((stage.restart_time - case.now).total_seconds())
        if stage.attempt or waits_for(case, stage):
            seconds.append(POLL_SECONDS)
    return min(seconds, default=None)
