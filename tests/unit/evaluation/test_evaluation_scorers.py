"""Scorers against the published examples of their benchmarks."""

import asyncio
from typing import Any

import pytest

from tests.support.models.endpoint import completion, refusal, serve
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation import charxiv, openthinkimg_fuzzy
from thinkimg.evaluation.choices import choose
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.metrics import exact_match
from thinkimg.evaluation.official import relaxed
from thinkimg.evaluation.scorers import NAMES, RULES, find_rule
from thinkimg.models.api import ApiModel
from thinkimg.trajectory import Trajectory


@pytest.mark.parametrize(
    ("gold", "prediction", "score"),
    [
        ("increase", '"decrease"', 0.67),
        ("2016", '"2061"', 0.60),
        ("united states", '"united kingdom"', 0.48),
        ("17", "17.99", 1.0),
        ("17", '"17.99"', 0.0),
        ("12", "12.9", 1.0),
        ("United States", "united states", 1.0),
        ("40", "40.7%", 1.0),
        ("40", "41%", 0.0),
        ("0.5", "1/2", 1.0),
        ("none of these", "", 0.0),
    ],
)
def test_openthinkimgs_own_score_is_reproduced(gold: str, prediction: str, score: float) -> None:
    assert openthinkimg_fuzzy.score(prediction, gold) == score


def test_openthinkimgs_score_is_the_same_in_another_thread() -> None:
    async def elsewhere() -> list[float]:
        return [await asyncio.to_thread(openthinkimg_fuzzy.score, p, g) for p, g in (("1/2", "0.5"), ("12.9", "12"))]

    assert asyncio.run(elsewhere()) == [1.0, 1.0]


def test_what_openthinkimg_calls_two_thirds_right_is_wrong_by_every_other_score() -> None:
    said = Trajectory(question="?", reference="increase", answer="decrease")
    others = {name: rule.of(said) for name, rule in RULES.items() if name != "openthinkimg_fuzzy"}
    assert set(others.values()) == {0.0}
    assert RULES["openthinkimg_fuzzy"].of(said) > 0.6


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("95", "100", True),  # within 5 %: Masry et al., 2022, section 5.1
        ("105", "100", True),
        ("94.9", "100", False),
        ("0.12", "12%", True),
        ("Yes", "yes", True),
        ("the red bar", "red bar", False),
        ("0", "0", True),
        ("0.0", "0", False),  # a target of zero is compared as text
        ("1,000", "1000", False),
        ("2010", "2006", True),  # years are numbers like any other
    ],
)
def test_chartqas_relaxed_accuracy(answer: str, reference: str, right: bool) -> None:
    assert relaxed(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("1.0", "1", True),
        ("95", "100", False),
        ("The  Red bar.", "red bar", True),
        ("12%", "0.12", True),
        ("", "1", False),
    ],
)
def test_exact_knows_no_tolerance(answer: str, reference: str, right: bool) -> None:
    assert exact_match(answer, reference) is right


PUBLISHED = [  # CharXiv's grading instructions: final answer, ground truth, score
    ("title", "The number of students in each grade", "The variance of students in each grade", 0),
    ("title", "There is no title.", "Not Applicable", 1),
    ("title", "A_v^t", "A^t_v", 1),
    ("title", "(a) Increment over time", "Increment over time", 1),
    ("title", "R^2_t,h,v,m", "$R^2_{t,h,v,m}$", 1),
    ("title", "alpha", "α", 1),
    ("ocr", "1.0", "1.00", 1),
    ("ocr", "0", "Not Applicable", 0),
    ("ocr", "A_v^t", "A^t_v", 1),
    ("quant", "5", "6", 0),
    ("quant", "0", "Not Applicable", 0),
    ("quant", "4", "4", 1),
    ("bool", "No, there are no intersections.", "no", 1),
    ("bool", "No, all the lines are parallel.", "Yes", 0),
    ("bool", "There are no lines in the plot.", "Not Applicable", 1),
    ("enum", "A, B, C", "B, A, C", 0),
    ("enum", "T56, B33", "T56,B33,A12", 0),
    ("enum", r"\alpha, \beta, \gamma^t_v", "α, β, γ_v^t", 1),
    ("trend", "there is an increase in the data from left to right", "Decreases", 0),
    ("trend", "the curves move up and stay constant", "Increases then stabilizes", 1),
    ("trend", "Decreases", "Decreases then increases", 0),
    ("layout", "2 by 3", "3 by 2", 0),
    ("layout", "the layout is 1 by 1", "1 by 1", 1),
    ("layout", "there are two rows and three columns", "2 by 3", 1),
    ("text", "P55762", "P56962", 0),
    ("text", "b", "(b)", 1),
    ("text", "ACC", "ACC+", 0),
    ("text", "P=101", "P-101", 0),
    ("phrase", "increasing", "increasing then decreasing", 0),
    ("phrase", "[50, 100]", "[50, 100]", 1),
    ("number", "0.012", "0.01", 0),
    ("number", "1.5e3", "1500", 1),
    ("number", "10^-2", "0.01", 1),
]


