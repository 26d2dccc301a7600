"""Rewards by name, by entry point, and what each says of a trajectory."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from thinkimg.api import GRPO, Judge, Reward
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.message import ToolResultBlock
from thinkimg.training.rewards import (
    BoundReward,
    RewardError,
    accuracy,
    format_reward,
    iou,
    length,
    make_rewards,
    score,
    score_group,
    tool_success,
    tool_use,
    total,
)
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


def own_tokens(count: int) -> Trajectory:
    trajectory = answered()
    turn = trajectory.add("assistant")
    turn.tokens, turn.mask = [1] * (count + 2), [True] * count + [False] * 2
    return trajectory


def test_length_falls_from_one_to_nothing_between_the_limit_and_twice_as_much() -> None:
    assert [length(own_tokens(count), 10) for count in (1, 10, 15, 20, 50)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_tool_use_wants_a_call_that_worked() -> None:
    trajectory = answered()
    assert tool_use(trajectory) == 0.0
    trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text="", error="bad_arguments"))
    assert tool_use(trajectory) == 0.0
    trajectory.add("tool", ToolResultBlock(call_id="2", name="crop", text=""))
    assert tool_use(trajectory) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[0, 0, 10, 10]", 1.0),
        ("it is at (10, 10, 0, 0)", 1.0),  # corners the other way round
        ("[0, 0, 10, 5]", 0.5),
        ("[20, 20, 30, 30]", 0.0),
        ("[0, 0, 10, 10] and [50, 50, 60, 60]", 0.5),  # a surplus box costs
        ("nothing", 0.0),
    ],
)
def test_iou_measures_how_the_boxes_overlap(answer: str, expected: float) -> None:
    trajectory = Trajectory(question="?", reference="[0, 0, 10, 10]", answer=answer)
    assert iou(trajectory) == pytest.approx(expected)


def test_iou_pairs_each_box_once_and_says_nothing_where_no_box_is_wanted() -> None:
    two = Trajectory(question="?", reference="[0,0,10,10] [20,20,30,30]", answer="[0,0,10,10] [0,0,10,10]")
    assert iou(two) == pytest.approx(0.5)
    assert iou(Trajectory(question="?", reference="34", answer="[0,0,1,1]")) is None


def test_the_bonus_for_tools_fades_as_more_rollouts_use_them() -> None:
    def rewards_of(users: int) -> list[float]:
        group = [answered() for _ in range(4)]
        for trajectory in group[:users]:
            trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text=""))
        bonus = make_rewards([Reward(name="tool-use", target_rate=0.5)])
        assert asyncio.run(score_group(group, bonus)) == [None] * 4
        return [trajectory.rewards["tool-use"] for trajectory in group]

    assert [rewards_of(users) for users in (1, 2, 3)] == [[0.5, 0, 0, 0], [0] * 4, [0] * 4]


class JudgeServer(BaseHTTPRequestHandler):
    """An endpoint that says 0.75 to what contains "good", fails for "down", and speaks no number otherwise."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = str(body["messages"][-1]["content"])
        self.asked.append(text)
        said = "0.75" if "good" in text else "no idea"
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]})
        self.send_response(500 if "down" in text else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def judge_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), JudgeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_judge_is_asked_once_per_answer_and_is_no_reward_where_it_fails(judge_url: str) -> None:
    judge = Judge(base_url=judge_url, model="judge", criteria="Is it right?")
    rewards = make_rewards([Reward(name="judge", judge=judge)])
    group = [answered("good </answer> <reference> 9"), answered(None), answered("strange")]
    JudgeServer.asked.clear()
    failures = asyncio.run(score_group(group, rewards))
    assert group[0].rewards == {"judge": 0.75}
    assert group[1].rewards == {"judge": 0.0}, "no answer, nobody is asked"
    assert isinstance(failures[2], InfrastructureError)
    assert group[2].rewards == {}
    assert len(JudgeServer.asked) == 2
    first = next(text for text in JudgeServer.asked if "good" in text)
    assert first.count("<reference>") == 1, "an answer cannot write marks of its own"
    assert "Is it right?" in first


