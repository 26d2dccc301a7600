"""Is one model better than another? Paired statistics on the same questions.

An answer that the infrastructure lost may be right or wrong. Where a question that both sides were asked has such an
answer, the difference of the others would flatter whoever loses the hard ones: none is given, but its bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from thinkimg.evaluation.intervals import RESAMPLES, Answer, difference_over, mean_over
from thinkimg.evaluation.summary import picture_of
from thinkimg.figures import UNKNOWN, points
from thinkimg.results import AnswerRow, PairedDifference, Score, ScorerRole
from thinkimg.trajectory import LOST


class Known(NamedTuple):
    """The value of a question, between 0 and 1: at least and at most, the same where no answer was lost."""

    least: float
    most: float
    picture: str
    answers: int
    """How many count."""


Answered = Mapping[str, Known]
"""Question to what is known of its value, of one seed."""


@dataclass
class _Sum:
    picture: str
    values: list[float] = field(default_factory=list)
    lost: int = 0

    def known(self) -> Known:
        n, total = len(self.values) + self.lost, sum(self.values)
        return Known(total / n, (total + self.lost) / n, self.picture, len(self.values))


class ByQuestion:
    """Collects what answers are worth; of several to one question it is their mean."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}

    def add(self, row: AnswerRow, value: float | None) -> None:
        """None for an answer that was lost."""
        found = self._sums.setdefault(row.sample_of or row.id, _Sum(picture_of(row)))
        if value is None:
            found.lost += 1
        else:
            found.values.append(value)

    def known(self) -> dict[str, Known]:
        return {question: found.known() for question, found in self._sums.items()}


def right_of(rows: Iterable[AnswerRow]) -> dict[str, Known]:
    """Question to the share of its answers that are right."""
    found = ByQuestion()
    for row in rows:
        found.add(row, None if row.status in LOST else float(row.correct))
    return found.known()


def is_whole(seeds: Sequence[Answered]) -> bool:
    """Whether no answer was lost."""
    return all(one.least == one.most for seed in seeds for one in seed.values())


def mean_of_seeds(seeds: Sequence[Answered], role: ScorerRole = "", resamples: int = RESAMPLES) -> Score:
    """The mean over seeds of the mean over questions, of one seed or several. Neither mean nor bounds where a seed has
    no answers."""
    if not all(seeds):
        return Score(role=role, mean=None)
    if not is_whole(seeds):
        least = fmean(fmean(one.least for one in seed.values()) for seed in seeds)
        most = fmean(fmean(one.most for one in seed.values()) for seed in seeds)
        return Score(role=role, mean=None, bounds=(least, most))
    found = mean_over([[Answer(one.least, one.picture) for one in seed.values()] for seed in seeds], resamples)
    return Score(role=role, mean=found.mean, ci95=found.ci95)


def paired_difference(
    of: Sequence[Answered], minus: Sequence[Answered], resamples: int = RESAMPLES
) -> PairedDifference | None:
    """One model minus another, question by question and seed by seed, on the questions that both were asked.

    Args:
        of, minus: per seed, in the same order.

    Returns:
        None where a seed has no question in common; its bounds where answers to these were lost; else see
        `intervals.difference_over`.
    """
    pairs = [[(a[name], b[name]) for name in a if name in b] for a, b in zip(of, minus, strict=True)]
    if not all(pairs):
        return None
    if any(one.least != one.most for seed in pairs for both in seed for one in both):
        least = fmean(fmean(a.least - b.most for a, b in seed) for seed in pairs)
        most = fmean(fmean(a.most - b.least for a, b in seed) for seed in pairs)
        return PairedDifference(difference=None, bounds=(least, most))
    found = difference_over([[Answer(a.least - b.least, a.picture) for a, b in seed] for seed in pairs], resamples)
    return PairedDifference(difference=found.mean, ci95=found.ci95, p=found.p)


def in_words(found: PairedDifference | None) -> str:
    """`+7.1 (+3.0 to +11.2, p = 0.004)`, in points."""
    return UNKNOWN if found is None else points(found.difference, found.ci95, found.p, found.bounds)
