"""Several models on the same questions, read from their output folders, with paired differences. How they are written
is in `formats`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.compare import Answered, ByQuestion, paired_difference
from thinkimg.evaluation.intervals import RESAMPLES, Answer, Interval, bounds_of, mean_over
from thinkimg.evaluation.output import COSTS, ITEMS, RESULTS
from thinkimg.evaluation.roles import score_of
from thinkimg.evaluation.summary import answer_of
from thinkimg.jsonfile import read, reasons
from thinkimg.results import (
    ROLES,
    AnswerRow,
    ControlFigures,
    EvaluationCosts,
    EvaluationResults,
    PairedDifference,
    Percentiles,
    SampleFigures,
)
from thinkimg.trajectory import LOST


@dataclass(frozen=True)
class Entry:
    """One model on one task, as its output folder has it.

    Attributes:
        scores: question -> what is known of its score.
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

    @property
    def questions(self) -> int:
        """That have an answer which counts."""
        return sum(known.answers > 0 for known in self.scores.values())


@dataclass(frozen=True)
class Pair:
    """`model` minus `baseline` on the questions that both were asked.

    Attributes:
        n: those that both answered.
    """

    task: str
    model: str
    baseline: str
    n: int
    difference: PairedDifference


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
    scores, every = ByQuestion(), list[Answer]()
    for row in _rows(folder / ITEMS):
        value = None if row.status in LOST else _score(row, scorer, folder)
        scores.add(row, value)
        every += [] if value is None else [answer_of(row, value)]
    if not every:
        raise UserError("no answer counts: all were lost to the infrastructure", str(folder))
    lost, n, found = results.infrastructure, len(every), mean_over([every])
    seconds = costs.seconds_per_answer or Percentiles()
    return Entry(
        task=results.task,
        model=results.model,
        scores=scores.known(),
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
    answered = [{name for name, known in one.scores.items() if known.answers} for one in (entry, baseline)]
    both = len(set.intersection(*answered))
    return Pair(entry.task, entry.model, baseline.model, both, found)
