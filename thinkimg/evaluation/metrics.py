"""Is an answer right, and how sure is a share of right answers? No fuzzy matching: "decrease" is never "increase"."""

import math
import re
import unicodedata
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RELATIVE_TOLERANCE = 0.05
_ROUNDING = 1e-9  # 0.95 is within 5 % of 1, whatever binary fractions say

_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)?(\.\d*)?(e[+-]?\d+)?\s*(%?)", re.IGNORECASE)
_QUOTES = str.maketrans("‘’‚‛“”„‟«»−–—", '\'\'\'\'""""""---')
_AROUND = " \t\n.,;:!?\"'`*_()[]{}"
_ARTICLE = re.compile(r"^(?:an?|the) (?=\S)")

Interval = tuple[float, float]
SeedsByQuestions = Sequence[Sequence[float]]


# ---- answers --------------------------------------------------------------------------------------------------------


def relaxed_match(prediction: str | None, reference: str) -> bool:
    """Whether `prediction` is the answer `reference`.

    Two numbers agree within 5 % of the reference: the relaxed accuracy of ChartQA (Masry et al., 2022, section 5.1,
    after Methani et al., 2020), with the reading of percent signs of Pix2Struct's `relaxed_correctness`, which later
    harnesses copied: `12%` is 0.12. Years are numbers like any other. Anything else must be equal as normalised text.

    More is accepted than there in three places, where a string comparison would fail on form alone: thousands
    separators (`1,000`), a reference of zero (`0.0` is `0`), and case, quotes, punctuation around the answer, white
    space and a leading article. No answer (`None`) is wrong.
    """
    if prediction is None:
        return False
    expected, given = parse_number(reference), parse_number(prediction)
    if expected is None or given is None:
        return normalise_text(prediction) == normalise_text(reference)
    return abs(given - expected) <= (RELATIVE_TOLERANCE + _ROUNDING) * abs(expected)


def parse_number(text: str) -> float | None:
    """The finite number that `text` consists of, percent as a share of one; None if it is anything else."""
    match = _NUMBER.fullmatch(_plain(text).strip(" \t\n\"'`*").removesuffix("."))
    if match is None:
        return None
    sign, whole, fraction, exponent, percent = match.groups(default="")
    if not whole and fraction in ("", "."):
        return None
    number = float(sign + (whole.replace(",", "") or "0") + fraction + exponent)
    return (number / 100 if percent else number) if math.isfinite(number) else None


def normalise_text(text: str) -> str:
    """Case, quotes, punctuation around the text, white space and a leading article taken away; never to nothing."""
    plain = " ".join(_plain(text).casefold().split())
    stripped = plain.strip(_AROUND) or plain
    return _ARTICLE.sub("", stripped)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_QUOTES)


# ---- intervals ------------------------------------------------------------------------------------------------------


def wilson_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a share: `k` right of `n` (Wilson, 1927). `(0, 1)` when nothing was asked."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half) if k else 0.0, min(1.0, middle + half) if k < n else 1.0


def bootstrap_interval(
    values: SeedsByQuestions, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of the mean over seeds and questions.

    Args:
        values: per seed, the value of each question (0 or 1); seeds may have different questions and numbers of them.

    Two levels: seeds are drawn with replacement, then the questions of each drawn seed (Davison & Hinkley, 1997, 3.8).
    With few seeds (three) the spread between seeds is still underestimated; no resampling can help that.
    """
    means = resampled_means(values, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def resampled_means(values: SeedsByQuestions, resamples: int, seed: int) -> np.ndarray:
    """`resamples` draws of the mean over seeds of the mean over questions, two-level; see `bootstrap_interval`."""
    arrays = [np.asarray(questions, dtype=float) for questions in values]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays):
        raise ValueError("every seed needs at least one question")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(arrays), size=(resamples, len(arrays)))
    means = np.zeros(resamples)
    for number, array in enumerate(arrays):
        times = (drawn == number).sum(axis=1)  # how often each resample drew this seed
        for draw in range(int(times.max(initial=0))):
            rows = np.flatnonzero(times > draw)
            means[rows] += _means_of_draws(array, len(rows), generator)
    return means / len(arrays)


def _means_of_draws(array: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """`draws` means of `array` resampled with replacement. Questions of one value are interchangeable, so that
    drawing how many of each value there are is the same and needs no array of draws x questions."""
    distinct, counts = np.unique(array, return_counts=True)
    share = counts / array.size
    block = max(1, 4_000_000 // distinct.size)  # at most 32 MB at a time, however many distinct values
    sums = [
        generator.multinomial(array.size, share, size=min(block, draws - start)) @ distinct
        for start in range(0, draws, block)
    ]
    return np.asarray(np.concatenate(sums) / array.size)
