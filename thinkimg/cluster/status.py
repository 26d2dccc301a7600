"""Where a job on a cluster stands, read from its status."""

from collections.abc import Iterator
from typing import Any

from thinkimg.api import ToolRLJobStatus, read_stored


def status_of(job: dict[str, Any]) -> ToolRLJobStatus:
    """The status as the API server has it; empty when the operator has not seen the job yet."""
    return read_stored(ToolRLJobStatus, job.get("status") or {})


def is_over(status: ToolRLJobStatus) -> bool:
    """Complete or Failed."""
    return any(c.type in ("Complete", "Failed") and c.status == "True" for c in status.conditions)


def summary(status: ToolRLJobStatus) -> str:
    """Where a job stands, in a few words."""
    if not status.conditions:
        return "not seen by an operator yet"
    said = {condition.type: condition for condition in status.conditions}
    for type_ in ("Complete", "Failed", "Suspended"):
        if type_ in said and said[type_].status == "True":
            return type_
    if "Accepted" in said and said["Accepted"].status == "False":
        return "Refused"
    current = next((stage for stage in status.stages if stage.name == status.current_stage), None)
    if current is None:
        return "Waiting"
    again = f", attempt {current.attempt}" if current.attempt > 1 else ""
    return f"{current.state}: {current.name}{again}"


def notes_on(status: ToolRLJobStatus) -> Iterator[tuple[str, str]]:
    """What somebody has to do something about, or wait for."""
    said = {condition.type: condition for condition in status.conditions}
    if "Failed" in said and said["Failed"].status == "True":
        yield said["Failed"].reason, said["Failed"].message
        return
    for type_ in ("Accepted", "ToolsReady", "PodsReady"):
        condition = said.get(type_)
        if condition is not None and condition.status == "False" and condition.reason != "Finished":
            yield condition.reason, condition.message
            return
