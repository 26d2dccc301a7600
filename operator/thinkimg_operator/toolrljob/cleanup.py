"""What is removed: Jobs and pods of earlier attempts, what still runs at the end, and pods that will not go."""

from __future__ import annotations

from collections.abc import Iterator

from .attempts import JobSeen, PodSeen, overdue_at, still_runs
from .case import Case


def obsolete_jobs(case: Case, ended: bool) -> Iterator[JobSeen]:
    """Jobs of earlier attempts, and what still runs of stages that have succeeded; when the job has ended, whatever
    still runs."""
    outdated = case.is_outdated()
    succeeded = {stage.name for stage in case.status.stages if stage.state == "Succeeded"}
    for job in case.world.jobs:
        over = ended or job.stage in succeeded
        if not job.deleting and (outdated(job) or (over and still_runs(job, case.world.pods))):
            yield job


def running_jobs(case: Case) -> Iterator[JobSeen]:
    """Jobs that somebody has to delete to end them."""
    for job in case.world.jobs:
        if not job.deleting and still_runs(job, case.world.pods):
            yield job


def orphaned_pods(case: Case, ended: bool) -> Iterator[PodSeen]:
    """Pods without a Job, of earlier attempts or of a job that has ended: nobody else deletes them."""
    outdated = case.is_outdated()
    for pod in case.world.orphans():
        if outdated(pod) or ended:
            yield pod


def overdue_pods(case: Case) -> Iterator[PodSeen]:
    """Pods that should be gone by now; wakes up when others will be overdue."""
    for pod in case.world.pods:
        moment = overdue_at(pod, case.policy.node_lost_seconds)
        if moment is not None and moment <= case.now:
            yield pod
        elif moment is not None:
            case.wakes.append(moment)