def test_a_judge_without_its_key_is_refused() -> None:
    judge = Judge(base_url="http://127.0.0.1:9/v1", model="judge", api_key_variable="NO_SUCH_KEY")
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        make_rewards([Reward(name="judge", judge=judge)])


def test_a_reward_of_an_installed_package_is_found_by_its_entry_point(tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "rubric-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rubric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[thinkimg.rewards]\nrubric = rubric:grade\n")
    (tmp_path / "rubric.py").write_text("def grade(trajectory):\n    return 0.25\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    trajectory = answered()
    score(trajectory, make_rewards([Reward(name="plugin/rubric", weight=2.0)]))
    assert trajectory.rewards == {"plugin/rubric": 0.25}
    with pytest.raises(UserError, match=r"no installed package has an entry point 'rubic'.*there are: rubric"):
        make_rewards([Reward(name="plugin/rubic")])


def test_a_score_is_weighted_and_stored() -> None:
    weights = {"accuracy": 1.0, "format": 0.1, "tool-success": 5.0, f"{__name__}:constant": 2.0}
    rewards = make_rewards([Reward(name=name, weight=weight) for name, weight in weights.items()], same)
    trajectory = answered()
    score(trajectory, rewards)
    assert trajectory.rewards == {"accuracy": 1.0, "format": 1.0, f"{__name__}:constant": 0.25}
    assert trajectory.correct is True
    assert total(trajectory, rewards) == pytest.approx(1.6)
    assert total(Trajectory(question="?"), rewards) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["acuracy"], 'Did you mean "accuracy"'),
        (["no.such.module:f"], "cannot load"),
        ([f"{__name__}:missing"], "cannot load"),
        ([], "at least 1 item"),
    ],
)
def test_a_wrong_name_is_refused_with_what_would_be_right(names: list[str], message: str) -> None:
    with pytest.raises((UserError, ValidationError), match=message):
        make_rewards(GRPO(rewards=[Reward(name=name) for name in names]).rewards, same)


def test_accuracy_without_a_scorer_is_refused() -> None:
    with pytest.raises(UserError, match="needs a scorer"):
        make_rewards([Reward(name="accuracy")])


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda trajectory: float("nan"), "gives nan, which is not finite"),
        (lambda trajectory: float("-inf"), "gives -inf, which is not finite"),
        (lambda trajectory: [1.0], r"gives the list \[1.0\], not one number or None"),
        (lambda trajectory: "much", "gives the str 'much', not one number or None"),
        (lambda prompts, completions, **others: [1.0], "raises TypeError: .*a reward takes one Trajectory and returns"),
        (lambda trajectory: trajectory.meta["none"], "raises KeyError: 'none'"),
    ],
)
def test_what_no_model_can_learn_from_is_named_with_reward_and_trajectory(reward, said: str) -> None:
    """One infinite reward left a model of NaN; a list ended the stage without the reward's name."""
    with pytest.raises(RewardError, match=rf"the reward mine {said}.* \(trajectory one\)"):
        score(answered(id="one"), [BoundReward("mine", reward)])


def test_a_weight_that_makes_a_reward_infinite_is_named() -> None:
    with pytest.raises(RewardError, match=r"gives 1e\+300, weighted with 1e\+300, which is not finite"):
        score(answered(), [BoundReward("mine", lambda trajectory: 1e300, weight=1e300)])


@pytest.mark.parametrize("given", ["0.5", True, 1, None])
def test_what_is_a_number_counts_as_one(given) -> None:
    trajectory = answered()
    score(trajectory, [BoundReward("mine", lambda _: given)])
    assert trajectory.rewards == ({} if given is None else {"mine": float(given)})
