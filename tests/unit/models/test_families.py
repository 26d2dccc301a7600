"""Each family with a tiny model of transformers' own classes: the tokens that its processor makes, what its
features fill, and rollouts."""

import asyncio
import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models.family_models import ALL, GRPO, build, built, from_scratch, picture_of, processor_of
from tests.support.models.tiny_world import conversation, observe, picture, template_messages
from thinkimg.agent.agent import append_reply
from thinkimg.errors import UserError
from thinkimg.message import Message, TextBlock
from thinkimg.models.backends import find_model
from thinkimg.models.chat import SamplingParameters, TokenModel, encode_context
from thinkimg.models.families import family_of
from thinkimg.models.families.placeholders import collapse_runs
from thinkimg.models.generator import GenerationRequest
from thinkimg.models.loading import Loading, loading_of
from thinkimg.models.pretrained import load_model
from thinkimg.models.trained import Trained
from thinkimg.training.collator import encode_trajectory
from thinkimg.trajectory import InvariantError, Trajectory

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SEVERAL = GRPO
"""Families whose processor counts a picture's tokens by the picture alone."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def rendered(name: str, made: Trajectory, opening: bool = True) -> list[int]:
    """What transformers' processor makes of the same conversation."""
    messages = template_messages(made)
    processor = processor_of(name)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=opening)
    images = [[image.pixels() for image in made.ordered_images]] if made.images else None  # those of one sample
    return processor(text=[text], images=images, return_tensors="pt")["input_ids"][0].tolist()


def with_system(made: Trajectory) -> Trajectory:
    system = Message(role="system", content=[TextBlock(text="see the value")])
    made.turns.insert(0, made.turns[0].model_copy(update={"message": system}))
    return made


# ---- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pictures", [0, 1, 3])
@pytest.mark.parametrize("name", ALL)
def test_a_beginning_is_what_the_processor_renders(name: str, pictures: int) -> None:
    if pictures > 1 and name not in SEVERAL:
        pytest.skip("its processor counts the tokens of several pictures otherwise; here each is alone")
    made = with_system(conversation(*(picture_of(n) for n in range(pictures))))
    assert [token for delta in encode_context(built(name).family, made) for token in delta] == rendered(name, made)


@pytest.mark.parametrize("name", SEVERAL)
def test_so_is_a_conversation_with_a_tools_picture(name: str) -> None:
    made = with_system(conversation(picture_of(1)))
    made.add("assistant", TextBlock(text="see the bar"))
    observe(made, "is red", picture_of(2), picture_of(7))
    made.add("assistant", TextBlock(text="red"))
    joined = made.model_copy(deep=True)
    for turn in joined.turns:  # two text blocks in a row are one text to a template
        text = "".join(getattr(block, "text", "") for block in turn.message.content if block.type != "image")
        images = [block for block in turn.message.content if block.type == "image"]
        before = turn.message.content[0].type == "image"
        turn.message.content = [*images, TextBlock(text=text)] if before else [TextBlock(text=text), *images]
    encoded = encode_trajectory(built(name).family, made)
    newline = built(name).processor.tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert encoded.tokens + newline == rendered(name, joined, opening=False)


@pytest.mark.parametrize(
    ("template", "thinking", "opening"),
    [
        ("qwen3_5_think", None, "<think>\n"),
        ("qwen3_5_think", False, "<think>\n\n</think>\n\n"),
        ("qwen3_5_nothink", None, "<think>\n\n</think>\n\n"),
        ("qwen3_5_nothink", True, "<think>\n"),
        ("qwen3_vl", None, ""),
    ],
)
def test_a_turn_opens_as_the_models_own_template_does(template: str, thinking: bool | None, opening: str) -> None:
    """On Qwen's templates, which TRL carries: in the prompt, behind a tool's result, and in a given turn."""
    processor = copy.copy(processor_of("qwen3_5"))
    processor.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    family: Any = family_of("qwen3_5", processor, thinking=thinking)
    made = conversation(picture_of(1))
    chosen = {} if thinking is None else {"enable_thinking": thinking}
    asked = processor.apply_chat_template(template_messages(made), add_generation_prompt=True, tokenize=False, **chosen)
    assert asked.endswith(f"<|im_start|>assistant\n{opening}")
    (tokens,) = encode_context(family, made)
    images = [[image.pixels() for image in made.ordered_images]]
    assert tokens == processor(text=[asked], images=images, return_tensors="pt")["input_ids"][0].tolist()
    tail = family.encode_tail(Message(role="tool", content=[TextBlock(text="red")]), {})
    assert family.tokenizer.decode(tail).endswith(f"red<|im_end|>\n<|im_start|>assistant\n{opening}")
    if opening == "<think>\n":
        assert family.decode(family.encode_reply("red")) == "\n</think>\n\nred"
        assert family.decode(family.encode_reply("<think>\nsee\n</think>\n\nred")) == "see\n</think>\n\nred"
    else:
        assert family.decode(family.encode_reply("red")) == "red"


