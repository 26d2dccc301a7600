"""Charts: the same for the same seed, in one split only, and drawn so that every text stands free."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thinkimg.data import chart_drawing
from thinkimg.data.chart import Chart
from thinkimg.data.chart_drawing import FONT_NAMES, PALETTES, SIZE, PlacedText, draw_chart
from thinkimg.data.charts import LONG_LABELS, PANEL_KINDS, SHORT_LABELS, SINGLE_KINDS, TITLES, make_charts

SEEDS = st.integers(0, 2**32)
SPLITS = ("train", "validation", "test")
LEVELS = (1, 2, 3)


def charts(count: int = 80, difficulty: int = 1, seed: int = 0) -> list[Chart]:
    return list(make_charts("train", count, seed, difficulty))


def test_the_same_seed_makes_the_same_charts_and_the_same_pixels() -> None:
    first, again = charts(10), charts(10)
    assert first == again
    pictures = [[draw_chart(chart).image.tobytes() for chart in each] for each in (first, again)]
    assert pictures[0] == pictures[1]


def test_charts_of_a_seed_stay_as_they_are_from_release_to_release() -> None:
    """Runs are compared across versions: whoever changes what a seed means must do so knowingly."""
    content = "".join(chart.digest for chart in charts(20))
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "853e89b81adc6318"


def test_another_seed_makes_other_charts() -> None:
    assert not {c.digest for c in charts(50, seed=0)} & {c.digest for c in charts(50, seed=1)}


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, other_seed=SEEDS, level=st.sampled_from(LEVELS))
def test_splits_are_disjoint_whatever_the_seeds(seed: int, other_seed: int, level: int) -> None:
    drawn = {
        split: {chart.digest for chart in make_charts(split, 15, own_seed, level)}
        for split, own_seed in zip(SPLITS, (seed, other_seed, seed), strict=True)
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not drawn[one] & drawn[other]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, split=st.sampled_from(SPLITS))
def test_a_chart_knows_its_split_from_its_content_alone(seed: int, split: str) -> None:
    for chart in make_charts(split, 5, seed):  # type: ignore[arg-type]
        assert chart.split == split
        assert Chart(chart.panels, charts(1)[0].style, "other").split == split


@pytest.mark.parametrize("level", LEVELS)
def test_values_have_two_digits_and_differ_within_a_chart(level: int) -> None:
    for chart in charts(difficulty=level):
        values = [item.value for panel in chart.panels for item in panel.items]
        assert len(set(values)) == len(values)
        assert all(10 <= value <= 99 for value in values)


@pytest.mark.parametrize("level", LEVELS)
def test_colors_are_unique_in_a_panel_and_in_every_palette(level: int) -> None:
    for panel in (panel for chart in charts(difficulty=level) for panel in chart.panels):
        colors = [item.color for item in panel.items]
        assert len(set(colors)) == len(colors)
        assert all(color in palette for palette in PALETTES.values() for color in colors)


def test_panels_repeat_labels_with_other_values_under_other_titles() -> None:
    groups = [chart for chart in charts(200, difficulty=2) if len(chart.panels) > 1]
    assert {len(chart.panels) for chart in groups} == {2, 4}
    for chart in groups:
        assert len({frozenset(item.label for item in panel.items) for panel in chart.panels}) == 1
        assert len({panel.title for panel in chart.panels}) == len(chart.panels)


def test_every_kind_font_and_palette_appears() -> None:
    some = charts(200)
    assert {chart.panels[0].kind for chart in some if len(chart.panels) == 1} == set(SINGLE_KINDS)
    assert {panel.kind for chart in some if len(chart.panels) > 1 for panel in chart.panels} == set(PANEL_KINDS)
    assert {chart.style.font for chart in some} == set(FONT_NAMES)
    assert {chart.style.palette for chart in some} == set(PALETTES)


def test_labels_and_titles_are_different_words() -> None:
    words = [*SHORT_LABELS, *LONG_LABELS, *TITLES]
    assert len({word.lower() for word in words}) == len(words)
    assert all(3 <= len(word) <= 6 for word in words)


@pytest.mark.parametrize("level", LEVELS)
def test_every_text_stands_inside_its_panel_and_touches_no_other(level: int) -> None:
    for chart in charts(difficulty=level):
        texts = draw_chart(chart).texts
        for text in texts:
            assert any(_inside(text, panel.box) for panel in chart.panels), (chart.seed, text)
        for one, other in itertools.combinations(texts, 2):
            assert not _overlap(one, other), (chart.seed, one, other)


def _inside(text: PlacedText, percent: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = (value * SIZE / 100 for value in percent)
    return left <= text.box[0] and top <= text.box[1] and text.box[2] <= right and text.box[3] <= bottom


def _overlap(one: PlacedText, other: PlacedText) -> bool:
    a, b = one.box, other.box
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("level", LEVELS)
def test_every_title_label_and_value_is_drawn(level: int) -> None:
    for chart in charts(20, difficulty=level):
        written = sorted(text.text for text in draw_chart(chart).texts)
        items = [item for panel in chart.panels for item in panel.items]
        expected = [p.title for p in chart.panels] + [i.label for i in items] + [str(i.value) for i in items]
        assert written == sorted(expected)


def test_panels_are_separated_by_empty_space() -> None:
    for chart in charts(200, difficulty=2):
        picture = np.asarray(draw_chart(chart).image)
        for panel, other in itertools.combinations(chart.panels, 2):
            if panel.box[2] < other.box[0]:
                gap = picture[:, _gap(panel.box[2], other.box[0])]
            elif panel.box[3] < other.box[1]:
                gap = picture[_gap(panel.box[3], other.box[1]), :]
            else:
                continue  # a diagonal of the grid, whose columns run the other way
            assert (gap == chart.style.background).all(), chart.seed


def _gap(end: float, start: float) -> slice:
    return slice(round(end * SIZE / 100) + 1, round(start * SIZE / 100) - 1)


def test_without_matplotlib_charts_are_the_same_in_another_font(monkeypatch: pytest.MonkeyPatch) -> None:
    (chart,) = [c for c in charts() if c.style.font == "dejavu-serif"][:1]
    usual = draw_chart(chart).image
    monkeypatch.setattr(chart_drawing, "_matplotlib_fonts", lambda: chart_drawing.Path("/nonexistent"))
    chart_drawing._font.cache_clear()
    try:
        drawing = draw_chart(chart)
    finally:
        chart_drawing._font.cache_clear()
    assert isinstance(drawing.image, Image.Image)
    assert drawing.image.tobytes() != usual.tobytes()


def test_an_unknown_split_or_difficulty_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        next(make_charts("dev", 1, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="difficulty must be one of"):
        next(make_charts("train", 1, 0, difficulty=4))
