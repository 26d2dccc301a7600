"""Trajectories to batches: loss where the model spoke, pictures in the order of their places, bad samples counted."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.training.scripted_agent import World, picture
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.training.collator import IGNORED, Collator, Sample, encode_samples, encode_trajectory
from thinkimg.trajectory import InvariantError, Trajectory


@pytest.fixture(scope="module")
def world() -> World:
    torch.set_num_threads(1)
    return World()


def episode(number: int, rounds: int = 2, pictures: int = 1) -> Trajectory:
    made = Trajectory(question="?")
    made.add("system", TextBlock(text="answer"))
    handles = [made.add_image(picture(number + n, 64 + 32 * n, 64)) for n in range(pictures)]
    made.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text="what is the value"))
    for turn in range(rounds):
        made.add("assistant", TextBlock(text=f"see the bar {number} {turn}"))
        if turn < rounds - 1:
            shown = made.add_image(picture(100 + number + turn, 48, 48 + 48 * turn))
            result = ToolResultBlock(call_id="1", name="Crop", text="<|image_pad|>")
            made.add("tool", result, ImageBlock(handle=shown))
    return made


def collator(world: World) -> Collator:
    return Collator(world.family, world.features, world.processor.tokenizer.pad_token_id)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=4))
def test_labels_are_the_models_own_tokens_and_nothing_else(world: World, shapes: list[tuple[int, int]]) -> None:
    samples, dropped = encode_samples(world.family, [episode(n, *shape) for n, shape in enumerate(shapes)])
    assert not dropped
    batch = collator(world)(samples)
    width = max(len(sample.tokens) for sample in samples)
    for row, sample in enumerate(samples):
        length = len(sample.tokens)
        wanted = [token if own else IGNORED for token, own in zip(sample.tokens, sample.mask, strict=True)]
        assert batch["labels"][row].tolist() == wanted + [IGNORED] * (width - length)
        assert batch["input_ids"][row, :length].tolist() == sample.tokens
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (width - length)
    assert {tuple(batch[name].shape) for name in ("input_ids", "labels", "attention_mask", "mm_token_type_ids")} == {
        (len(samples), width)
    }
    places = int(batch["mm_token_type_ids"].sum())
    assert places == int((batch["input_ids"] == world.family.image_token_id).sum())
    if "image_grid_thw" in batch:
        assert places == int(batch["image_grid_thw"].prod(-1).sum()) // 4
        assert len(batch["pixel_values"]) == places * 4
    else:
        assert places == 0


def test_what_is_trained_is_what_the_model_says_and_the_end_of_its_turn(world: World) -> None:
    encoded = encode_trajectory(world.family, episode(3, rounds=2))
    said = [token for token, own in zip(encoded.tokens, encoded.mask, strict=True) if own]
    end = world.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert said.count(end) == 2
    assert world.processor.tokenizer.decode(said) == "see the bar 3 0<|im_end|>see the bar 3 1<|im_end|>"


def test_pictures_stand_in_the_order_of_their_places(world: World) -> None:
    first, second = episode(1, rounds=3, pictures=2), episode(2, rounds=1)
    samples, _ = encode_samples(world.family, [first, second])
    batch = collator(world)(samples)
    pictures = [image.pixels() for made in (first, second) for image in made.ordered_images]
    wanted = world.processor.image_processor(images=pictures, return_tensors="pt")
    assert torch.equal(batch["image_grid_thw"], wanted["image_grid_thw"])
    assert torch.equal(batch["pixel_values"], wanted["pixel_values"])


def test_padding_does_not_change_the_loss(world: World) -> None:
    samples, _ = encode_samples(world.family, [episode(1, 3, 2), episode(2, 1, 0)])
    world.model.eval()

    def summed(batch: dict[str, Any]) -> tuple[float, int]:
        count = int((batch["labels"][:, 1:] != IGNORED).sum())
        with torch.no_grad():
            return float(world.model(**batch).loss) * count, count

    alone = [summed(collator(world)([sample])) for sample in samples]
    loss, count = summed(collator(world)(samples))
    assert count == sum(number for _, number in alone)
    assert loss == pytest.approx(sum(value for value, _ in alone), rel=1e-4)


def test_recorded_tokens_of_another_model_are_encoded_anew(world: World) -> None:
    made = episode(1)
    made.turns[2].tokens, made.turns[2].mask, made.turns[2].logprobs = [1, 2], [True, False], [-1.0, 0.0]
    assert encode_trajectory(world.family, made).tokens == encode_trajectory(world.family, episode(1)).tokens
    assert made.turns[2].tokens == [1, 2], "the record itself is left alone"
    assert made.turns[0].tokens is None


def test_a_sample_that_contradicts_itself_is_dropped_and_its_reason_counted(world: World) -> None:
    unfinished = episode(1)
    unfinished.add("tool", TextBlock(text="too late"))
    two_in_a_row = episode(2)
    two_in_a_row.add("assistant", TextBlock(text="again"))
    samples, dropped = encode_samples(world.family, [episode(0), unfinished, two_in_a_row, unfinished])
    assert len(samples) == 1
    assert sorted(dropped.values()) == [1, 2]
    assert any("no tokens" in reason for reason in dropped)
    with pytest.raises(InvariantError):
        encode_trajectory(world.family, unfinished)


def test_a_picture_shown_twice_counts_twice(world: World) -> None:
    made = episode(1)
    made.turns[1].message.content.append(ImageBlock(handle="img_1"))
    (sample,), dropped = encode_samples(world.family, [made])
    assert not dropped
    assert [image.sha256 for image in sample.images[:2]] == [made.images["img_1"].sha256] * 2


def test_a_batch_without_pictures_has_no_features(world: World) -> None:
    batch = collator(world)([Sample([5, 6, 7], [False, True, True])])
    assert "pixel_values" not in batch
    assert batch["labels"].tolist() == [[IGNORED, 6, 7]]
