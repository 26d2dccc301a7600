"""`spec.ttlSecondsAfterFinished`: when a job that is over deletes itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from .case import Case


def expires_at(case: Case) -> datetime | None:
    """When the job is to be deleted; None: never, or it is not over."""
    seconds, ended = case.job.spec.ttl_seconds_after_finished, case.status.completion_time
    return None if seconds is None or ended is None else ended + timedelta(seconds=seconds)
