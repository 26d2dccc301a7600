"""A ToolRLJob's status: what it means that it is over, and how conditions get into it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from thinkimg.api import ToolRLJobStatus

from ..conditions import Condition, merge_conditions


def terminal(status: ToolRLJobStatus | None) -> bool:
    """Complete or Failed, for good."""
    return status is not None and any(
        c.type in ("Complete", "Failed") and c.status == "True" for c in status.conditions
    )


def refused(
    before: ToolRLJobStatus | None, reason: str, message: str, generation: int, now: datetime
) -> ToolRLJobStatus:
    """The status of a job that cannot be worked on as it is: the manifest is not valid, or the API server refuses what
    follows from it. Everything else stays as it was."""
    status = before.model_copy(deep=True) if before else ToolRLJobStatus()
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
