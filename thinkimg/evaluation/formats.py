"""A comparison as people and programs read it: Markdown, CSV, LaTeX, JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from thinkimg.api import Control
from thinkimg.evaluation import owed, samples
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.tables import Comparison, Entry, Pair
from thinkimg.figures import UNKNOWN, accuracy, between, duration, interval, p_value, percent, rate
from thinkimg.results import SampleFigures

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
        f"{entry.questions:,}",
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
    found = pair.difference
    said = UNKNOWN if found.difference is None else f"{100 * found.difference:+.1f}"
    return (
        pair.task,
        pair.model,
        pair.baseline,
        f"{pair.n:,}",
        f"incomplete, {between(found.bounds)}" if found.bounds else said,
        between(found.ci95) if found.ci95 else UNKNOWN,
        p_value(found.p),
    )


def as_markdown(found: Comparison) -> str:
    lines = [f"Score: {found.scorer}. Tool calls and errors per answer; p50 and p95 of a question's time.", ""]
    lines += markdown_rows(HEAD, [_cells(entry) for entry in found.entries])
    if found.pairs:
        how = "paired bootstrap, clustered by picture; bounds where answers were lost"
        lines += ["", f"Differences on the same questions ({how}):", ""]
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
    return owed.cells((f"{entry.model} ({entry.task})", entry.controls) for entry in found.entries)


def _sampled(found: Comparison) -> list[tuple[str, SampleFigures | None]]:
    return [(f"{entry.model} ({entry.task})", entry.samples) for entry in found.entries]


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: names are somebody's to choose."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def as_csv(found: Comparison) -> str:
    """A row per model and task: its figures, its difference from the baseline, several answers to each question, and
    every control under which one of the models was asked."""
    out = io.StringIO()
    pairs = {(pair.task, pair.model): pair for pair in found.pairs}
    controls = sorted({(one.control, one.scope) for entry in found.entries for one in entry.controls})
    rows = [
        {
            **_own_columns(entry, found.scorer),
            **_difference_columns(pairs.get((entry.task, entry.model))),
            **dict(zip(SAMPLED, _sampled_cells(entry), strict=True)),
            **dict(cell for kind, scope in controls for cell in _control_columns(entry, Control(kind, scope))),
        }
        for entry in found.entries
    ]
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _own_columns(entry: Entry, scorer: str) -> dict[str, object]:
    low, high = entry.ci95 or ("", "")
    least, most = entry.bounds or ("", "")
    return {
        "task": _plain(entry.task), "model": _plain(entry.model), "questions": entry.questions,
        "scorer": _plain(scorer), "score": entry.mean,
        "low": low, "high": high, "tool_calls": entry.tool_calls, "errors": entry.errors, "p50_seconds": entry.p50,
        "p95_seconds": entry.p95, "cost": entry.cost, "refused": entry.refused, "context_full": entry.context_full,
        "lost": entry.lost, "least": least, "most": most, "official": entry.official, "normalised": entry.normalised,
    }  # fmt: skip


def _difference_columns(pair: Pair | None) -> dict[str, object]:
    found = pair.difference if pair else None
    low, high = (found.ci95 if found else None) or ("", "")
    least, most = (found.bounds if found else None) or ("", "")
    return {
        "baseline": _plain(pair.baseline) if pair else "", "difference": found.difference if found else "",
        "difference_low": low, "difference_high": high, "p": found.p if found else "",
        "difference_least": least, "difference_most": most,
    }  # fmt: skip


def _control_columns(entry: Entry, control: Control) -> Iterator[tuple[str, object]]:
    """The accuracy with changed pictures, and what the model owes to the true ones."""
    found = next((one for one in entry.controls if (one.control, one.scope) == (control.kind, control.scope)), None)
    name = f"{control.kind}_{control.scope}"
    yield name, found.accuracy if found else ""
    yield from zip((f"{name}_least", f"{name}_most"), (found and found.bounds) or ("", ""), strict=True)
    owes = found.owed if found else None
    yield f"{name}_owed", owes.difference if owes else ""
    yield from zip((f"{name}_owed_low", f"{name}_owed_high"), (owes and owes.ci95) or ("", ""), strict=True)
    yield f"{name}_owed_p", owes.p if owes else ""


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
            "questions": entry.questions,
            "samples": entry.samples and entry.samples.model_dump(mode="json"),
            "controls": [one.model_dump(mode="json") for one in entry.controls],
        }
        for entry in found.entries
    ]
    differences = [asdict(pair) | {"difference": pair.difference.model_dump(mode="json")} for pair in found.pairs]
    document = {"scorer": found.scorer, "models": entries, "differences": differences}
    return json.dumps(document, indent=1) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
    "json": as_json,
}
