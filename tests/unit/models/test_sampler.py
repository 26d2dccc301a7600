"""Sampling with filters follows the distribution that transformers' own logits processors give, and records it."""

import asyncio
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.support.models.tiny_world import conversation, family, generator, picture, processor, trained
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.tools import NoTools
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.models.chat import TokenModel, encode_context
from thinkimg.models.generator import Filters, GenerationRequest
from thinkimg.models.sampler import Sampler
from thinkimg.trajectory import Task

DRAWS = 5000
FILTERS = {
    "none": Filters(),
    "top_p": Filters(top_p=0.7),
    "top_k": Filters(top_k=12),
    "min_p": Filters(min_p=0.2),
    "repetition_penalty": Filters(repetition_penalty=1.7),
    "all of them": Filters(top_p=0.9, top_k=30, min_p=0.02, repetition_penalty=1.3),
    "penalties of OpenAI": Filters(frequency_penalty=0.7, presence_penalty=1.5),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def shown() -> Image:
    return picture(1)


@cache
def prompt() -> list[int]:
    (tokens,) = encode_context(family(), conversation(shown(), text="what is the value of the bar"))
    return tokens


def request(filters: Filters, seed: int, temperature: float = 0.8, max_tokens: int = 1) -> GenerationRequest:
    return GenerationRequest(prompt(), [shown()], max_tokens, temperature, seed, filters=filters)


def logits_behind(tokens: list[int]) -> torch.Tensor:
    """(1, vocabulary)"""
    ids = torch.tensor([tokens])
    features = processor().image_processor(images=[shown().pixels()], return_tensors="pt")
    model = trained()
    with torch.no_grad():
        output = model(input_ids=ids, **family().model_inputs(ids), **features)
    return output.logits[:, -1].float()


def reference(filters: Filters, tokens: list[int], temperature: float = 0.8) -> torch.Tensor:
    """Log-probabilities (vocabulary,) of the token behind `tokens`, by transformers' processors in its order."""
    chain: list[Any] = [SuppressTokensLogitsProcessor(list(family().suppressed_ids))]
    if filters.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(filters.repetition_penalty))
    chain.append(TemperatureLogitsWarper(temperature))
    if filters.top_k:
        chain.append(TopKLogitsWarper(filters.top_k))
    if filters.top_p < 1:
        chain.append(TopPLogitsWarper(filters.top_p))
    if filters.min_p:
        chain.append(MinPLogitsWarper(filters.min_p))
    logits, own = logits_behind(tokens), tokens[len(prompt()) :]
    for token in own:
        logits[0, token] -= filters.frequency_penalty
    logits[0, sorted(set(own))] -= filters.presence_penalty
    logits = LogitsProcessorList(chain)(torch.tensor([tokens]), logits)
    return torch.log_softmax(logits[0].double(), -1)


@pytest.mark.parametrize("name", FILTERS)
def test_5000_draws_match_the_reference(name: str) -> None:
    """Chi-square over tokens expected at least five times, all rarer ones together."""
    logits = logits_behind(prompt())
    sampler = Sampler([request(FILTERS[name], seed) for seed in range(DRAWS)], family(), logits.device)
    counts = torch.bincount(sampler.step(logits.expand(DRAWS, -1), 0), minlength=logits.shape[-1]).double()
    wanted = reference(FILTERS[name], prompt()).exp() * DRAWS
    assert not counts[wanted == 0].any(), "what is left out is never drawn"
    rare = wanted < 5
    counts, wanted = (torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, wanted))
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    degrees = torch.tensor(len(counts) - 1.0, dtype=torch.float64)
    likely = float(torch.special.gammaincc(degrees / 2, statistic / 2))
    print(f"\n{name}: chi-square {float(statistic):.1f} of {int(degrees)} degrees, p = {likely:.2f}")
    assert likely > 0.01


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", FILTERS)
def test_each_token_is_recorded_with_its_share_of_what_was_drawn_from(name: str, temperature: float) -> None:
    """Neighbours with other filters and other lengths stand in the batch; the penalty counts the turn's own tokens."""
    filters = FILTERS[name]
    asked = [request(filters, 5, temperature, 12), request(FILTERS["top_k"], 6, 1.0, 3), request(Filters(), 7, 1.0, 9)]
    made = generator(trained()).generate_batch(asked)
    (alone,) = generator(trained()).generate_batch(asked[:1])
    assert made[0].tokens == alone.tokens
    greedy = replace(filters, top_p=1.0, top_k=0, min_p=0.0)
    for number, (token, logprob) in enumerate(zip(made[0].tokens, made[0].logprobs, strict=True)):
        before = prompt() + made[0].tokens[:number]
        wanted = reference(filters if temperature else greedy, before, temperature or 1.0)
        assert logprob == pytest.approx(float(wanted[token]), abs=1e-5)
        if not temperature:
            assert token == int(wanted.argmax())


def test_without_filters_nothing_changes_beside_a_neighbour_that_has_some() -> None:
    engine = generator(trained())
    plain = request(Filters(), 3, 1.0, 8)
    beside, _ = engine.generate_batch([plain, request(FILTERS["all of them"], 4, 1.0, 8)])
    (alone, _) = engine.generate_batch([plain, request(Filters(), 4, 1.0, 8)])
    assert beside == alone


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.2}, "top_p"),
        ({"top_k": -5}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
    ],
)
def test_values_that_make_no_distribution_are_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(UserError, match=rf"grpo\.args\.{field}: .* give "):
        Filters.of(options, "grpo.args")


def test_an_agent_hands_its_filters_to_the_model() -> None:
    assert Filters.of({"top_p": 0.5, "min_p": None, "beta": 1}, "grpo.args") == Filters(top_p=0.5)
    seen: list[Filters] = []

    class Listening(TokenModel):
        async def reply(self, trajectory: Any, sampling: Any, seed: int) -> Any:
            seen.append(sampling.filters)
            return await super().reply(trajectory, sampling, seed)

    model = Listening(family(), generator(trained()))
    agent = Agent(model, NoTools(), Limits(rounds=1, tokens_per_turn=2), filters=FILTERS["top_k"])
    asyncio.run(agent.run(Task("t", "what", ())))
    assert seen == [FILTERS["top_k"]]
