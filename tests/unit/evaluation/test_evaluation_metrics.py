import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkimg.evaluation.compare import paired_bootstrap
from thinkimg.evaluation.metrics import (
    bootstrap_interval,
    normalise_text,
    parse_number,
    relaxed_match,
    wilson_interval,
)


def published_relaxed_correctness(target: str, prediction: str) -> bool:
    """ChartQA's relaxed accuracy as Pix2Struct defines it, written from its description, to compare with."""

    def number(text: str) -> float | None:
        try:
            return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None

    expected, given = number(target), number(prediction)
    if given is not None and expected:
        return abs(given - expected) / abs(expected) <= 0.05
    return prediction.lower() == target.lower()


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        # within 5 % of the reference, not of the prediction
        ("100", "100", True),
        ("105", "100", True),
        ("95", "100", True),
        ("106", "100", False),
        ("94.9", "100", False),
        ("100", "105.5", False),
        ("-10", "10", False),
        ("-10.2", "-10", True),
        ("4", "5", False),
        ("1e3", "1000", True),
        # a percent sign divides by one hundred, on both sides
        ("12%", "12 %", True),
        ("12.4%", "12%", True),
        ("0.12", "12%", True),
        ("12", "12%", False),
        # years are numbers like any other
        ("2010", "2015", True),
        ("1900", "2015", False),
        # text is equal or not
        ("Yes", "yes", True),
        ("decrease", "increase", False),
        ("Red bar", "red", False),
        ("", "red", False),
        ("inf", "12", False),
    ],
)
def test_answers_are_scored_as_chartqa_publishes_it(prediction, reference, right):
    assert relaxed_match(prediction, reference) is right
    if " %" not in reference:
        assert published_relaxed_correctness(reference, prediction) is right


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        (None, "12", False),
        (None, "", False),
        # zero must be zero
        ("0", "0", True),
        ("0.0", "0", True),
        ("0%", "0", True),
        ("0.01", "0", False),
        # thousands separators
        ("1,000", "1000", True),
        ("1,234,567.8", "1234567.8", True),
        ("1,00", "100", False),
        ("12,5", "12.5", False),
        # form
        (" 42. ", "42", True),
        ('"42"', "42", True),
        ("−7", "-7", True),
        ("+7", "7", True),
        ("The Red.", "red", True),
        ("“Fox”", "fox", True),
        ("**Fox**", "Fox", True),
        ("North   America", "north america", True),
        ("(b)", "B", True),
        # form that carries meaning stays
        ("a", "the", False),
        ("A", "a", True),
        ("C", "C++", False),
        ("the", "", False),
        ("?", "!", False),
        ("14", "Q14", False),
        ("nan", "nan", True),  # a word here
    ],
)
def test_only_form_is_forgiven_beyond_that(prediction, reference, right):
    assert relaxed_match(prediction, reference) is right


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_number_is_its_own_answer_however_it_is_written(number):
    assert relaxed_match(str(number), str(number))
    assert relaxed_match(f"{number:,.3f}", f"{number:.3f}")


@given(st.text(max_size=40))
def test_any_text_is_its_own_answer_and_normalising_twice_changes_little(text):
    assert relaxed_match(text, text)
    assert relaxed_match(f"  {text.upper()}", text.upper())
    assert parse_number(text) is None or math.isfinite(parse_number(text))
    assert bool(normalise_text(text)) == bool(text.split())


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


def test_bootstrap_interval_agrees_with_wilson_for_one_seed():
    values = [[1.0] * 240 + [0.0] * 160]
    assert bootstrap_interval(values) == pytest.approx(wilson_interval(240, 400), abs=0.01)


def test_bootstrap_interval_is_wider_when_seeds_disagree():
    alike = [[1.0] * 60 + [0.0] * 40] * 3
    apart = [[1.0] * part + [0.0] * (100 - part) for part in (40, 60, 80)]
    (low, high), (wide_low, wide_high) = bootstrap_interval(alike), bootstrap_interval(apart)
    assert wide_high - wide_low > 1.5 * (high - low)
    assert bootstrap_interval(apart) == (wide_low, wide_high), "the same seed gives the same interval"


def test_bootstrap_interval_takes_values_that_are_no_shares_and_seeds_of_different_length():
    generator = np.random.default_rng(0)
    low, high = bootstrap_interval([list(generator.normal(5, 1, 200)), list(generator.normal(5, 1, 50))])
    assert 4.7 < low < 5 < high < 5.3


@pytest.mark.parametrize("values", [[], [[]], [[1.0], []]])
def test_bootstrap_interval_refuses_nothing(values):
    with pytest.raises(ValueError, match="at least one question"):
        bootstrap_interval(values)


def test_paired_bootstrap_sees_a_difference_that_unpaired_intervals_hide():
    generator = np.random.default_rng(1)
    b = generator.integers(0, 2, 300).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:12]] = 1.0  # right wherever b is, and twelve times more
    found = paired_bootstrap(list(a), list(b))
    assert found.difference == pytest.approx(0.04)
    assert 0 < found.ci95[0] < 0.04 < found.ci95[1]
    assert found.p < 0.01
    assert wilson_interval(int(a.sum()), 300)[0] < wilson_interval(int(b.sum()), 300)[1]


def test_paired_bootstrap_rejects_equal_models_about_one_time_in_twenty():
    generator = np.random.default_rng(2)
    draws = [
        paired_bootstrap(generator.integers(0, 2, 200), generator.integers(0, 2, 200), resamples=1000, seed=n).p
        for n in range(400)
    ]
    assert 0.02 <= np.mean(np.array(draws) < 0.05) <= 0.08


def test_paired_bootstrap_of_a_model_with_itself_finds_nothing():
    found = paired_bootstrap([[1, 0, 1], [0, 0, 1]], [[1, 0, 1], [0, 0, 1]])
    assert (found.difference, found.ci95, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_paired_bootstrap_refuses_different_questions():
    with pytest.raises(ValueError, match="same questions"):
        paired_bootstrap([1, 0], [1])
