"""What a model owes to its eyes: its answers with true pictures against those with changed ones."""

from collections.abc import Iterable

from thinkimg.api import Control
from thinkimg.evaluation.compare import paired_difference
from thinkimg.evaluation.intervals import Answer, mean_of
from thinkimg.evaluation.summary import answer_of, summary_of
from thinkimg.figures import UNKNOWN, accuracy, interval, points
from thinkimg.results import AnswerRow, ControlFigures, PairedDifference
from thinkimg.trajectory import LOST

HEAD = ("Model", "Changed", "True pictures", "Changed pictures", "95 % interval", "Owed to seeing (points)")


def control_figures(control: Control, true: Iterable[AnswerRow], changed: Iterable[AnswerRow]) -> ControlFigures:
    """Of the answers to the same questions."""
    before, after = list(true), list(changed)
    summary = summary_of(after)
    found = paired_difference([_by_question(before)], [_by_question(after)])
    lost = any(row.status in LOST for row in (*before, *after))
    return ControlFigures(
        control=control.kind,
        scope=control.scope,
        n=summary.n,
        accuracy=summary.accuracy,
        ci95=summary.figures().ci95,
        bounds=summary.bounds,
        owed=None if found is None or lost else PairedDifference(**vars(found)),
    )


def _by_question(rows: Iterable[AnswerRow]) -> dict[str, Answer]:
    answers: dict[str, list[Answer]] = {}
    for row in rows:
        if row.status not in LOST:
            answers.setdefault(row.sample_of or row.id, []).append(answer_of(row, float(row.correct)))
    return {question: mean_of(found) for question, found in answers.items()}


def cells(model: str, true: str, controls: Iterable[ControlFigures]) -> list[tuple[str, ...]]:
    """Rows of a table.

    Args:
        true: the accuracy with true pictures, in words.
    """
    return [
        (
            model,
            str(Control(one.control, one.scope)),
            true,
            accuracy(one.accuracy, one.bounds),
            interval(one.ci95),
            UNKNOWN if one.owed is None else points(one.owed.difference, one.owed.ci95, one.owed.p),
        )
        for one in controls
    ]
