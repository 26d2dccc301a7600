"""What became of the current attempt: it runs, has succeeded, has failed, or is interrupted by a suspension."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from thinkimg.api import StageStatus

from .attempts import JobSeen, PodSeen, failure_of
from .case import Case
from .failure_policy import restart_or_fail
from .pins import note_image
from .progress import read_checkpoint, read_progress, read_results
from .render import pods_of

_MOST_RESULTS = 20
SIDECAR_PATIENCE = timedelta(seconds=60)
"""What other containers of a pod have for their end after the stage's; then the Job is deleted to end them."""


def advance(case: Case) -> None:
    """Note it in the status, and go on to the next stage when this one has succeeded."""
    stage = case.current
    if stage is None:
        return
    job, pods = case.job_of(stage), case.pods_of(stage)
    if stage.state in ("Pending", "Restarting") and job is not None and not job.deleting:
        stage.state, stage.job_name, stage.restart_time = "Running", job.name, None
        stage.attempt_start_time = job.created
    if stage.state == "Running":
        stage.ready_pods = sum(pod.ready for pod in pods)
        note_image(case, stage, pods)
        _read(case, stage, pods)
        _judge(case, stage, job, pods)
    elif job is not None or pods:
        # The attempt was made and deleted before it was seen to run. Its number is used up: the next attempt takes a
        # new one, so that a Job's name is never used twice.
        stage.attempt += 1


def _judge(case: Case, stage: StageStatus, job: JobSeen | None, pods: Sequence[PodSeen]) -> None:
    """Decide about a running attempt."""
    patience = timedelta(seconds=case.policy.node_lost_seconds)
    if _succeeded(case, stage, job, pods):
        stage.state, stage.completion_time, stage.ready_pods = "Succeeded", case.now, 0
        advance(case)
    elif (failure := failure_of(job, pods, case.now - patience)) is not None:
        restart_or_fail(case, stage, failure)
    elif case.suspended:
        stage.state, stage.ready_pods = "Pending", 0
        stage.attempt += 1
    else:
        case.wakes += [pod.lost_since + patience for pod in pods if pod.lost_since]


def _succeeded(case: Case, stage: StageStatus, job: JobSeen | None, pods: Sequence[PodSeen]) -> bool:
    """Whether the stage is done on every rank. Its Job says so, unless other containers fail in the end or run on."""
    if job is None or job.complete:
        return job is not None
    done = {pod.index: pod for pod in pods if pod.succeeded}
    if len(done) < pods_of(case.job, stage.name):
        return False
    if job.failed:
        return True
    ends = [pod.succeeded_at + SIDECAR_PATIENCE for pod in done.values() if pod.lingering and pod.succeeded_at]
    if not ends:
        return False  # the Job will say so in a moment
    case.wakes.append(max(ends))
    return case.now >= max(ends)


def _read(case: Case, stage: StageStatus, pods: Sequence[PodSeen]) -> None:
    """Progress from the log, results from the last words of rank 0. Nothing is decided by either."""
    if case.world.progress is not None:
        stage.progress = read_progress(case.world.progress, stage.progress, case.now)
        stage.checkpoint = read_checkpoint(case.world.progress) or stage.checkpoint
    rows = [
        row for pod in pods if pod.index == 0 and (pod.finished or pod.succeeded) for row in read_results(pod.message)
    ]
    if rows:
        known = {result.model: result for result in case.status.results} | {row.model: row for row in rows}
        case.status.results = list(known.values())[:_MOST_RESULTS]
