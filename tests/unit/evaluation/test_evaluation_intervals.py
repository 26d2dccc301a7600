"""Intervals and p-values: against published values, against SciPy, and how often they cover what is true."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from thinkimg.evaluation.compare import Known, paired_difference
from thinkimg.evaluation.intervals import (
    Answer,
    Estimate,
    difference_over,
    mean_over,
    of_values,
    t_quantile,
    t_tail,
    wilson_interval,
)

Seeds = list[list[Answer]]


def answered(values: list[float] | np.ndarray, picture: str = "{}") -> dict[str, Answer]:
    """Question to its answer. `{}` in the picture's name stands for the question's number."""
    return {str(n): Answer(float(value), picture.format(n)) for n, value in enumerate(values)}


# ---- published values and other programs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_agrees_with_published_values(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_interval_holds_the_share(k, n):
    k = min(k, n)
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_interval_refuses_what_is_not_a_share():
    with pytest.raises(ValueError, match="not a share"):
        wilson_interval(3, 2)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 11, 100, 999, 5000])
def test_students_t_agrees_with_scipy(df):
    assert t_quantile(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), abs=1e-8)
    for t in (0.0, 0.1, 1.0, 2.5, 7.0):
        assert t_tail(t, df) == pytest.approx(2 * scipy.stats.t.sf(t, df), abs=1e-12)


def test_over_seeds_that_differ_the_interval_and_p_are_students():
    """The README's case: three seeds, each with questions of its own; p is not below 0.001."""
    chance = np.random.default_rng(3)
    shares = (0.19, 0.34, 0.49)
    seeds = [
        [Answer(float(value), f"{seed}/{n}") for n, value in enumerate((chance.random(400) < share).astype(float))]
        for seed, share in enumerate(shares)
    ]
    means = [np.mean([answer.value for answer in seed]) for seed in seeds]
    theirs = scipy.stats.ttest_1samp(means, 0)
    found = difference_over(seeds)
    assert found.ci95 == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.p > 0.03
    assert mean_over(seeds).ci95 == pytest.approx((max(0, found.ci95[0]), min(1, found.ci95[1])))


def test_clustered_by_picture_the_variance_is_that_of_a_cluster_robust_regression():
    """Liang and Zeger's sandwich for a regression on a constant, written out with matrices."""
    chance = np.random.default_rng(4)
    pictures = np.repeat(np.arange(30), chance.integers(1, 9, 30))
    values = (chance.random(len(pictures)) < chance.random(30)[pictures]).astype(float)
    design = np.ones((len(values), 1))
    bread = np.linalg.inv(design.T @ design)
    scores = np.array([design[pictures == g].T @ (values - values.mean())[pictures == g] for g in range(30)])
    variance = (bread @ (scores.T @ scores) @ bread).item() * 30 / 29
    p, z = values.mean(), scipy.stats.t.ppf(0.975, 29)
    n = p * (1 - p) / variance
    low, high = mean_over([[Answer(v, str(g)) for v, g in zip(values, pictures, strict=True)]]).ci95
    # Wilson's interval is where (share - p)² = z² share (1 - share) / n
    assert [(edge - p) ** 2 for edge in (low, high)] == pytest.approx([z * z * e * (1 - e) / n for e in (low, high)])
    unclustered = wilson_interval(values.sum(), len(values))
    assert high - low > 1.5 * (unclustered[1] - unclustered[0])


# ---- how often they cover -------------------------------------------------------------------------------------------


def coverage(
    make: Callable[[np.random.Generator], Seeds], of: Callable[..., Estimate], truth: float, draws: int
) -> float:
    chance = np.random.default_rng(5)
    found = (of(make(chance), resamples=300).ci95 for _ in range(draws))
    return sum(low <= truth <= high for low, high in found) / draws


def differing(seeds: int, spread: float, questions: int, mean: float) -> Callable[[np.random.Generator], Seeds]:
    """Paired differences of right and wrong, -1, 0 and 1, whose mean in a seed is normal around `mean`. In half of the
    calls the seeds share their pictures."""

    def make(chance: np.random.Generator) -> Seeds:
        shared = chance.random() < 0.5
        made = []
        for seed in range(seeds):
            up = min(1.0, max(0.0, 0.3 + chance.normal(mean, spread) / 2))
            drawn = chance.random(questions)
            values = (drawn < up).astype(float) - (drawn > 0.4 + up)
            made.append([Answer(v, f"{'' if shared else seed}/{n}") for n, v in enumerate(values.tolist())])
        return made

    return make


def clustered(pictures: int, seeds: int, each: int = 10) -> Callable[[np.random.Generator], Seeds]:
    """Shares around 0.6 that are alike within a picture (correlation 1/3), pictures of several sizes."""

    def make(chance: np.random.Generator) -> Seeds:
        def one(seed: int) -> Iterator[Answer]:
            for number, share in enumerate(chance.beta(1.2, 0.8, pictures)):
                for value in chance.random(chance.integers(1, 2 * each)) < share:
                    yield Answer(float(value), f"{seed}/{number}")

        return [list(one(seed)) for seed in range(seeds)]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.07, 0.14])
def test_over_seeds_the_printed_interval_covers(spread: float, seeds: int) -> None:
    for mean in (0.0, 0.1):
        assert coverage(differing(seeds, spread, 150, mean), difference_over, mean, 800) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.07, 0.14])
