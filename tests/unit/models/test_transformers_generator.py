"""Sampling from a real (tiny) model: exact log-probabilities, and nobody notices who else is in the batch."""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image as Pillow

from tests.support.models.tiny_world import (
    conversation,
    family,
    generator,
    logprobs_from_scratch,
    observe,
    picture,
    processor,
    trained,
    untrained,
)
from thinkimg.agent.agent import Agent, Limits, append_reply
from thinkimg.agent.tools import NoTools
from thinkimg.cache import BoundedCache
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.image import Image
from thinkimg.models.chat import SamplingParameters, TokenModel, encode_context
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.transformers_generator import TransformersGenerator
from thinkimg.trajectory import Task


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def request(*pictures: Image, text: str = "what is", max_tokens: int = 12, temperature: float = 1.0, seed: int = 0) -> (
    GenerationRequest
):  # fmt: skip
    made = conversation(*pictures, text=text)
    (tokens,) = encode_context(family(), made)
    return GenerationRequest(tokens, made.ordered_images, max_tokens, temperature, seed)


def requests() -> list[GenerationRequest]:
    """Of all lengths, with no, one and three pictures, greedy and sampled."""
    return [
        request(text="what is the value of the bar " * 3, seed=1),
        request(picture(1), seed=2, temperature=0.7),
        request(picture(2), picture(3, 48, 160), picture(2), seed=3, max_tokens=5),
        request(picture(4, 200, 40), text="?", seed=4, temperature=0.0),
        request(text="", seed=5, max_tokens=1),
    ]


def together(engine: TransformersGenerator, asked: Sequence[GenerationRequest]) -> list[Generation]:
    async def run() -> list[Generation]:
        return await asyncio.gather(*(engine.generate(one) for one in asked))

    return asyncio.run(run())


