"""From a finished run to figures people read: one row per model, Markdown, plots, the terminal's table.

A run is a directory: `manifest.yaml`, `results.json`, and per stage `stages/<stage>/log.jsonl` (one JSON object per
step), `stages/<stage>/trajectories/*.jsonl` or, for an Evaluate stage, `<model>/greedy.jsonl` and `sampled.jsonl`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.table import Table

from thinkimg.api import read_yaml
from thinkimg.evaluation import owed, samples
from thinkimg.evaluation.curves import Curve, read_curve
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.origins import display_name, ordered_models, origins_of_run, trained_models
from thinkimg.evaluation.plots import write_plots
from thinkimg.evaluation.roles import in_words, roles_beside, score_of, shown_roles
from thinkimg.figures import UNKNOWN, accuracy, duration, interval, milliseconds, rate
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

    def mean_of(self, role: str) -> str:
        """Of the official score, or of the normalised one."""
        found = score_of(self.figures.scores, role)
        return accuracy(found[1].mean, found[1].bounds) if found else UNKNOWN

    def accuracy_of(self, kind: str) -> str:
        """Of the answers to one kind of question."""
        found = self.figures.by_kind.get(kind)
        return accuracy(found.accuracy, found.bounds) if found else UNKNOWN


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
        return max((row.figures.n + row.figures.infrastructure for row in self.rows), default=0)

    @property
    def lost(self) -> str:
        """Whose answers were lost, as a sentence; empty when none were."""
        counts = [(row.label, row.figures.infrastructure + row.figures.infrastructure_sampled) for row in self.rows]
        lost = ", ".join(f"{label} {count:,}" for label, count in counts if count)
        return f"Lost to the infrastructure, so neither right nor wrong: answers of {lost}." if lost else ""

    @property
    def roles(self) -> list[str]:
        """The kinds of scores that are shown beside the accuracy: both, where answers have both."""
        return shown_roles(row.figures.scores for row in self.rows)

    @property
    def scorers(self) -> str:
        """See `roles.in_words`."""
        return in_words(row.figures.scores for row in self.rows)

    @property
    def sample_rows(self) -> list[tuple[str, ...]]:
        """What several answers to each question say: see `samples.cells`."""
        return samples.cells((row.label, row.figures.samples) for row in self.rows)

    @property
    def ties(self) -> str:
        return samples.ties((row.label, row.figures.samples) for row in self.rows)

    @property
    def control_rows(self) -> list[tuple[str, ...]]:
        """What the same questions with changed pictures say: see `owed.cells`."""
        return owed.cells((row.label, row.figures.controls) for row in self.rows)

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
    head = (*HEADLINE[:3], *map(str.capitalize, report.roles), *HEADLINE[3:])
    lines += markdown_rows(head, [_headline_cells(row, report.roles) for row in report.rows])
    if report.scorers:
        lines += ["", report.scorers]
    if report.lost:
        lines += ["", report.lost]
    if report.kinds:
        lines += ["", "## By kind of question", "", *_kinds(report)]
    if report.sample_rows:
        lines += ["", "## Several answers to each question", "", *markdown_rows(samples.HEAD, report.sample_rows)]
    if report.ties:
        lines += ["", report.ties]
    if report.control_rows:
        lines += ["", "## The same questions with changed pictures", "", *markdown_rows(owed.HEAD, report.control_rows)]
    if report.tools:
        lines += ["", "## Tools", "", *_tools(report.tools)]
    if report.seconds:
        lines += ["", "## Time", ""]
        lines += markdown_rows(("Stage", "Time"), [(stage, duration(value)) for stage, value in report.seconds.items()])
    if report.plots:
        lines += ["", "## Training", "", *(f"![{Path(plot).stem}]({plot})" for plot in report.plots)]
    return "\n".join(lines) + "\n"


HEADLINE = ("Model", "Accuracy", "95 % interval", "Sampled (T = 1)", "Tool calls per answer", "Training", "Evaluation")


def _headline_cells(row: ReportRow, roles: Sequence[str]) -> tuple[str, ...]:
    found = row.figures
    return (
        row.label,
        accuracy(found.accuracy, found.bounds, found.refused, found.context_full),
        interval(found.ci95),
        *(row.mean_of(role) for role in roles),
        accuracy(found.accuracy_sampled, found.bounds_sampled, found.refused_sampled, found.context_full_sampled),
        rate(found.tool_calls_per_answer),
        duration(row.training_seconds),
        duration(found.seconds),
    )


def _kinds(report: Report) -> list[str]:
    rows = [(row.label, *(row.accuracy_of(kind) for kind in report.kinds)) for row in report.rows]
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
    """The headline table, short enough for 80 columns: of the two scores the one that does not decide."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    beside = roles_beside(row.figures.scores for row in report.rows)
    titles = ("Model", "Greedy", "95 % interval", *map(str.capitalize, beside), "Sampled", "Calls", "Training")
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number == 0 else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_headline_cells(row, beside)[: len(titles)], style="bold" if row.stands_out else None)
    sampled = [f"{model}: {name} {score} ({bounds})" for model, name, score, bounds in report.sample_rows]
    changed = owed.notes(report.control_rows)
    if notes := [note for note in (*sampled, report.ties, *changed, report.lost) if note]:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table
