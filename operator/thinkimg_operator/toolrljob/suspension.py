"""`spec.suspend`: how long a job was suspended, and what is said of it."""

from __future__ import annotations

from ..conditions import Condition
from .case import Case


def count_suspended_time(case: Case) -> None:
    """When the job is resumed, add up how long it was suspended."""
    before = case.condition("Suspended")
    if before and before.status == "True" and not case.suspended and case.status.start_time:
        since = max(before.last_transition_time or case.now, case.status.start_time)
        case.status.suspended_seconds += max(0, int((case.now - since).total_seconds()))


def suspended_condition(case: Case) -> Condition:
    if case.failed or case.current is None or not case.suspended:
        return Condition("Suspended", "False", "NotSuspended", "spec.suspend is false")
    alive = sum(not pod.finished for pod in case.world.pods)
    ending = f"{alive} pods have yet to end" if alive else "set spec.suspend to false to go on"
    return Condition("Suspended", "True", "Suspended", ending)
