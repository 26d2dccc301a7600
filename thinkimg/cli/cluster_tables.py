"""Jobs on a cluster as the terminal shows them: the list, one job's stages, its table of results."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thinkimg.api import Result, StageStatus
from thinkimg.cluster.status import notes_on, status_of, summary
from thinkimg.figures import duration, interval, percent

_MARKS = {"Succeeded": "[green]✔[/]", "Failed": "[red]✘[/]", "Running": "[cyan]▶[/]", "Restarting": "[yellow]↻[/]"}


def stage_tree(job: dict[str, Any], now: datetime | None = None) -> RenderableType:
    """A job for the terminal: its stages with marks and bars, and what has to be said about it."""
    now = now or datetime.now(UTC)
    status = status_of(job)
    head = Text.assemble((job["metadata"]["name"], "bold"), "  ", summary(status))
    stages = Table.grid(padding=(0, 2))
    names = [stage["name"] for stage in job["spec"]["stages"]]
    known = {stage.name: stage for stage in status.stages}
    listed = [name for name in known if name not in names] + names
    for number, name in enumerate(listed):
        branch = "└─" if number == len(listed) - 1 else "├─"
        stages.add_row(*_row(branch, known.get(name) or StageStatus(name=name), now))
    notes = [f"[yellow]{type_}[/] {escape(message)}" for type_, message in notes_on(status)]
    return Group(head, stages, *notes)


def _row(branch: str, stage: StageStatus, now: datetime) -> Sequence[RenderableType]:
    mark = _MARKS.get(stage.state, "[dim]·[/]")
    progress = stage.progress
    bar: RenderableType = ""
    notes = []
    if progress is not None and progress.total_steps and stage.state not in ("Succeeded", "Failed"):
        bar = ProgressBar(total=progress.total_steps, completed=progress.step, width=24)
        notes.append(f"{progress.step}/{progress.total_steps}")
    if progress is not None and stage.state != "Succeeded":
        notes += [f"{metric.name} {metric.value}" for metric in progress.metrics]
    if stage.checkpoint is not None and stage.state != "Succeeded":
        notes.append(f"checkpoint {stage.checkpoint.step}")
    if stage.attempt > 1:
        notes.append(f"attempt {stage.attempt}")
    if stage.start_time is not None:
        notes.append(
            duration(max(0.0, ((stage.completion_time or now) - stage.start_time).total_seconds()), decimals=0)
        )
    return f"{branch} {mark} {stage.name}", stage.state, bar, " · ".join(notes)


def job_list(jobs: Iterable[dict[str, Any]]) -> RenderableType:
    """All jobs of a namespace, one line each."""
    grid = Table(box=None, pad_edge=False)
    for title in ("NAME", "STATUS", "STAGES", "RESTARTS"):
        grid.add_column(title)
    for job in jobs:
        status = status_of(job)
        done = sum(stage.state == "Succeeded" for stage in status.stages)
        total = len(status.stages) or len(job["spec"]["stages"])
        grid.add_row(job["metadata"]["name"], summary(status), f"{done}/{total}", str(status.restarts))
    return grid


def results_table(results: Sequence[Result]) -> RenderableType:
    """The job's table, as far as it is there."""
    table = Table(box=None, pad_edge=False)
    for title in ("Model", "Accuracy", "95 % interval", "Tool calls per answer"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    for row in results:
        bounds = [float(figure) for figure in row.ci95]
        table.add_row(
            row.model,
            percent(float(row.accuracy)) if row.accuracy else "incomplete",
            interval(bounds or None),
            row.tool_calls_per_answer,
        )
    return table