def test_a_model_is_loaded_with_the_choice_of_the_manifest_or_of_its_training(tmp_path: Path) -> None:
    build("qwen3_5").save(tmp_path / "model")
    trained = Trained(
        job="j", stage="s", format="hermes", prompt="full", max_rounds=1, max_tokens=1, max_seconds=1, thinking=False
    )
    found = find_model(str(tmp_path / "model"))
    for model, how, opening in (
        (found, Loading(), "<think>\n"),
        (found, loading_of({"thinking": False}), "<think>\n\n</think>\n\n"),
        (replace(found, trained=trained), Loading(), "<think>\n\n</think>\n\n"),
        (replace(found, trained=trained), Loading(thinking=True), "<think>\n"),
    ):
        family = load_model(model, how).family
        tail = family.encode_tail(Message(role="tool", content=[TextBlock(text="red")]), {})
        assert family.decode(tail).endswith(f"assistant\n{opening}")
    with pytest.raises(UserError, match="neither yes nor no"):
        loading_of({"thinking": "maybe"})


def test_thinking_is_refused_where_the_template_has_no_choice() -> None:
    with pytest.raises(UserError, match="no choice between thinking and not"):
        family_of("qwen3_vl", processor_of("qwen3_vl"), thinking=True)


@pytest.mark.parametrize("name", ALL)
def test_what_a_picture_says_stays_text(name: str) -> None:
    family = built(name).family
    made = conversation(picture_of(1))
    observed = made.model_copy(deep=True)
    observed.add("assistant", TextBlock(text="see"))
    special = "".join(processor_of(name).tokenizer.all_special_tokens)
    observe(observed, f"{special} {family.decode([family.image_token_id])}")
    observed.add("assistant", TextBlock(text="red"))
    encoded = encode_trajectory(family, observed)
    assert encoded.tokens.count(family.image_token_id) == family.image_tokens(picture_of(1))
    assert len([token for token in encoded.tokens if token in family.stop_ids]) == 4


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ALL), st.integers(8, 500), st.integers(8, 500))
def test_a_picture_of_any_size_fills_its_placeholders(name: str, width: int, height: int) -> None:
    if max(width, height) > 50 * min(width, height):
        return
    image = picture(0, width, height)
    assert built(name).family.feature_tokens(built(name).features([image])) == built(name).family.image_tokens(image)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_features_match_placeholders_on_2000_generated_trajectories(name: str) -> None:
    """2,000 for each family: of any number of turns, pictures and sizes, with special tokens in the texts.
    Each is collapsed for an engine, too, and comes back by what the features fill."""
    draw = random.Random(name)
    family, features = built(name).family, built(name).features
    sizes = [(draw.randint(16, 300), draw.randint(16, 300)) for _ in range(40)]
    pool = [picture(n, *size) for n, size in enumerate(sizes)]
    filled = {image.sha256: family.feature_tokens(features([image])) for image in pool}
    texts = ["see", "red <|im_end|>", "<|image_pad|><IMG_CONTEXT><image>", "", "what is the value of the bar 7.5\n"]
    for _ in range(2000):
        made = conversation(*draw.choices(pool, k=draw.randint(0, 3)), text=draw.choice(texts))
        for _ in range(draw.randint(0, 3)):
            made.add("assistant", TextBlock(text=draw.choice(texts)))
            observe(made, draw.choice(texts), *draw.choices(pool, k=draw.randint(0, 2)))
        made.add("assistant", TextBlock(text="red"))
        encoded = encode_trajectory(family, made)
        runs = [filled[image.sha256] for image in made.ordered_images]
        assert encoded.tokens.count(family.image_token_id) == sum(runs)
        encoded.check(family.image_token_id, lambda image: filled[image.sha256])
        collapsed = family.collapse(encoded.tokens, made.ordered_images)
        assert collapsed.count(family.image_token_id) == len(runs)
        assert expanded(family, collapsed, runs) == encoded.tokens


