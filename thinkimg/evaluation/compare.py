"""Is one model better than another? Paired statistics on the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkimg.evaluation.metrics import Interval, SeedsByQuestions, resampled_means


@dataclass(frozen=True)
class Difference:
    """Mean of `a - b` in the unit of the values, its 95 % interval, and the two-sided p-value of "no difference"."""

    difference: float
    ci95: Interval
    p: float


def paired_bootstrap(
    a: Sequence[float] | SeedsByQuestions,
    b: Sequence[float] | SeedsByQuestions,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two models question by question.

    Args:
        a, b: the value of each question in the same order, or one such list per seed.

    The interval is the percentile interval of the resampled mean difference; p is the share of resampled differences
    that lie at least as far from the observed one as the observed one from zero (Efron & Tibshirani, 1993, ch. 16).
    Several seeds are resampled too, on two levels as in `bootstrap_interval`.

    Raises:
        ValueError: the two do not have the same questions.
    """
    first, second = _by_seed(a), _by_seed(b)
    if [len(values) for values in first] != [len(values) for values in second]:
        raise ValueError("a paired comparison needs the same questions in both")
    differences = [np.subtract(x, y) for x, y in zip(first, second, strict=True)]
    observed = float(np.mean([values.mean() for values in differences])) if differences else float("nan")
    means = resampled_means(differences, resamples, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    extreme = int((np.abs(means - observed) >= abs(observed) - 1e-12).sum())
    return Difference(observed, (float(low), float(high)), (1 + extreme) / (1 + resamples))


def _by_seed(values: Sequence[float] | SeedsByQuestions) -> list[np.ndarray]:
    nested = len(values) > 0 and isinstance(values[0], Sequence | np.ndarray)
    return [np.asarray(one, dtype=float) for one in (values if nested else [values])]
