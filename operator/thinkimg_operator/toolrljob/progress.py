"""What stages say of themselves, as status: progress lines and the rows of the table. Nothing is decided by either."""

from __future__ import annotations

from datetime import datetime

from thinkimg.api import CheckpointStatus, Metric, Progress, Result
from thinkimg.api.pod_contract import ProgressLine, TerminationMessage

from .attempts import not_understood

PROGRESS_SECONDS = 15.0
"""Shortest pause between two readings of a running stage's log."""
_MOST_METRICS = 10


def read_progress(line: ProgressLine, before: Progress | None, now: datetime) -> Progress | None:
    """A progress line as status; `before` where it says no step. The time moves only with the figures."""
    if line.step is None:
        return before
    metrics = [Metric(name=name, value=f"{value:.4g}") for name, value in line.figures.items()]
    progress = Progress(
        step=line.step,
        total_steps=line.total_steps or None,
        metrics=metrics[:_MOST_METRICS],
        observed_time=before.observed_time if before else None,
    )
    if progress == before:
        return before
    progress.observed_time = now
    return progress


def read_checkpoint(line: ProgressLine) -> CheckpointStatus | None:
    """The newest complete checkpoint, where the line names one."""
    saved = line.checkpoint
    return None if saved is None else CheckpointStatus(step=saved.step, path=saved.path, time=saved.time)


def read_results(message: str) -> list[Result]:
    """The table's rows in a termination message; none of a stage whose version of the contract is not known."""
    words = TerminationMessage.parse(message)
    if words is None or not_understood(words):
        return []
    return [Result(**row.model_dump()) for row in words.results]