@pytest.mark.parametrize(("rubric", "answer", "reference", "score"), PUBLISHED)
def test_charxivs_published_examples(rubric: str, answer: str, reference: str, score: int) -> None:
    assert charxiv.score(answer, reference, rubric) == score


def test_charxivs_terms_may_come_in_any_order_where_it_says_so_and_nowhere_else() -> None:
    assert charxiv.score("B, A", "A, B", "text") == 1
    assert charxiv.score("B, A", "A, B", "enum") == 0
    assert charxiv.score("nothing", "2 by 2", "layout") == 0


ANIMALS = {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("(B)", "B"),
        ("b", "B"),
        ("C.", "C"),
        ("The answer is D", "D"),
        ("Answer: B", "B"),
        ("(A) teddy bear", "A"),
        ("a cute teddy bear", "A"),  # VLMEvalKit's examples: by its text
        ("Spider", None),
        ("A dog", "D"),  # the article, not the option
        ("I choose option C because it is furry", "C"),
        ("B or C", None),
        ("concatenated", None),
    ],
)
def test_the_option_that_an_answer_names(answer: str, letter: str | None) -> None:
    assert choose(answer, ANIMALS) == letter


def test_an_answer_that_is_missing_scores_nothing_everywhere() -> None:
    unanswered = Trajectory(question="?", reference="Not Applicable", status="rounds")
    assert {rule.of(unanswered) for rule in RULES.values()} == {0.0}


def test_an_unknown_scorer_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="relaxed_normalised"):
        find_rule("fuzzy")
    assert "judge" in NAMES


# ---- the judge ------------------------------------------------------------------------------------------------------


def judged(*answers: Any, answer: str | None = "12 dogs", rubric: str = "") -> tuple[float, list[dict[str, Any]]]:
    said = Trajectory(question="How many dogs?", reference="12", answer=answer, meta={"rubric": rubric})
    with serve(*answers) as endpoint:
        judge = JudgeScorer(ApiModel(endpoint.url, "judge", retries=0, backoff_seconds=0))
        return asyncio.run(judge.score(said)), endpoint.bodies


def test_the_judge_is_asked_with_question_reference_and_answer_and_its_verdict_counts() -> None:
    value, bodies = judged(completion("Both say twelve.\nCorrectness: Yes"))
    assert value == 1.0
    (message,) = bodies[0]["messages"]
    assert "How many dogs?" in message["content"]
    assert "Known answer: 12\n" in message["content"]
    assert "12 dogs" in message["content"]
    assert bodies[0]["temperature"] == 0
    assert judged(completion("Correctness: yes? No: **Correctness: No**"))[0] == 0.0


def test_charxivs_rule_is_put_to_the_judge_where_the_question_has_one() -> None:
    _, bodies = judged(completion("Correctness: No"), rubric="enum")
    assert "same terms in the same order" in bodies[0]["messages"][0]["content"]


def test_a_judge_that_does_not_decide_is_asked_again_and_then_given_up() -> None:
    value, bodies = judged(completion("Hm."), completion("Correctness: Yes"))
    assert (value, len(bodies)) == (1.0, 2)
    with pytest.raises(InfrastructureError, match="neither Yes nor No"):
        judged(completion("Hm."))
    with pytest.raises(InfrastructureError, match="503"):
        judged(refusal(503, "busy"))


def test_no_answer_is_not_put_to_the_judge() -> None:
    assert judged(completion("Correctness: Yes"), answer=None) == (0.0, [])


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"A": "red", "B": "blue"}, "B"),
        (["red", "blue"], "B"),
        (["A. red", "B. blue"], "(B)"),
        (["(A) red", "(B) blue"], "blue"),
        (None, "B"),
    ],
)
def test_options_of_a_choice_may_stand_in_many_ways(options: Any, reference: str) -> None:
    meta = {"options": options}
    said = [Trajectory(question="?", reference=reference, answer=text, meta=meta) for text in ("The answer is B.", "A")]
    assert [RULES["multiple_choice"].of(one) for one in said] == [1.0, 0.0]
