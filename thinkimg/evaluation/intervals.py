"""How sure is a mean? Intervals and p-values over seeds, pictures and questions.

The unit is the largest thing that was drawn by chance. With several seeds it is the seed: Student's t over their means.
Questions about one picture are right or wrong together, so within a seed it is the picture. Where the pictures alone
leave more doubt than the seeds seem to (a few seeds can agree by luck, and may share their questions), the wider of the
two intervals counts, and the larger p.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 10_000
"""Of the bootstraps, where no manifest says how many."""


class Answer(NamedTuple):
    """The value of one answer, between 0 and 1 (of a difference between -1 and 1), and the picture it is about. Answers
    to one question count as about one picture."""

    value: float
    picture: str


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and the two-sided p-value of "it is zero"."""

    mean: float
    ci95: Interval
    p: float


def mean_over(seeds: Sequence[Sequence[Answer]], resamples: int = RESAMPLES) -> Estimate:
    """Of values between 0 and 1: the mean over seeds of the mean over answers. Within a seed the interval is Wilson's
    with the effective number of answers where each is right or wrong, else a bootstrap over pictures.

    Raises:
        ValueError: a seed without answers.
    """
    pictures = _Pictures.of(seeds)
    binary = all(answer.value in (0.0, 1.0) for seed in seeds for answer in seed)
    within = _share(pictures) if binary else _bootstrap(pictures, resamples)
    return _with_seeds(seeds, within, (0.0, 1.0))


def difference_over(seeds: Sequence[Sequence[Answer]], resamples: int = RESAMPLES) -> Estimate:
    """Of paired differences, between -1 and 1: the mean over seeds of the mean over questions. Within a seed the
    interval is a bootstrap over pictures.

    Raises:
        ValueError: a seed without questions.
    """
    return _with_seeds(seeds, _bootstrap(_Pictures.of(seeds), resamples), (-1.0, 1.0))


def mean_of(answers: Sequence[Answer]) -> Answer:
    """Of several answers to one question."""
    return Answer(math.fsum(answer.value for answer in answers) / len(answers), answers[0].picture)


def bounds_of(total: float, n: int, lost: int) -> Interval | None:
    """The mean of n values between 0 and 1 that add up to `total`, and of `lost` unknown ones: if these are all 0, and
    if all are 1. None when nothing is lost."""
    return (total / (n + lost), (total + lost) / (n + lost)) if lost else None


# ---- seeds ----------------------------------------------------------------------------------------------------------


def _with_seeds(seeds: Sequence[Sequence[Answer]], within: Estimate, most: Interval) -> Estimate:
    """`within` is what the answers say if seeds make no difference; `most` is where values can lie."""
    over = over_seeds([math.fsum(answer.value for answer in seed) / len(seed) for seed in seeds])
    (low, high), (least, largest) = within.ci95, most
    if over is not None:
        low, high = min(low, over.ci95[0]), max(high, over.ci95[1])
    p = within.p if over is None else max(within.p, over.p)
    return Estimate(within.mean, (max(least, low), min(largest, high)), p)


def over_seeds(means: Sequence[float]) -> Estimate | None:
    """Student's t over the seeds' means; None for one seed, which says nothing of others. Of two seeds the interval is
    12.7 standard errors wide on each side: that is what two can say."""
    count = len(means)
    if count < 2:
        return None
    mean, error = float(np.mean(means)), float(np.std(means, ddof=1)) / math.sqrt(count)
    half = t_quantile(count - 1) * error
    t = abs(mean) / error if error else math.inf if mean else 0.0
    return Estimate(mean, (mean - half, mean + half), t_tail(t, count - 1))


def t_tail(t: float, df: int) -> float:
    """The probability that Student's t with `df` degrees of freedom is farther from zero than `t`, in closed form
    (Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4)."""
    if math.isinf(t):
        return 0.0
    angle, square = math.atan(t / math.sqrt(df)), df / (df + t * t)
    sine, odd = math.sin(angle), df % 2
    orders = np.arange(1 + odd, df - 1, 2)  # each term is the one before it, times order / (order + 1), times cos²
    terms = np.concatenate(([1.0], np.cumprod(orders / (orders + 1) * square)))
    if not odd:
        return 1 - sine * float(terms.sum())
    series = sine * math.cos(angle) * float(terms.sum()) if df > 1 else 0.0
    return 1 - 2 / math.pi * (angle + series)


