"""OpenThinkIMG's SFT data: every sample is checked, the broken ones are named, the good ones become trajectories."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import get_format
from thinkimg.agent.tools import NoTools
from thinkimg.data.questions import load_questions
from thinkimg.data.sharegpt import check_samples, read_samples
from thinkimg.synthesis.imported import trajectory_of


def turn(name: str, **arguments: str) -> str:
    return json.dumps({"thought": f"I use {name}", "actions": [{"name": name, "arguments": arguments}]})


GOOD = [
    {"from": "system", "value": "You are a helpful assistant."},
    {"from": "human", "value": "[BEGIN OF GOAL] long instructions [END OF GOAL] Question: What is Fig? <image>"},
    {"from": "gpt", "value": turn("OCR", image="img_1")},
    {"from": "human", "value": "OBSERVATION:\nExecution result of OCR: Fig 34 <image>"},
    {"from": "gpt", "value": turn("Terminate", ans="34")},
]


def sample(conversations: Any = None, images: Any = ("a.png", "b.png"), **other: Any) -> dict[str, Any]:
    return {"conversations": GOOD if conversations is None else conversations, "images": list(images), **other}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Pillow.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Pillow.new("RGB", (20, 20), "blue").save(tmp_path / "b.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


class Unasked:
    async def reply(self, *_: Any) -> Any:
        raise AssertionError


def agent(syntax: str) -> Agent:
    return Agent(Unasked(), NoTools(), format=get_format(syntax))


@pytest.mark.parametrize("syntax", ["openthinkimg", "hermes"])
def test_a_conversation_becomes_a_trajectory_of_this_runs_agent(folder: Path, syntax: str) -> None:
    (folder / "sft.json").write_text(json.dumps([sample(id="first", label="34")]))
    (conversation,), broken = read_samples(str(folder / "sft.json"))
    assert not broken
    trajectory = trajectory_of(conversation, agent(syntax))
    assert [turn.role for turn in trajectory.turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert trajectory.question == "What is Fig?"
    assert (trajectory.answer, trajectory.reference, trajectory.status) == ("34", "34", "answered")
    assert [image.width for image in trajectory.ordered_images] == [40, 20]
    call, result = trajectory.turns[2].message.tool_calls[0], trajectory.tool_results[0]
    assert (call.name, call.arguments, result.call_id, result.text) == ("OCR", {"image": "img_1"}, call.id, "Fig 34")
    parsed = get_format(syntax).parse(trajectory.turns[2].message.text)
    assert (parsed.thought, parsed.calls[0].name) == ("I use OCR", "OCR")
    assert get_format(syntax).parse(trajectory.turns[4].message.text).answer == "34"
    assert "<image>" not in "".join(turn.message.text for turn in trajectory.turns)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"images": []}, "no list 'conversations'"),
        (sample(images=["a.png"]), "2 times <image>, but 1 images"),
        (sample(images=["a.png", "missing.png"]), r"missing\.png"),
        (sample(images=["a.png", "broken.png"]), r"broken\.png"),
        (sample(GOOD[:-1]), "last message is not gpt's"),
        (sample([*GOOD[:3], *GOOD[2:]]), "message 2: human and gpt must take turns"),
        (sample([{"from": "robot", "value": "x"}]), "message 0: 'from' must be human or gpt, not 'robot'"),
        (sample([*GOOD[:2], {"from": "gpt", "value": ""}]), "message 2: 'value' must be a text"),
    ],
)
def test_a_broken_sample_is_named_and_the_others_are_kept(folder: Path, bad: dict[str, Any], reason: str) -> None:
    good, broken = check_samples([sample(id="good"), bad], folder)
    assert [one.name for one in good] == ["good"]
    assert list(broken) == ["1"]
    assert re.search(reason, broken["1"])


@pytest.mark.parametrize(
    ("last", "reason"),
    [("I think it is 34", "message 3: There is no JSON object"), (turn("OCR"), "message 3: no answer at the end")],
)
def test_a_turn_that_no_agent_could_have_had_is_refused(folder: Path, last: str, reason: str) -> None:
    (conversation,), _ = check_samples([sample([*GOOD[:-1], {"from": "gpt", "value": last}])], folder)
    with pytest.raises(ValueError, match=reason):
        trajectory_of(conversation, agent("openthinkimg"))


def test_rl_data_is_read_with_its_own_names(folder: Path) -> None:
    records = [
        {"image_path": "a.png", "question": "What is Fig?", "solution": "<answer> 34 </answer>"},
        {"image_path": "b.png", "question": "What is Kiwi?", "label": 12},
    ]
    (folder / "rl.json").write_text(json.dumps(records))
    assert [(e.question, e.reference) for e in load_questions(str(folder / "rl.json"), "train", 0)] == [
        ("What is Fig?", "34"),
        ("What is Kiwi?", "12"),
    ]
    (folder / "renamed.json").write_text(json.dumps([{"picture": "a.png", "query": "What?", "solution": "1"}]))
    (example,) = load_questions(f"{folder / 'renamed.json'}?question=query&image=picture", "train", 0)
    assert example.question == "What?"
    (folder / "bad.json").write_text(json.dumps([records[0], {"question": "?"}, {"image_path": "a.png"}]))
    with pytest.raises(
        ValueError,
        match="2 bad records\nrecord 2: no answer or label or solution; there are question\nrecord 3: no quest",
    ):
        load_questions(str(folder / "bad.json"), "train", 0)
