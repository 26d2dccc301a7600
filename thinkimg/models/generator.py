"""The seam between token-level models and engines: tokens and images in, tokens and log-probabilities out.

In-process transformers, vLLM in process and a vLLM server are implementations of one protocol.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from thinkimg.image import Image


@dataclass(frozen=True)
class GenerationRequest:
    """One turn to be generated.

    Attributes:
        tokens: the whole context; per image the expanded placeholder tokens, as many as its features fill.
        images: in the order of their placeholders.
        max_tokens: at most this many new tokens, the stop token included.
        temperature: 0 is greedy.
        seed: the result depends on the request and this number alone, never on a global random state.
        stop: strings that end the turn with the token that completes one of them; it is kept.
    """

    tokens: list[int]
    images: list[Image]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """New tokens (what stopped it included when `finish` is `stop`) and the natural log-probability of each under the
    distribution it was drawn from."""

    tokens: list[int]
    logprobs: list[float]
    finish: Literal["stop", "length"]


class Generator(Protocol):
    async def generate(self, request: GenerationRequest) -> Generation:
        """Raises `InfrastructureError` when the engine fails."""
        ...
