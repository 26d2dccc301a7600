"""Questions about charts: the answer follows from the record, and no answer can be guessed from its frequency."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkimg.data.charts import CLEAR_DIFFERENCE, DEFAULT_MIX, Question, make_questions


def answer_from_record(question: Question) -> str:
    """The answer worked out again from the words of the question, as a careful reader of the chart would."""
    panels = question.chart.panels
    words = question.text.rstrip("?").split()
    if question.kind == "value":
        return str({item.label: item.value for item in panels[0].items}[words[-1]])
    if question.kind == "panel-value":
        (panel,) = [panel for panel in panels if panel.title == words[-1]]
        return str({item.label: item.value for item in panel.items}[words[-3]])
    if question.kind == "count":
        return str(len(panels[0].items))
    if question.kind == "panels":
        return str(len(panels))
    by_color = {item.color: item.value for item in panels[0].items}
    one, other = (word for word in words if word in by_color)
    assert abs(by_color[one] - by_color[other]) >= CLEAR_DIFFERENCE
    return max(one, other, key=by_color.__getitem__)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.sampled_from((1, 2, 3)))
def test_answers_follow_from_the_record(seed: int, level: int) -> None:
    for question in make_questions("validation", 60, seed, level):
        assert question.answer == answer_from_record(question)


def test_the_same_seed_asks_the_same_questions() -> None:
    assert make_questions("test", 50, 3) == make_questions("test", 50, 3)
    assert make_questions("test", 50, 3) != make_questions("test", 50, 4)


def test_the_mix_is_met_exactly() -> None:
    kinds = Counter(question.kind for question in make_questions("train", 200, 0))
    assert kinds == {kind: round(200 * share) for kind, share in DEFAULT_MIX.items()}
    assert len(make_questions("train", 7, 0)) == 7
    assert {q.kind for q in make_questions("train", 9, 0, mix={"count": 2, "compare": 1})} == {"count", "compare"}


def test_ids_are_unique_and_charts_carry_three_questions() -> None:
    questions = make_questions("train", 600, 0)
    assert len({question.id for question in questions}) == 600
    per_chart = Counter(question.chart.digest for question in questions)
    assert max(per_chart.values()) == 3
    assert len(per_chart) <= 220


@pytest.mark.parametrize("kind", ["count", "compare", "panels"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_no_answer_is_more_frequent_than_another(kind: str, level: int) -> None:
    questions = make_questions("train", 120, 5, level, mix={kind: 1})
    counts = Counter(question.answer for question in questions)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_order_of_two_colors_does_not_tell_the_larger() -> None:
    questions = make_questions("train", 300, 0, mix={"compare": 1})
    first_wins = sum(q.text.index(f"the {q.answer} ") == q.text.index("the ") for q in questions)
    assert 110 <= first_wins <= 190


def test_the_words_of_a_question_do_not_tell_the_count() -> None:
    """Whatever the mark asked about, guessing its most frequent count is little better than chance (25 %)."""
    questions = make_questions("train", 800, 0)
    by_text: dict[str, Counter[str]] = {}
    for question in (q for q in questions if q.kind == "count"):
        by_text.setdefault(question.text, Counter())[question.answer] += 1
    best = sum(counts.most_common(1)[0][1] for counts in by_text.values())
    assert best / sum(counts.total() for counts in by_text.values()) < 0.42


def test_the_most_frequent_value_is_rare() -> None:
    values = Counter(q.answer for q in make_questions("train", 600, 0) if q.kind.endswith("value"))
    assert values.most_common(1)[0][1] / values.total() < 0.04


def test_a_panel_question_names_a_label_that_every_panel_has() -> None:
    for question in make_questions("train", 60, 0, mix={"panel-value": 1}):
        values = [i.value for panel in question.chart.panels for i in panel.items if i.label == question.label]
        assert len(values) == len(question.chart.panels)
        assert len(set(values)) == len(values)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown kinds of question \['colour'\]"):
        make_questions("train", 1, 0, mix={"colour": 1})
    with pytest.raises(ValueError, match="per_chart"):
        make_questions("train", 1, 0, per_chart=0)
    with pytest.raises(ValueError, match="the mix needs"):
        make_questions("train", 1, 0, mix={"value": 0})
