"""The record's invariants, for conversations of every structure."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydantic import ValidationError

from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.trajectory import InvariantError, Trajectory, Turn, read_trajectories, write_trajectories
from thinkimg.viewer.sample import as_record

PLACEHOLDER = 7
PICTURES = [Image.from_pixels(Pillow.new("RGB", (2 + n, 3), (40 * n, 0, 0))) for n in range(5)]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=2)
made_calls = st.builds(ToolCallBlock, id=texts, name=texts, arguments=json_objects)
made_results = st.builds(
    ToolResultBlock,
    call_id=texts,
    name=texts,
    text=texts,
    data=json_objects,
    error=st.none() | st.just("refused"),
    cached=st.booleans(),
)


def features(image: Image) -> int:
    """Stands for a family's `image_tokens`."""
    return image.width


@st.composite
def turns(draw: st.DrawFn, trajectory: Trajectory) -> Turn:
    """A turn whose tokens agree with its message; at most one new picture, sometimes an old one again."""
    role = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    plain = st.lists(st.integers(10, 99), max_size=5)
    if role == "assistant":
        text = TextBlock(text=draw(texts))
        calls = draw(st.lists(made_calls, max_size=2))
        tokens = draw(plain)
        mask = draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
        content: list[Any] = [text, *calls]
    else:
        content, tokens = [TextBlock(text=draw(texts))], draw(plain)
        if role == "tool":
            content.append(draw(made_results))
        for picture in draw(st.lists(st.sampled_from(PICTURES), max_size=2)):
            old = trajectory.images and draw(st.booleans())
            name = draw(st.sampled_from(list(trajectory.images))) if old else trajectory.add_image(picture)
            content.append(ImageBlock(handle=name))
            tokens += [PLACEHOLDER] * features(trajectory.images[name]) + draw(plain)
        mask = [False] * len(tokens)
    logprobs = [draw(numbers) if flag else 0.0 for flag in mask] if draw(st.booleans()) else None
    return Turn(message=Message(role=role, content=content), tokens=tokens, mask=mask, logprobs=logprobs)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    made = Trajectory(
        question=draw(texts),
        reference=draw(st.none() | texts),
        answer=draw(st.none() | texts),
        rewards=draw(st.dictionaries(texts, numbers, max_size=2)),
        correct=draw(st.none() | st.booleans()),
        meta=draw(st.dictionaries(texts, json_values, max_size=2)),
    )
    for _ in range(draw(st.integers(0, 6))):
        made.turns.append(draw(turns(made)))
    return made


def check(trajectory: Trajectory) -> None:
    trajectory.check(PLACEHOLDER, features)


@given(trajectories())
@settings(deadline=None)
def test_deltas_add_up_and_agree_with_mask_and_pictures(made: Trajectory) -> None:
    check(made)
    deltas = [turn.tokens or [] for turn in made.turns]
    assert made.tokens == [token for delta in deltas for token in delta]
    assert len(made.mask) == len(made.tokens)
    assert made.tokens.count(PLACEHOLDER) == sum(features(image) for image in made.ordered_images)
    owners = [turn.role for turn in made.turns for _ in turn.tokens or []]
    assert all(role == "assistant" for role, flag in zip(owners, made.mask, strict=True) if flag)
    assert made.rounds == [turn.role for turn in made.turns].count("assistant")
    assert all(turn.role != "assistant" for turn in made.turns[: made.prompt_turns])


@given(trajectories(), st.data())
@settings(deadline=None)
def test_any_single_contradiction_is_found(made: Trajectory, data: st.DataObject) -> None:
    spoken = [turn for turn in made.turns if turn.tokens]
    if not spoken:
        return
    turn = data.draw(st.sampled_from(spoken))
    assert turn.tokens is not None
    assert turn.mask is not None
    place = data.draw(st.integers(0, len(turn.tokens) - 1))
    faults = ["mask too short", "log-probabilities too long", "no tokens", "placeholder"]
    fault = data.draw(st.sampled_from(faults + (["foreign mask"] if turn.role != "assistant" else [])))
    if fault == "mask too short":
        turn.mask.pop()
    elif fault == "log-probabilities too long":
        turn.logprobs = [0.0] * (len(turn.tokens) + 1)
    elif fault == "no tokens":
        turn.tokens = None
    elif fault == "placeholder":
        turn.tokens[place] = 11 if turn.tokens[place] == PLACEHOLDER else PLACEHOLDER
    else:
        turn.mask[place] = True
    with pytest.raises(InvariantError):
        check(made)


