"""From a finished run to figures people read: one row per model, Markdown, plots, the terminal's table.

A run is a directory: `manifest.yaml`, `results.json`, and per stage `stages/<stage>/log.jsonl` (one JSON object per
step), `stages/<stage>/trajectories/*.jsonl` or, for an Evaluate stage, `<model>/greedy.jsonl` and `sampled.jsonl`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.table import Table

from thinkimg.api import read_yaml
from thinkimg.evaluation.curves import Curve, read_curve
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.origins import display_name, ordered_models, origins_of_run, trained_models
from thinkimg.evaluation.plots import write_plots
from thinkimg.figures import duration, interval, milliseconds, percent, rate
from thinkimg.jsonfile import read
from thinkimg.results import ModelFigures, RunResults, ToolFigures


@dataclass(frozen=True)
class ReportRow:
    """A model in the run's table.

    Attributes:
        training_seconds: wall time of the stage that trained it.
        stands_out: it is what the run is about.
    """

    model: str
    label: str
    figures: ModelFigures
    training_seconds: float | None
    stands_out: bool

    def accuracy_of(self, kind: str) -> float | None:
        """Of the answers to one kind of question."""
        return self.figures.by_kind[kind].accuracy if kind in self.figures.by_kind else None


@dataclass(frozen=True)
class Report:
    """Everything the report shows besides trajectories.

    Attributes:
        seconds: stage to wall time.
        plots: files below the run's folder.
    """

    name: str
    seed: int | None
    rows: Sequence[ReportRow]
    tools: Mapping[str, ToolFigures]
    seconds: Mapping[str, float]
    curves: Sequence[Curve]
    plots: Sequence[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Questions."""
        return max((row.figures.n for row in self.rows), default=0)

    @property
    def kinds(self) -> list[str]:
        """Of questions."""
        return sorted({kind for row in self.rows for kind in row.figures.by_kind})


def collect(run: Path) -> Report:
    """Read a run's folder.

    Raises:
        UserError: the run has no results yet, or a file that cannot be read.
    """
    results = read_results(run)
    logs = sorted(run.glob("stages/*/log.jsonl"), key=_stage_order(results))
    return Report(
        name=_job_name(run),
        seed=results.seed,
        rows=_rows(results, run),
        tools=results.tools,
        seconds={stage: seconds for stage, seconds in results.seconds.items() if seconds is not None},
        curves=[read_curve(log) for log in logs],
    )


def read_results(run: Path) -> RunResults:
    return read(run / "results.json", RunResults, "the run has no results yet; finish it with `thinkimg run`")


def _rows(results: RunResults, run: Path) -> list[ReportRow]:
    models = ordered_models(results.models)
    standing_out = trained_models(origins_of_run(run, results), models)
    return [
        ReportRow(
            model, display_name(model), results.models[model], results.seconds.get(model), model in standing_out
        )
        for model in models
    ]  # fmt: skip


def _job_name(run: Path) -> str:
    try:
        documents = read_yaml(run / "manifest.yaml")
    except (OSError, ValueError):
        return run.resolve().name
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "ToolRLJob":
            return str((document.get("metadata") or {}).get("name") or run.resolve().name)
    return run.resolve().name


def _stage_order(results: RunResults) -> Callable[[Path], tuple[int, str]]:
    order = list(results.seconds)
    return lambda log: (order.index(log.parent.name) if log.parent.name in order else len(order), log.parent.name)


def write_report(run: Path) -> Report:
    """Write `results.md` and `plots/*.png`; returns what the page is made from."""
    report = collect(run)
    plots = [path.relative_to(run).as_posix() for path in write_plots(report.curves, run / "plots")]
    report = replace(report, plots=plots)
    (run / "results.md").write_text(_markdown(report), encoding="utf-8")
    return report


# ---- Markdown -------------------------------------------------------------------------------------------------------


def _markdown(report: Report) -> str:
    seed = "" if report.seed is None else f", seed {report.seed}"
    lines = [f"# {report.name}", "", f"{report.n} held-out questions{seed}.", ""]
    lines += markdown_rows(HEADLINE, [_headline_cells(row) for row in report.rows])
    if report.kinds:
        lines += ["", "## By kind of question", "", *_kinds(report)]
    if report.tools:
        lines += ["", "## Tools", "", *_tools(report.tools)]
    if report.seconds:
        lines += ["", "## Time", ""]
        lines += markdown_rows(("Stage", "Time"), [(stage, duration(value)) for stage, value in report.seconds.items()])
    if report.plots:
        lines += ["", "## Training", "", *(f"![{Path(plot).stem}]({plot})" for plot in report.plots)]
    return "\n".join(lines) + "\n"


HEADLINE = ("Model", "Accuracy", "95 % interval", "Sampled (T = 1)", "Tool calls per answer", "Training", "Evaluation")


def _headline_cells(row: ReportRow) -> tuple[str, ...]:
    return (
        row.label,
        percent(row.figures.accuracy),
        interval(row.figures.ci95),
        percent(row.figures.accuracy_sampled),
        rate(row.figures.tool_calls_per_answer),
        duration(row.training_seconds),
        duration(row.figures.seconds),
    )


def _kinds(report: Report) -> list[str]:
    rows = [(row.label, *(percent(row.accuracy_of(kind)) for kind in report.kinds)) for row in report.rows]
    return markdown_rows(("Model", *report.kinds), rows)


def _tools(tools: Mapping[str, ToolFigures]) -> list[str]:
    return markdown_rows(
        ("Tool", "HTTP calls", "Cache hits", "Model errors", "Infrastructure errors", "p50", "p95"),
        [
            (
                name,
                f"{figures.http_calls:,}",
                f"{figures.cache_hits:,}",
                f"{figures.errors.model:,}",
                f"{figures.errors.infrastructure:,}",
                milliseconds(figures.p50_ms),
                milliseconds(figures.p95_ms),
            )
            for name, figures in tools.items()
        ],
    )


# ---- the terminal ---------------------------------------------------------------------------------------------------


def terminal_table(report: Report) -> Table:
    """The headline table, short enough for 80 columns."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, title in enumerate(("Model", "Greedy", "95 % interval", "Sampled", "Tool calls", "Training")):
        table.add_column(title, justify="left" if number == 0 else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_headline_cells(row)[:6], style="bold" if row.stands_out else None)
    return table
