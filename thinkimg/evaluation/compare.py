"""Is one model better than another? Paired statistics on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thinkimg.evaluation.intervals import RESAMPLES, Answer, Interval, difference_over

Answered = Mapping[str, Answer]
"""Question to what it was answered, of one seed."""


@dataclass(frozen=True)
class Difference:
    """Mean of `a - b` in the unit of the values, its 95 % interval, and the two-sided p-value of "no difference"."""

    difference: float
    ci95: Interval
    p: float


def paired_difference(
    of: Sequence[Answered], minus: Sequence[Answered], resamples: int = RESAMPLES
) -> Difference | None:
    """One model minus another, question by question and seed by seed, on the questions that both answered.

    Args:
        of, minus: per seed, in the same order.

    Returns:
        None where a seed has no question in common; see `intervals.difference_over`.
    """
    pairs = [
        [Answer(a[name].value - b[name].value, a[name].picture) for name in a if name in b]
        for a, b in zip(of, minus, strict=True)
    ]
    if not all(pairs):
        return None
    found = difference_over(pairs, resamples)
    return Difference(found.mean, found.ci95, found.p)