@given(st.lists(trajectories(), max_size=3))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, made: list[Trajectory]) -> None:
    path = tmp_path / "run" / "trajectories.jsonl"
    write_trajectories(made, path)
    assert list(read_trajectories(path)) == made
    assert not list(path.parent.glob("*.partial"))


def sample() -> Trajectory:
    made = Trajectory(question="?")
    made.add("user", ImageBlock(handle=made.add_image(PICTURES[0])), TextBlock(text="?"))
    return made


@pytest.mark.parametrize(
    ("tokens", "mask", "words"),
    [
        (None, None, "a turn has no tokens"),
        ([PLACEHOLDER, PLACEHOLDER, 1], [False] * 2, "turn 0: tokens, mask and log-probabilities differ in length"),
        ([PLACEHOLDER, PLACEHOLDER, 1], [False, False, True], "turn 0: only an assistant's tokens may be trained"),
        ([PLACEHOLDER, 1], [False] * 2, "turn 0: 1 image placeholders for features of 2"),
    ],
)
def test_the_refusal_names_the_turn_and_what_is_wrong(tokens: Any, mask: Any, words: str) -> None:
    made = sample()
    made.turns[0].tokens, made.turns[0].mask = tokens, mask
    with pytest.raises(InvariantError, match=words):
        check(made)


def test_a_sampled_placeholder_is_found_even_where_the_count_would_agree() -> None:
    made = sample()
    made.turns[0] = made.turns[0].model_copy(update={"tokens": [7, 7], "mask": [False, False]})
    turn = made.add("assistant", ImageBlock(handle="img_1"))
    turn.tokens, turn.mask = [7, 7], [True, False]
    with pytest.raises(InvariantError, match="turn 1: the model sampled an image placeholder"):
        check(made)


def test_each_picture_is_stored_once(tmp_path: Path) -> None:
    write_trajectories([sample(), sample()], tmp_path / "t.jsonl")
    assert [file.name for file in (tmp_path / "images").iterdir()] == [PICTURES[0].sha256 + ".png"]
    assert PICTURES[0].sha256 in (tmp_path / "t.jsonl").read_text()


def test_handles_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="image handles must be img_1, img_2"):
        Trajectory(question="?", images={"img_2": PICTURES[0]})


@pytest.mark.parametrize("line", ["{", "{}", "[]", "null", '{"question": "?", "images": {"img_1": {"sha256": "x"}}}'])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories([sample()], path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2"):
        list(read_trajectories(path))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories([sample()], path)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=PICTURES[0].sha256):
        list(read_trajectories(path))


def test_a_picture_that_was_changed_is_not_taken_for_the_one_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories([sample()], path)
    next((tmp_path / "images").iterdir()).write_bytes(PICTURES[1].data)
    with pytest.raises(ValueError, match=r"line 1: .* its hash differs"):
        list(read_trajectories(path))


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories([sample()], path)

    def broken() -> Any:
        yield sample()
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        write_trajectories(broken(), path)
    assert len(list(read_trajectories(path))) == 1


def test_the_file_holds_hashes_not_bytes(tmp_path: Path) -> None:
    write_trajectories([sample()], tmp_path / "t.jsonl")
    record = json.loads((tmp_path / "t.jsonl").read_text())
    assert record["images"] == {
        "img_1": {"sha256": PICTURES[0].sha256, "width": 2, "height": 3, "media_type": "image/png"}
    }


def test_a_file_with_numbers_that_were_not_finite_is_read_and_shown(tmp_path: Path) -> None:
    """Such a run could be neither reported nor viewed."""
    turn = Turn(
        message=Message(role="assistant", content=[]), tokens=[1, 2], mask=[True, True], logprobs=[-1.0, -math.inf]
    )
    trajectory = Trajectory(question="?", turns=[turn], rewards={"bad": math.nan, "good": 1.0})
    path = tmp_path / "step-000001.jsonl"
    write_trajectories([trajectory], path)
    assert "NaN" not in path.read_text()
    (read,) = read_trajectories(path)
    assert read.rewards == {"good": 1.0}
    assert [math.isnan(value) for value in read.logprobs] == [False, True]
    shown = as_record(read)
    assert (shown["rewards"], shown["turns"][0]["logprobs"]) == ({"good": 1.0}, [-1.0, None])
