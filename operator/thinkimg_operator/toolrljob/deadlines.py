"""`spec.activeDeadlineSeconds` and `spec.startDeadlineSeconds`: a job that takes too long fails."""

from __future__ import annotations

from datetime import datetime, timedelta

from thinkimg.api import StageStatus

from .case import Case


def check_deadlines(case: Case) -> None:
    """End the job when one of its deadlines has passed; otherwise wake up when it will. None passes while the job is
    suspended."""
    stage = case.current
    if stage is None or case.suspended:
        return
    _check_active(case, stage)
    if case.failed is None:
        _check_start(case, stage)


def _check_active(case: Case, stage: StageStatus) -> None:
    active = case.job.spec.active_deadline_seconds
    if active is None or case.status.start_time is None:
        return
    end = case.status.start_time + timedelta(seconds=active + case.status.suspended_seconds)
    if case.now >= end:
        message = f"it was active for more than {active} s; raise spec.activeDeadlineSeconds, or ask for less"
        case.fail(stage, "ActiveDeadlineExceeded", message)
    else:
        case.wakes.append(end)


def _check_start(case: Case, stage: StageStatus) -> None:
    start, waiting_since = case.job.spec.start_deadline_seconds, _waiting_since(case, stage)
    if start is None or waiting_since is None:
        return
    end = waiting_since + timedelta(seconds=start)
    if case.now >= end:
        why = case.condition("PodsReady")
        message = f"stage {stage.name} was not ready after {start} s: {why.message if why else ''}"
        case.fail(stage, "StartDeadlineExceeded", message)
    else:
        case.wakes.append(end)


def _waiting_since(case: Case, stage: StageStatus) -> datetime | None:
    """Since when the stage has waited for tools, claims or pods; None while it does not wait, because all pods are
    ready, or because an earlier attempt has yet to end."""
    before = case.condition("PodsReady")
    if before is None or before.status != "False" or case.all_ready(stage) or stage.state == "Restarting":
        return None
    if before.reason == "NodeLost":  # it was ready, and has a time limit of its own
        return None
    ended = [s.completion_time for s in case.status.stages if s.completion_time is not None]
    began = stage.attempt_start_time if stage.state == "Running" else None
    return max(filter(None, [before.last_transition_time, stage.start_time, began, *ended]), default=None)
