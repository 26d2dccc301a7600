"""Rewards by name, by entry point, and what each says of a trajectory."""

import pytest

from thinkimg.errors import UserError
from thinkimg.message import ToolResultBlock
from thinkimg.training.rewards import accuracy, format_reward, make_rewards, score, tool_success, total
from thinkimg.trajectory import Trajectory


def same(answer: str, reference: str) -> float:
    return float(answer == reference)


def answered(answer: str | None = "7", **fields) -> Trajectory:
    return Trajectory(question="?", reference="7", answer=answer, status="answered", **fields)


def constant(trajectory: Trajectory) -> float:
    return 0.25


def test_accuracy_is_the_scorers_verdict() -> None:
    assert accuracy(answered("7"), same) == 1.0
    assert accuracy(answered("8"), same) == 0.0
    assert accuracy(answered(None), same) == 0.0
    assert accuracy(Trajectory(question="?", answer="7"), same) is None


def test_format_wants_an_answer_and_no_malformed_turn() -> None:
    assert format_reward(answered()) == 1.0
    assert format_reward(answered(meta={"malformed": 1})) == 0.0
    assert format_reward(Trajectory(question="?", status="rounds")) == 0.0


def test_tool_success_counts_the_models_mistakes_only() -> None:
    trajectory = answered()
    assert tool_success(trajectory) is None
    for error in (None, "bad_arguments"):
        trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text="", error=error))
    assert tool_success(trajectory) == 0.5


def test_a_score_is_weighted_and_stored() -> None:
    rewards = make_rewards({"accuracy": 1.0, "format": 0.1, "tool-success": 5.0, f"{__name__}:constant": 2.0}, same)
    trajectory = answered()
    score(trajectory, rewards)
    assert trajectory.rewards == {"accuracy": 1.0, "format": 1.0, f"{__name__}:constant": 0.25}
    assert trajectory.correct is True
    assert total(trajectory, rewards) == pytest.approx(1.6)
    assert total(Trajectory(question="?"), rewards) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"acuracy": 1.0}, "did you mean 'accuracy'"),
        ({"no.such.module:f": 1.0}, "cannot load"),
        ({f"{__name__}:missing": 1.0}, "cannot load"),
        ({}, "at least one"),
    ],
)
def test_a_wrong_name_is_refused_with_what_would_be_right(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_rewards(weights, same)


def test_accuracy_without_a_scorer_is_refused() -> None:
    with pytest.raises(UserError, match="needs a scorer"):
        make_rewards({"accuracy": 1.0})
