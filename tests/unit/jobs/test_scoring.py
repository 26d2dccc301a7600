"""What is right: said once for a job or for a stage, and then alike in rewards, gates, evaluations and filters."""

import asyncio
from typing import Any

import pytest

from tests.support.models.endpoint import completion, serve
from thinkimg.api import Judge, Reward, Scorer, Stage, parse_manifest
from thinkimg.api.v1alpha1.rewards import SCORERS
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.scorers import NAMES
from thinkimg.evaluation.scoring import score as score_answer
from thinkimg.jobs.stages.scoring import make_scorer, rewards_of, scorer_of
from thinkimg.training.rewards import score_group
from thinkimg.trajectory import Trajectory

OPTIONS = {"options": ["red", "blue"]}


def within(trajectory: Trajectory) -> float:
    """A scorer of somebody's own: it reads a column of the row."""
    return float(abs(float(trajectory.answer or 0) - float(trajectory.reference or 0)) <= trajectory.meta["slack"])


def out_of_range(trajectory: Trajectory) -> float:
    return 3.0


def said(answer: str | None, reference: str = "B", **meta: Any) -> Trajectory:
    return Trajectory(
        question="Which?", reference=reference, answer=answer, status="answered", meta={**OPTIONS, **meta}
    )


def job(**spec: Any) -> list[Stage]:
    document = {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "ToolRLJob",
        "metadata": {"name": "mine"},
        "spec": {
            "model": {"uri": "preset://tiny"},
            "data": {"train": {"uri": "a.jsonl"}, "test": {"uri": "b.jsonl"}},
            "stages": [
                {"name": "rl", "type": "GRPO", "grpo": {"toolUse": "Disabled"}},
                {"name": "table", "type": "Evaluate", "evaluate": {"models": ["rl"]}, "scorer": {"name": "exact"}},
            ],
            **spec,
        },
    }
    return parse_manifest(str(document)).job().spec.stages


def both(named: Scorer, trajectory: Trajectory) -> tuple[float, bool | None, bool | None]:
    """The reward `accuracy`, and whether training and an evaluation call the answer right."""
    learnt, measured = trajectory.model_copy(deep=True), trajectory.model_copy(deep=True)
    (failure,) = asyncio.run(score_group([learnt], rewards_of([Reward(name="accuracy")], make_scorer(named))))
    assert failure is None
    asyncio.run(score_answer(measured, [make_scorer(named)]))
    return learnt.rewards["accuracy"], learnt.correct, measured.correct


def test_the_manifest_knows_the_scorers_that_there_are() -> None:
    assert set(SCORERS) == set(NAMES)


def test_a_stage_has_its_own_scorer_or_the_jobs() -> None:
    assert [scorer_of(stage).name for stage in job()] == ["relaxed_normalised", "exact"]
    assert [scorer_of(stage).name for stage in job(scorer={"name": "multiple_choice"})] == ["multiple_choice", "exact"]


@pytest.mark.parametrize(
    ("scorer", "complaint"),
    [
        ({"name": "relaxd"}, 'there is no scorer "relaxd"'),
        ({"name": "judge"}, "nobody is named who judges"),
        ({"name": "exact", "judge": {"baseUrl": "http://a/v1", "model": "b"}}, "belongs to the scorer judge"),
    ],
)
def test_a_scorer_that_is_none_is_refused(scorer: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        job(scorer=scorer)


@pytest.mark.parametrize(
    ("name", "answer", "reference", "value"),
    [
        ("relaxed_normalised", "103", "100", 1.0),
        ("exact", "103", "100", 0.0),
        ("multiple_choice", "the blue one", "B", 1.0),
        ("multiple_choice", "A", "B", 0.0),
        ("tests.unit.jobs.test_scoring:within", "103", "100", 1.0),
        ("tests.unit.jobs.test_scoring:within", "111", "100", 0.0),
    ],
)
def test_training_and_evaluation_call_the_same_answers_right(
    name: str, answer: str, reference: str, value: float
) -> None:
    found = both(Scorer(name=name), said(answer, reference, slack=5))
    assert found == (value, value == 1.0, value == 1.0)


def test_partial_credit_is_rewarded_and_is_not_right_anywhere() -> None:
    value, *right = both(Scorer(name="openthinkimg_fuzzy"), said("decrease", "increase"))
    assert 0 < value < 1
    assert right == [False, False]


def test_a_scorer_of_ones_own_that_is_not_there_or_gives_no_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"tests\.nowhere:at_all"):
        make_scorer(Scorer(name="tests.nowhere:at_all"))
    with pytest.raises(UserError, match=r"gives 3.0 for trajectory .*, (and )?not 0 to 1"):
        asyncio.run(make_scorer(Scorer(name="tests.unit.jobs.test_scoring:out_of_range")).score(said("1")))


@pytest.mark.parametrize(
    ("verdict", "found"), [("It is. Correctness: Yes", (1.0, True, True)), ("Correctness: No", (0.0, False, False))]
)
def test_a_judge_says_what_is_right(verdict: str, found: Any) -> None:
    with serve(completion(verdict)) as endpoint:
        judge = Judge(base_url=endpoint.url, model="m", criteria="Names of one colour are the same.")
        assert both(Scorer(name="judge", judge=judge), said("blue")) == found
        assert "Names of one colour are the same." in str(endpoint.bodies[0])


def test_where_a_judge_fails_nothing_is_wrong() -> None:
    with serve(completion("I cannot say")) as endpoint:
        named = Scorer(name="judge", judge=Judge(base_url=endpoint.url, model="m"))
        rewards = rewards_of([Reward(name="accuracy")], make_scorer(named))
        (failure,) = asyncio.run(score_group([said("blue")], rewards))
        assert isinstance(failure, InfrastructureError)
        lost = said("blue")
        asyncio.run(score_answer(lost, [make_scorer(named)]))
        assert (lost.status, lost.correct, lost.rewards) == ("infrastructure", None, {})
