"""The truth of the benchmark that other programs draw for: where marks and texts are, and what is asked."""

from itertools import pairwise

import numpy as np
import pytest

from bench.pictures import JUDGING, TUNING, draw
from bench.pictures.charts import KINDS, Chart, make_charts, questions
from bench.pictures.truth import Drawn, can_be_asked, inside, is_there

CHARTS = list(make_charts(1, 5, "seaborn"))


@pytest.fixture(scope="module")
def pictures() -> list[tuple[Chart, Drawn]]:
    return list(zip(CHARTS, draw("seaborn", CHARTS), strict=True))


def test_every_mark_is_where_the_seen_picture_has_its_colour(pictures):
    for chart, drawn in pictures:
        assert set(drawn.marks) == set(chart.marks())
        seen = np.asarray(drawn.picture).astype(int)
        for (series, category), mask in drawn.marks.items():
            color = chart.colors[category if chart.kind == "slices" else series]
            rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
            alike = np.abs(seen[mask] - rgb).max(axis=1) <= 12
            if chart.kind != "lines":  # of which a mark is only a point
                assert alike.mean() > 0.95, (chart.kind, series, category)


def test_bars_are_as_long_as_their_values(pictures):
    for chart, drawn in pictures:
        if chart.kind not in ("bars", "lying bars", "grouped", "stacked"):
            continue
        lengths, values = [], []
        for (series, category), mask in drawn.marks.items():
            places = np.nonzero(mask)[1 if chart.kind == "lying bars" else 0]
            lengths.append(int(places.max() - places.min() + 1))
            values.append(chart.values[series][category])
        scale = max(lengths) / values[int(np.argmax(lengths))]
        assert lengths == pytest.approx([scale * value for value in values], abs=3), chart.kind


def test_texts_are_where_there_is_ink(pictures):
    for chart, drawn in pictures:
        seen = np.asarray(drawn.picture).astype(int)
        assert {chart.title, *chart.categories} - {""} <= set(drawn.texts)
        x1, y1, x2, y2 = (int(value) for value in drawn.texts[chart.title])
        assert np.ptp(seen[y1 : y2 + 1, x1 : x2 + 1]) > 100


def test_a_place_in_the_truth_is_right_and_another_is_wrong(pictures):
    for chart, drawn in pictures:
        for question in questions(chart, 5):
            if question.mark is None or not can_be_asked(question, drawn):
                continue
            mask = drawn.marks[question.mark]
            x, y = inside(mask)
            assert is_there((x + 0.5, y + 0.5), question, chart, drawn)
            assert not is_there((1, 1), question, chart, drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_of_all_questions_is_about_what_is_not_there(kind):
    charts = list(make_charts(20, 7, "seaborn", (kind,)))
    asked = [question for chart in charts for question in questions(chart, 7)]
    absent = [question for question in asked if question.absent]
    assert len(absent) / len(asked) == pytest.approx(0.25, abs=0.04)
    for chart in charts:
        present = {chart.title, *chart.categories, *chart.series}
        said = [question.description for question in questions(chart, 7) if question.absent]
        assert not any(name.strip('"') in present for name in said)


def test_one_seed_is_one_set_of_charts_and_another_is_another():
    again = list(make_charts(1, 5, "seaborn"))
    assert again == CHARTS
    assert list(make_charts(1, 6, "seaborn")) != CHARTS
    assert all(one != other for one, other in pairwise([CHARTS, list(make_charts(1, 5, "d3"))]))
    assert [questions(chart, 5) for chart in again] == [questions(chart, 5) for chart in CHARTS]


def test_what_is_tuned_on_does_not_judge():
    assert not set(TUNING) & set(JUDGING)
