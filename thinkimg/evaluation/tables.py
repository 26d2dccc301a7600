"""Several models on the same questions in one table, with paired differences: Markdown, CSV, LaTeX, JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation import owed, samples
from thinkimg.evaluation.compare import Answered, Difference, paired_difference
from thinkimg.evaluation.intervals import RESAMPLES, Answer, Interval, bounds_of, mean_of, mean_over
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.output import COSTS, ITEMS, RESULTS
from thinkimg.evaluation.roles import score_of
from thinkimg.evaluation.summary import answer_of
from thinkimg.figures import accuracy, duration, interval, percent, rate
from thinkimg.jsonfile import read, reasons
from thinkimg.results import (
    ROLES,
    AnswerRow,
    ControlFigures,
    EvaluationCosts,
    EvaluationResults,
    Percentiles,
    SampleFigures,
)
from thinkimg.trajectory import LOST


@dataclass(frozen=True)
class Entry:
    """One model on one task, as its output folder has it.

    Attributes:
        scores: question -> score; without those that the infrastructure lost.
        mean, ci95: None where answers were lost; `bounds` then say what the mean can be.
        refused, context_full: questions that count as wrong because the endpoint did not take them, or no longer.
        errors: failed tool calls and unreadable replies, per answer.
        p50, p95: seconds of a question.
        official, normalised: means of the benchmark's two scores; None where it was not computed, or answers were lost.
    """

    task: str
    model: str
    scores: Answered
    mean: float | None
    ci95: Interval | None
    bounds: Interval | None
    lost: int
    refused: int
    context_full: int
    tool_calls: float | None
    errors: float
    p50: float | None
    p95: float | None
    cost: float
    samples: SampleFigures | None
    controls: Sequence[ControlFigures]
    official: float | None = None
    normalised: float | None = None


@dataclass(frozen=True)
class Pair:
    """`model` minus `baseline` on the questions that both answered."""

    task: str
    model: str
    baseline: str
    n: int
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    scorer: str
    entries: Sequence[Entry]
    pairs: Sequence[Pair]


def compare(
    folders: Sequence[Path], scorer: str | None = None, baseline: str | None = None, resamples: int = RESAMPLES
) -> Comparison:
    """Read outputs of `thinkimg eval` and compare every model with a baseline, task by task.

    Args:
        folders: what `--out` was, or one task's folder in it.
        scorer: which of the scores; None: what each task calls right.
        baseline: name of a model; None: the first.

    Raises:
        UserError: an output without results, without the scorer; two of the same model and task; nothing in common.
    """
    entries = [_read(folder, scorer) for given in folders for folder in _task_folders(given)]
    names = [(entry.task, entry.model) for entry in entries]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"there are two results of {twice[1]} on {twice[0]}; give one another --name", "FOLDER")
    models = list(dict.fromkeys(entry.model for entry in entries))
    if baseline is not None and baseline not in models:
        raise UserError(f"there is no model {baseline!r}; there are {', '.join(models)}", "--baseline")
    first = baseline or models[0]
    by_task: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.task, {})[entry.model] = entry
    pairs = [
        _pair(entry, rows[first], resamples)
        for rows in by_task.values()
        if first in rows
        for name, entry in rows.items()
        if name != first
    ]
    return Comparison(scorer or "correct", entries, pairs)


def _task_folders(folder: Path) -> list[Path]:
    found = [folder] if (folder / RESULTS).exists() else sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    if not found:
        raise UserError("no results here; finish it with `thinkimg eval`", str(folder))
    return found


def _read(folder: Path, scorer: str | None) -> Entry:
    results = read(folder / RESULTS, EvaluationResults)
    costs = read(folder / COSTS, EvaluationCosts)
    scorer = _named(scorer, results, folder)
    answers: dict[str, list[Answer]] = {}
    for row in _rows(folder / ITEMS):
        if row.status not in LOST:
            answers.setdefault(row.sample_of or row.id, []).append(answer_of(row, _score(row, scorer, folder)))
    scores = {question: mean_of(found) for question, found in answers.items()}
    if not scores:
        raise UserError("no answer counts: all were lost to the infrastructure", str(folder))
    lost, every = results.infrastructure, [answer for found in answers.values() for answer in found]
    n, found = len(every), mean_over([every])
    seconds = costs.seconds_per_answer or Percentiles()
    return Entry(
        task=results.task,
        model=results.model,
        scores=scores,
        mean=None if lost else found.mean,
        ci95=None if lost else found.ci95,
        bounds=bounds_of(found.mean * n, n, lost),
        lost=lost,
        refused=results.refused,
        context_full=results.context_full,
        tool_calls=results.tool_calls_per_answer,
        errors=(sum(results.errors.values()) + results.malformed) / n,
        p50=seconds.p50,
        p95=seconds.p95,
        cost=costs.cost or 0.0,
        samples=results.samples,
        controls=results.controls,
        **{role: of_role[1].mean for role in ROLES if (of_role := score_of(results.scores, role))},
    )


def _named(scorer: str | None, results: EvaluationResults, folder: Path) -> str | None:
    """The scorer that `official` or `normalised` means here."""
    if scorer not in ROLES:
        return scorer
    found = score_of(results.scores, scorer)
    if found is None:
        raise UserError(f"no {scorer} score; run `thinkimg eval` again with --scorer {scorer}", str(folder))
    return found[0]


def _rows(path: Path) -> Iterator[AnswerRow]:
    for line in jsonl.lines(path):
        try:
            yield AnswerRow.model_validate(jsonl.parse(line.text))
        except ValueError as error:
            raise UserError(f"line {line.number} is not an answer's row: {reasons(error)}", str(path)) from error


def _score(row: AnswerRow, scorer: str | None, folder: Path) -> float:
    if scorer is None:
        return float(row.correct)
    value = row.scores.get(scorer)
    if value is None:
        known = ", ".join(row.scores) or "none"
        raise UserError(
            f"no score {scorer!r}, there are {known}; run `thinkimg eval` again with --scorer {scorer}", str(folder)
        )
    return value


def _pair(entry: Entry, baseline: Entry, resamples: int) -> Pair:
    found = paired_difference([entry.scores], [baseline.scores], resamples)
    if found is None:
        raise UserError(f"{entry.model} and {baseline.model} have no question in common", entry.task)
    both = len(entry.scores.keys() & baseline.scores.keys())
    return Pair(entry.task, entry.model, baseline.model, both, found)


# ---- as people and programs read it ----------------------------------------------------------------------------------

HEAD = (
    "Task",
    "Model",
    "Questions",
    "Score",
    "95 % interval",
    "Official",
    "Normalised",
    "Tool calls",
    "Errors",
    "p50",
    "p95",
    "Cost",
    "Lost",
)
PAIR_HEAD = ("Task", "Model", "minus", "Questions", "Points", "95 % interval", "p")


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.task,
        entry.model,
        f"{len(entry.scores):,}",
        accuracy(entry.mean, entry.bounds, entry.refused, entry.context_full),
        interval(entry.ci95),
        percent(entry.official),
        percent(entry.normalised),
        rate(entry.tool_calls),
        f"{entry.errors:.2f}",
        duration(entry.p50),
        duration(entry.p95),
        f"{entry.cost:.4g}" if entry.cost else "–",
        str(entry.lost),
    )


def _pair_cells(pair: Pair) -> tuple[str, ...]:
    low, high = pair.difference.ci95
    return (
        pair.task,
        pair.model,
        pair.baseline,
        f"{pair.n:,}",
        f"{100 * pair.difference.difference:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        "< 0.001" if pair.difference.p < 0.001 else f"{pair.difference.p:.3f}",
    )


def as_markdown(found: Comparison) -> str:
    lines = [f"Score: {found.scorer}. Tool calls and errors per answer; p50 and p95 of a question's time.", ""]
    lines += markdown_rows(HEAD, [_cells(entry) for entry in found.entries])
    if found.pairs:
        lines += ["", "Differences on the same questions (paired bootstrap, clustered by picture):", ""]
        lines += markdown_rows(PAIR_HEAD, [_pair_cells(pair) for pair in found.pairs])
    sampled = _sampled(found)
    if rows := samples.cells(sampled):
        lines += ["", "Several answers to each question:", "", *markdown_rows(samples.HEAD, rows)]
    if undecided := samples.ties(sampled):
        lines += ["", undecided]
    if rows := _owed(found):
        lines += ["", "The same questions with changed pictures:", "", *markdown_rows(owed.HEAD, rows)]
    return "\n".join(lines) + "\n"


def _owed(found: Comparison) -> list[tuple[str, ...]]:
    return [
        row
        for entry in found.entries
        for row in owed.cells(f"{entry.model} ({entry.task})", accuracy(entry.mean, entry.bounds), entry.controls)
    ]


def _sampled(found: Comparison) -> list[tuple[str, SampleFigures | None]]:
    return [(f"{entry.model} ({entry.task})", entry.samples) for entry in found.entries]


def _plain(text: str | None) -> str | None:
    """A cell that no spreadsheet takes for a formula: names are somebody's to choose."""
    return f"'{text}" if text and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def as_csv(found: Comparison) -> str:
    """A row per model and task; the last columns are its difference from the baseline."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ("task", "model", "questions", "scorer", "score", "low", "high", "tool_calls", "errors", "p50_seconds",
         "p95_seconds", "cost", "refused", "context_full", "lost", "least", "most", "official", "normalised",
         "baseline", "difference", "difference_low", "difference_high", "p", *SAMPLED)
    )  # fmt: skip
    pairs = {(pair.task, pair.model): pair for pair in found.pairs}
    for entry in found.entries:
        pair = pairs.get((entry.task, entry.model))
        compared = (
            (_plain(pair.baseline), pair.difference.difference, *pair.difference.ci95, pair.difference.p)
            if pair
            else ()
        )
        names = (_plain(entry.task), _plain(entry.model), len(entry.scores), _plain(found.scorer))
        shares = (entry.mean, *(entry.ci95 or ("", "")))
        wrong = (entry.refused, entry.context_full)
        lost = (entry.lost, *(entry.bounds or ("", "")))
        writer.writerow(
            (*names, *shares, entry.tool_calls, entry.errors,
             entry.p50, entry.p95, entry.cost, *wrong, *lost, entry.official, entry.normalised, *compared,
             *[""] * (5 - len(compared)), *_sampled_cells(entry))
        )  # fmt: skip
    return out.getvalue()


SAMPLED = ("samples", "average", "pass", "majority", "ties")
"""Columns of the CSV: avg@k, pass@k and majority of `samples` answers."""


def _sampled_cells(entry: Entry) -> tuple[object, ...]:
    if (figures := entry.samples) is None:
        return ("",) * len(SAMPLED)
    passed = figures.pass_at[figures.samples]
    return figures.samples, figures.average.mean, passed.mean, figures.majority.mean, figures.ties


_LATEX = str.maketrans(
    {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "–": "--", "<": r"$<$", ">": r"$>$",
     "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
     "\n": " ", "\r": " "}
)  # fmt: skip


def as_latex(found: Comparison) -> str:
    """A `tabular` per table, with booktabs' rules."""
    parts = [_tabular(HEAD, [_cells(entry) for entry in found.entries], 2)]
    if found.pairs:
        parts.append(_tabular(PAIR_HEAD, [_pair_cells(pair) for pair in found.pairs], 3))
    if rows := samples.cells(_sampled(found)):
        parts.append(_tabular(samples.HEAD, rows, 2))
    if rows := _owed(found):
        parts.append(_tabular(owed.HEAD, rows, 2))
    return "\n".join(parts)


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"

    columns = "l" * texts + "r" * (len(head) - texts)
    body = [line(row) for row in rows]
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(head), r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def as_json(found: Comparison) -> str:
    entries = [
        {
            **{key: value for key, value in asdict(entry).items() if key not in ("scores", "samples", "controls")},
            "questions": len(entry.scores),
            "samples": entry.samples and entry.samples.model_dump(mode="json"),
            "controls": [one.model_dump(mode="json") for one in entry.controls],
        }
        for entry in found.entries
    ]
    document = {"scorer": found.scorer, "models": entries, "differences": [asdict(pair) for pair in found.pairs]}
    return json.dumps(document, indent=1) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
    "json": as_json,
}