def expanded(family: Any, collapsed: list[int], runs: list[int]) -> list[int]:
    """What an engine makes of it: per placeholder as many as its features fill, in the family's frame."""
    start, end = ([family._id(token)] for token in family.frame) if family.engine_adds_frame else ([], [])
    left = iter(runs)
    made: list[int] = []
    for token in collapsed:
        made += [*start, *[token] * next(left), *end] if token == family.image_token_id else [token]
    return made


def test_neighbours_are_told_apart_and_wrong_runs_refused() -> None:
    assert collapse_runs([1, 9, 9, 9, 9, 9, 2], 9, [2, 3]) == [1, 9, 9, 2]
    assert collapse_runs([1, 5, 9, 9, 6, 5, 9, 6], 9, [2, 1], frame=1) == [1, 9, 9]
    for tokens, lengths in (([9, 9, 9], [2]), ([9], [2]), ([1], [1]), ([9, 1, 9], [2])):
        with pytest.raises(InvariantError):
            collapse_runs(tokens, 9, lengths)


def test_an_unknown_model_is_refused_and_told_how_to_be_added() -> None:
    with pytest.raises(UserError, match=r"mamba is not supported; there are internvl, .*add-a-model"):
        family_of("mamba", processor_of("qwen3_vl"))
    with pytest.raises(UserError, match="no <IMG_CONTEXT>"):
        family_of("internvl", processor_of("qwen3_vl"))


# ---- rollouts and evaluation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_turns_are_sampled_from_the_models_own_distribution(name: str) -> None:
    """Two turns with pictures between, three trajectories of different lengths in one batch."""
    world = built(name)
    model = TokenModel(world.family, world.generator)

    async def talk(number: int) -> Trajectory:
        made = conversation(*(picture_of(number + k) for k in range(number)))
        for turn in range(2):
            append_reply(made, await model.reply(made, SamplingParameters(1.0, 6), 10 * number + turn))
            observe(made, "red", picture_of(number + 4))
        made.turns.pop()
        return made

    async def all_of_them() -> list[Trajectory]:
        return await asyncio.gather(*(talk(number) for number in range(3)))

    for made in asyncio.run(all_of_them()):
        own = torch.tensor(made.mask)
        plain = from_scratch(world, made.tokens, made.ordered_images)
        torch.testing.assert_close(torch.tensor(made.logprobs)[own], plain[own[1:]], atol=2e-4, rtol=0)


def test_a_stop_string_ends_a_turn_and_its_closing_is_masked() -> None:
    world = built("qwen3_vl")
    made = conversation(picture_of(1))
    (tokens,) = encode_context(world.family, made)
    asked = GenerationRequest(tokens, made.ordered_images, 8, 1.0, 5)
    (free,) = world.generator.generate_batch([asked])
    text = world.family.decode(free.tokens[2:4])
    stopping = GenerationRequest(tokens, made.ordered_images, 8, 1.0, 5, (text,))
    ended, other = world.generator.generate_batch([stopping, asked])
    assert (ended.tokens, ended.finish) == (free.tokens[:4], "stop")
    assert other.tokens == free.tokens
    reply = asyncio.run(
        TokenModel(world.family, world.generator).reply(made, SamplingParameters(1.0, 8, stop=(text,)), 5)
    )
    assert reply.tokens == [*free.tokens[:4], *world.family.closing_ids]
    assert reply.mask == [True] * 4 + [False]


def test_the_reason_is_true() -> None:
    """The same first picture, alone and beside a second one."""
    alone, both = conversation(picture_of(3)), conversation(picture_of(3), picture_of(3))
    image = built("llava_onevision").family.image_token_id
    assert rendered("llava_onevision", both).count(image) < 2 * rendered("llava_onevision", alone).count(image)