def test_over_three_seeds_a_models_accuracy_is_covered(spread: float) -> None:
    def make(chance: np.random.Generator) -> Seeds:
        shares = chance.normal(0.5, spread, 3)
        return [
            [Answer(v, f"{s}/{n}") for n, v in enumerate((chance.random(150) < share).astype(float).tolist())]
            for s, share in enumerate(shares)
        ]

    assert coverage(make, mean_over, 0.5, 800) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("of", [mean_over, difference_over], ids=["share", "difference"])
@pytest.mark.parametrize(("pictures", "seeds"), [(12, 1), (40, 1), (20, 3)])
def test_with_several_questions_per_picture_the_printed_interval_covers(
    pictures: int, seeds: int, of: Callable[..., Estimate]
) -> None:
    assert coverage(clustered(pictures, seeds), of, 0.6, 800) >= 0.93


def test_intervals_that_took_each_question_by_itself_would_not() -> None:
    """The simulation tells a right interval from a wrong one."""
    make = clustered(40, 1)

    def blind(seeds: Seeds, resamples: int) -> Estimate:
        return mean_over([of_values(answer.value for answer in seed) for seed in seeds], resamples)

    assert coverage(make, blind, 0.6, 300) < 0.75


def test_equal_models_are_told_apart_in_five_percent_of_comparisons_at_most() -> None:
    """Three seeds, whose difference varies by seven points: half of the earlier intervals missed zero."""
    make, chance = differing(3, 0.07, 150, 0.0), np.random.default_rng(6)
    p = [difference_over(make(chance), resamples=300).p for _ in range(300)]
    assert sum(value < 0.05 for value in p) <= 24


def difference_of(a, b):
    """Of answers of which none was lost."""
    of, minus = ({name: Known(one.value, one.value, one.picture, 1) for name, one in side.items()} for side in (a, b))
    return paired_difference([of], [minus])


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_models_that_agree_on_every_question_are_not_the_same_for_certain():
    same = answered([1, 0, 1, 1, 0] * 20)
    found = difference_of(same, same)
    assert (found.difference, found.p) == (0.0, 1.0)
    assert -0.03 < found.ci95[0] < -0.01
    assert 0.01 < found.ci95[1] < 0.03


def test_seeds_that_agree_by_luck_are_as_unsure_as_their_questions():
    seeds = [[Answer(1.0, f"{seed}/{n}") for n in range(50)] for seed in range(3)]
    assert mean_over(seeds).ci95 == pytest.approx(wilson_interval(150, 150))
    found = difference_over([[Answer(float(n < 5), f"{seed}/{n}") for n in range(50)] for seed in range(3)])
    assert 0 < found.p < 0.01
    assert found.ci95[0] < 0.1 < found.ci95[1]


def test_two_seeds_have_the_wide_interval_that_covers():
    seeds = [[Answer(float(n < right), f"{seed}/{n}") for n in range(100)] for seed, right in enumerate((52, 48))]
    assert mean_over(seeds).ci95 == pytest.approx((0.5 - 12.706 * 0.02, 0.5 + 12.706 * 0.02), abs=1e-3)


def test_questions_about_a_single_picture_say_nothing_of_others():
    one = [[Answer(value, "the picture") for value in (1.0, 0.0, 1.0)]]
    assert mean_over(one).ci95 == (0.0, 1.0)
    found = difference_over(one)
    assert (found.ci95, found.p) == ((-1.0, 1.0), 1.0)


def test_partial_credit_has_an_interval_of_the_same_width_as_a_t_interval():
    values = np.random.default_rng(0).random(200)
    error = scipy.stats.sem(values) * scipy.stats.t.ppf(0.975, 199)
    low, high = mean_over([of_values(values)]).ci95
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.004)
    assert mean_over([of_values(values)]).ci95 == (low, high), "the same answers give the same interval"


@pytest.mark.parametrize("seeds", [[], [[]], [of_values([1.0]), []]])
def test_nothing_has_no_mean(seeds):
    with pytest.raises(ValueError, match="at least one question"):
        mean_over(seeds)


def test_a_pairing_sees_a_difference_that_unpaired_intervals_hide():
    generator = np.random.default_rng(1)
    b = generator.integers(0, 2, 300).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:12]] = 1.0  # right wherever b is, and twelve times more
    found = difference_of(answered(a), answered(b))
    assert found.difference == pytest.approx(0.04)
    assert 0 < found.ci95[0] < 0.04 < found.ci95[1]
    assert found.p < 0.01
    assert wilson_interval(int(a.sum()), 300)[0] < wilson_interval(int(b.sum()), 300)[1]


def test_models_without_a_question_in_common_have_no_difference():
    right = Known(1.0, 1.0, "x", 1)
    assert paired_difference([{"a": right}], [{"b": right}]) is None
    assert math.isclose(difference_of(answered([1, 0]), answered([1])).difference, 0.0)


def test_a_difference_with_lost_answers_has_bounds_only():
    """Of the questions that both answered it would be 50 points: whoever loses the hard ones would win."""
    of = {"a": Known(1.0, 1.0, "a", 1), "b": Known(1.0, 1.0, "b", 1), "c": Known(0.0, 1.0, "c", 0)}
    minus = {"a": Known(1.0, 1.0, "a", 1), "b": Known(0.0, 0.0, "b", 1), "c": Known(1.0, 1.0, "c", 1)}
    found = paired_difference([of], [minus])
    assert (found.difference, found.ci95, found.p) == (None, None, None)
    assert found.bounds == pytest.approx((0.0, 1 / 3))
    del of["c"]  # never asked: this one is compared nowhere
    assert paired_difference([of], [minus]).difference == pytest.approx(0.5)
