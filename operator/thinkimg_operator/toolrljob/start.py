"""When an attempt may start: what has to be there first, and that nothing of an earlier attempt is left."""

from __future__ import annotations

from thinkimg.api import StageStatus

from .case import Case
from .pins import pin_start
from .render import calls_tools
from .tools_ready import tools_condition


def begin(case: Case) -> None:
    """Give the current stage its first attempt, once nothing is missing."""
    stage = case.current
    if stage is None or stage.attempt or waits_for(case, stage):
        return
    stage.attempt, stage.start_time = 1, case.now
    if case.status.start_time is None:
        case.status.start_time = case.now
        pin_start(case)


def waits_for(case: Case, stage: StageStatus) -> tuple[str, str] | None:
    """Reason and message of what has to be there before an attempt of the stage; None when all is there."""
    if case.job.spec.scheduling.gang != "None":
        return "NotStarted", "see the condition Accepted"
    if case.world.missing_claims:
        names = ", ".join(case.world.missing_claims)
        return "ClaimNotFound", (
            f"there is no PersistentVolumeClaim {names} in this namespace; create it, or correct "
            "spec.storage.claimName and the pvc:// URIs"
        )
    if case.world.missing_code:
        return "CodeNotFound", (
            f"there is no ConfigMap {case.world.missing_code} in this namespace; create it, or correct "
            "spec.code.configMapRef"
        )
    tools = tools_condition(case)
    needed = case.status.start_time is None or calls_tools(case.job, stage.name)
    if needed and tools.status != "True":
        return "WaitingForTools", tools.message
    return None


def to_create(case: Case) -> tuple[str, int] | None:
    """Stage and attempt whose Job is to be made now."""
    stage = case.current
    if stage is None or case.suspended or stage.state == "Running" or not stage.attempt:
        return None
    if case.job_of(stage) is not None or case.remains_of(stage) or waits_for(case, stage):
        return None
    if stage.restart_time is not None and case.now < stage.restart_time:
        return None
    return stage.name, stage.attempt