@pytest.mark.parametrize("make", [untrained, trained])
def test_a_request_gets_the_same_tokens_alone_and_in_a_batch(make: Any) -> None:
    engine = generator(make())
    batch = together(engine, requests())
    for asked, made in zip(requests(), batch, strict=True):
        (alone,) = engine.generate_batch([asked])
        assert alone.tokens == made.tokens
        assert alone.finish == made.finish
        torch.testing.assert_close(torch.tensor(alone.logprobs), torch.tensor(made.logprobs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [untrained, trained])
def test_log_probabilities_are_those_of_a_forward_pass_from_scratch(make: Any) -> None:
    for asked, made in zip(requests(), generator(make()).generate_batch(requests()), strict=True):
        scratch = logprobs_from_scratch(make(), asked.tokens + made.tokens, asked.images, asked.temperature)
        scratch = scratch[len(asked.tokens) - 1 :]
        torch.testing.assert_close(torch.tensor(made.logprobs), scratch, atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [untrained, trained])
def test_so_they_are_through_several_turns_with_pictures_between(make: Any) -> None:
    made = conversation(picture(1), picture(2, 40, 120))
    model = TokenModel(family(), generator(make()))
    for turn in range(3):
        append_reply(made, asyncio.run(model.reply(made, SamplingParameters(1.0, 7), turn)))
        observe(made, "<|im_end|><|image_pad|>", picture(20 + turn, 64 + 40 * turn, 64))
    made.turns.pop()
    scratch = logprobs_from_scratch(make(), made.tokens, made.ordered_images)
    own = torch.tensor(made.mask)
    assert own.sum() >= 3
    torch.testing.assert_close(torch.tensor(made.logprobs)[own], scratch[own[1:]], atol=1e-4, rtol=0)


def test_the_seed_decides_and_nothing_else() -> None:
    engine = generator()
    torch.manual_seed(1)
    (first,) = engine.generate_batch([request(picture(1), seed=7)])
    torch.manual_seed(2)
    state = torch.get_rng_state()
    (again,) = engine.generate_batch([request(picture(1), seed=7)])
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    others = engine.generate_batch([request(picture(1), seed=seed) for seed in range(8, 16)])
    assert first == again
    assert len({tuple(other.tokens) for other in [first, *others]}) == 9
    huge = engine.generate_batch([request(seed=2**63 - 1), request(seed=2**62)])
    assert huge[0].tokens != huge[1].tokens


def test_temperature_nought_takes_the_likeliest_token_and_ignores_the_seed() -> None:
    engine = generator(trained())
    made = engine.generate_batch([request(picture(1), temperature=0.0, seed=seed) for seed in (1, 2)])
    assert made[0] == made[1]
    asked = request(picture(1))
    for number, token in enumerate(made[0].tokens):
        prefix = asked.tokens + made[0].tokens[:number]
        best = max(range(20, 60), key=lambda t: float(logprobs_from_scratch(trained(), [*prefix, t], asked.images)[-1]))
        scores = [logprobs_from_scratch(trained(), [*prefix, t], asked.images)[-1] for t in (token, best)]
        assert scores[0] >= scores[1]
        if number == 1:
            break


def test_samples_follow_the_distribution() -> None:
    """Of 2,000 first tokens: the frequent ones are as frequent as their probabilities say (5 standard errors)."""
    asked = [request(text="?", max_tokens=1, seed=seed) for seed in range(2000)]
    made = generator(trained(), max_batch=2000).generate_batch(asked)
    counts: dict[int, int] = {}
    for one in made:
        counts[one.tokens[0]] = counts.get(one.tokens[0], 0) + 1
    for token in sorted(counts, key=lambda token: -counts[token])[:5]:
        wanted = float(logprobs_from_scratch(trained(), [*asked[0].tokens, token], ())[-1].exp())
        assert abs(counts[token] / 2000 - wanted) < 5 * (wanted * (1 - wanted) / 2000) ** 0.5


def test_an_untrained_model_never_says_a_suppressed_token() -> None:
    made = generator().generate_batch([request(picture(1), max_tokens=60, seed=seed) for seed in range(40)])
    said = {token for one in made for token in one.tokens}
    assert len(said) > 200, "it says nearly anything"
    assert not said & set(family().suppressed_ids)
    certain = generator(Certain(family().image_token_id))
    assert all(
        family().image_token_id not in one.tokens
        for one in certain.generate_batch([request(seed=1), request(temperature=0.0)])
    )


class Certain:
    """A model that always wants one token."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.inner = untrained()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits[..., self.token] = 50.0
        return output


def test_generation_stops_at_an_end_token_and_counts_it() -> None:
    for stop in family().stop_ids:
        (made,) = generator(Certain(stop)).generate_batch([request(picture(1), max_tokens=9)])
        assert (made.tokens, made.finish) == ([stop], "stop")
        assert made.logprobs[0] == pytest.approx(0.0, abs=1e-3)


def test_each_request_has_its_own_length() -> None:
    made = generator(Certain(30)).generate_batch([request(max_tokens=n, seed=n) for n in (1, 7, 3)])
    assert [(len(one.tokens), len(one.logprobs), one.finish) for one in made] == [
        (1, 1, "length"), (7, 7, "length"), (3, 3, "length")]  # fmt: skip


class Counting(TransformersGenerator):
    """Keeps the sizes of its batches."""

    def generate_batch(self, asked: Sequence[GenerationRequest]) -> list[Generation]:
        self.sizes = [*getattr(self, "sizes", []), len(asked)]
        if self.failure is not None and len(self.sizes) == 1:
            raise self.failure
        return super().generate_batch(asked)

    failure: Exception | None = None


def counting(**options: Any) -> Counting:
    features = ImageFeatures(processor().image_processor, BoundedCache(10**9))
    return Counting(untrained(), family(), features, **options)


def test_requests_that_wait_together_are_served_together() -> None:
    engine = counting(max_batch=4, gather_seconds=0.02)
    made = together(engine, [request(seed=seed, max_tokens=3) for seed in range(10)])
    assert engine.sizes == [4, 4, 2]
    assert [one.tokens for one in made] == [
        generator().generate_batch([request(seed=seed, max_tokens=3)])[0].tokens for seed in range(10)
    ], "each got its own"


def test_long_prompts_make_smaller_batches() -> None:
    engine = generator(max_batch=4, max_batch_tokens=100)
    assert [engine._fitting(lengths) for lengths in ([9] * 9, [30, 30, 30, 30], [30, 60], [500, 600], [])] == [
        4, 3, 1, 1, 0,
    ]  # fmt: skip


def test_one_that_comes_later_joins_the_next_batch() -> None:
    engine = counting(gather_seconds=0.02)

    async def run() -> None:
        first = asyncio.create_task(engine.generate(request(picture(1), max_tokens=40)))
        while not getattr(engine, "sizes", None):
            await asyncio.sleep(0.002)
        late = [asyncio.create_task(engine.generate(request(seed=n, max_tokens=2))) for n in range(3)]
        await asyncio.gather(first, *late)

    asyncio.run(run())
    assert engine.sizes == [1, 3]


def test_whoever_gave_up_waiting_is_not_served() -> None:
    engine = counting(gather_seconds=0.05)

    async def run() -> None:
        gone = asyncio.create_task(engine.generate(request(seed=1)))
        stays = asyncio.create_task(engine.generate(request(seed=2)))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    asyncio.run(run())
    assert engine.sizes == [1]


@pytest.mark.parametrize(
    "failure",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("the device is gone"), MemoryError()],
)
def test_a_failure_reaches_everybody_of_its_batch_and_nobody_else(failure: Exception) -> None:
    engine = counting(max_batch=2, gather_seconds=0.02)
    engine.failure = failure

    async def run() -> list[Any]:
        asked = (engine.generate(request(seed=seed, max_tokens=2)) for seed in range(3))
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)

    first, second, third = asyncio.run(run())
    assert isinstance(first, InfrastructureError)
    assert isinstance(second, InfrastructureError)
    assert len(third.tokens) == 2


def test_a_broken_picture_fails_its_own_request_and_no_other() -> None:
    buffer = io.BytesIO()
    Pillow.effect_noise((64, 64), 80).convert("RGB").save(buffer, "JPEG")
    broken = Image.from_bytes(buffer.getvalue()[:1500])
    agent = Agent(TokenModel(family(), generator()), NoTools(), Limits(rounds=1, tokens_per_turn=2))

    async def run() -> list[Any]:
        shown = [picture(1), broken, picture(2)]
        runs = (agent.run(Task(f"t{n}", "what", (image,))) for n, image in enumerate(shown))
        return await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 20)

    first, second, third = asyncio.run(run())
    assert (first.rounds, third.rounds) == (1, 1)
    assert isinstance(second, UserError)
    assert str(second).startswith("task t1: a picture cannot be shown to the model: the image data is broken")


def test_a_new_event_loop_finds_the_engine_usable() -> None:
    engine = counting()
    for _ in range(3):
        assert len(together(engine, [request(max_tokens=2), request(max_tokens=2)])) == 2

    async def abandoned() -> None:
        task = asyncio.create_task(engine.generate(request(max_tokens=2)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(abandoned())
    assert len(together(engine, [request(max_tokens=2)])) == 1
    assert sum(engine.sizes) == 7


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_and_gradients_are_left_as_they_were(training: bool) -> None:
    model = untrained()
    model.train(training)
    together(generator(model), [request(picture(1), max_tokens=2)])
    assert model.training is training
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_a_picture_is_preprocessed_once() -> None:
    engine = generator()
    asked = [request(picture(1), picture(2), seed=seed, max_tokens=2) for seed in range(5)]
    together(engine, asked)
    together(engine, asked)
    assert isinstance(engine.features, ImageFeatures)
    assert engine.features.runs == 2


def test_the_least_recently_used_picture_is_forgotten_first() -> None:
    processed = ImageFeatures(processor().image_processor)([picture(1)])
    one = sum(tensor.nbytes for tensor in processed.values())
    features = ImageFeatures(processor().image_processor, BoundedCache(2 * one))
    for number in (1, 2, 1, 3, 1, 2):
        features([picture(number)])
    assert features.runs == 4
    assert features.kept.bytes == 2 * one, "bytes are counted as the tensors have them"


def test_features_that_are_too_large_to_keep_are_given_all_the_same() -> None:
    kept, unkept = (ImageFeatures(processor().image_processor, BoundedCache(size)) for size in (10**9, 1))
    assert torch.equal(kept([picture(1)])["pixel_values"], unkept([picture(1)])["pixel_values"])
    assert len(unkept.kept) == 0