@lru_cache(maxsize=1024)
def t_quantile(df: int, level: float = 0.95) -> float:
    """What Student's t exceeds in size with the probability 1 - `level`."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > 1 - level else (low, middle)
    return high


# ---- pictures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """The answers of all seeds by picture. Each answer weighs as much as its share of the mean over seeds.

    Attributes:
        totals, weights: per picture, of value times weight and of weights, which add up to 1.
        answers: how many there are.
    """

    totals: np.ndarray
    weights: np.ndarray
    answers: int

    @classmethod
    def of(cls, seeds: Sequence[Sequence[Answer]]) -> "_Pictures":
        if not seeds or not all(seeds):
            raise ValueError("every seed needs at least one question")
        codes: dict[str, int] = {}
        numbers = np.array([codes.setdefault(answer.picture, len(codes)) for seed in seeds for answer in seed])
        values = np.array([answer.value for seed in seeds for answer in seed], dtype=float)
        shares = np.concatenate([np.full(len(seed), 1 / (len(seeds) * len(seed))) for seed in seeds])
        return cls(np.bincount(numbers, values * shares), np.bincount(numbers, shares), len(values))

    @property
    def count(self) -> int:
        return len(self.totals)

    @property
    def mean(self) -> float:
        return float(self.totals.sum())

    @property
    def variance(self) -> float:
        """Of the mean, robust to what is alike within a picture, with the correction for their number (Liang & Zeger,
        1986, as CR1 in Cameron & Miller, 2015)."""
        residuals = self.totals - self.mean * self.weights
        return float((residuals**2).sum()) * self.count / (self.count - 1)


def _share(pictures: _Pictures) -> Estimate:
    """Wilson's interval with the number of independent answers that would be as sure (Korn & Graubard, 1998, whose
    interval is Clopper and Pearson's; Dean & Pagano, 2015, compare both)."""
    mean = min(1.0, max(0.0, pictures.mean))
    if pictures.count == pictures.answers:
        return Estimate(mean, wilson_interval(mean * pictures.answers, pictures.answers), math.nan)
    if pictures.count == 1:
        return Estimate(mean, (0.0, 1.0), math.nan)
    variance = pictures.variance
    effective = min(pictures.answers, mean * (1 - mean) / variance) if variance > 1e-15 else pictures.count
    return Estimate(mean, _wilson(mean, effective, t_quantile(pictures.count - 1)), math.nan)


def wilson_interval(k: float, n: int, level: float = 0.95) -> Interval:
    """Interval of a share: `k` right of `n` (Wilson, 1927). `(0, 1)` when nothing was asked."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    return _wilson(k / n, n, NormalDist().inv_cdf(0.5 + level / 2)) if n else (0.0, 1.0)


def _wilson(share: float, n: float, z: float) -> Interval:
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half) if share > 0 else 0.0, min(1.0, middle + half) if share < 1 else 1.0


def _bootstrap(pictures: _Pictures, resamples: int, seed: int = 0) -> Estimate:
    """The percentile interval of the mean over resampled pictures; p is the share of resampled means that lie at least
    as far from the observed one as that from zero (Efron & Tibshirani, 1993, ch. 16).

    Two corrections make it cover: it is widened as t is wider than the normal distribution, which few pictures need
    (Hesterberg, 2015, "expanded percentile"), and two pictures are added in which one question in all differs, up or
    down, so that models which agree on every question are not called the same for certain (Agresti & Min, 2005).
    """
    if pictures.count == 1:
        return Estimate(pictures.mean, (-math.inf, math.inf), 1.0)
    mean, count = pictures.mean, pictures.count
    one = math.sqrt(0.5) / pictures.answers
    totals = np.concatenate((pictures.totals - mean * pictures.weights, (one, -one)))
    weights = np.concatenate((pictures.weights, (1 / count, 1 / count)))
    wider = t_quantile(count - 1) / NormalDist().inv_cdf(0.975) * math.sqrt(count / (count - 1))
    deviations = wider * _resampled(totals, weights, resamples, np.random.default_rng(seed))
    low, high = np.quantile(deviations, (0.025, 0.975))
    extreme = int((np.abs(deviations) >= abs(mean) - 1e-12).sum())
    return Estimate(mean, (mean + float(low), mean + float(high)), (1 + extreme) / (1 + resamples))


def _resampled(totals: np.ndarray, weights: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """`draws` means over pictures drawn with replacement. Equal pictures are interchangeable, so that drawing how many
    of each there are is the same and needs no array of draws x pictures."""
    distinct, counts = np.unique(np.column_stack((totals, weights)).round(15), axis=0, return_counts=True)
    block = max(1, 4_000_000 // len(distinct))  # at most 32 MB at a time
    sums = [
        generator.multinomial(counts.sum(), counts / counts.sum(), size=min(block, draws - start)) @ distinct
        for start in range(0, draws, block)
    ]
    drawn = np.concatenate(sums)
    return np.asarray(drawn[:, 0] / drawn[:, 1])


def of_values(values: Iterable[float]) -> list[Answer]:
    """Answers to questions each of which has a picture of its own."""
    return [Answer(float(value), str(number)) for number, value in enumerate(values)]
