"""The seam between token-level models and engines: tokens and images in, tokens and log-probabilities out.

In-process transformers, vLLM in process and a vLLM server are implementations of one protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from thinkimg.errors import UserError
from thinkimg.image import Image


@dataclass(frozen=True)
class Filters:
    """What narrows the distribution that tokens are drawn from, in the order of transformers' own processors: the
    penalties change the logits; at the request's temperature `top_k`, then `top_p`, then `min_p` leave tokens out, and
    what is left is normalised again. Greedy choice (temperature 0) knows the penalties only.

    Attributes:
        top_p: the fewest likeliest tokens whose probabilities add up to at least this; 1: all.
        top_k: the likeliest so many, with all that are as likely as the last of them; 0 or -1: all.
        min_p: tokens at least this times as likely as the likeliest (arXiv 2407.01082); 0: all.
        repetition_penalty: logits of tokens that the context or the turn has already are divided by this where positive
            and multiplied by it where negative (arXiv 1909.05858); 1: no penalty.
        frequency_penalty: taken from a token's logit for each time that the turn has it, as in OpenAI's API; 0: none.
        presence_penalty: taken once from the logits of the tokens that the turn has; 0: none.
    """

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any], field: str) -> "Filters":
        """Those that options of these names say; None is the default.

        Args:
            field: what messages call the place of the options.

        Raises:
            UserError: a value that makes no distribution.
        """
        names = [each.name for each in fields(cls)]
        made = cls(**{name: options[name] for name in names if options.get(name) is not None})
        for name, (fits, right) in made._ranges().items():
            if not fits:
                raise UserError(f"{getattr(made, name)!r} makes no distribution: give {right}", f"{field}.{name}")
        return made

    def changed(self) -> dict[str, float]:
        """Those that do something, by name."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return {
            "top_p": (0 < self.top_p <= 1, "more than 0 and at most 1; 1 keeps all tokens"),
            "top_k": (self.top_k >= -1, "a number of tokens; 0 keeps all"),
            "min_p": (0 <= self.min_p <= 1, "0 to 1; 0 keeps all tokens"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "more than 0; 1 is no penalty"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "-2 to 2; 0 is no penalty"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "-2 to 2; 0 is no penalty"),
        }


NO_FILTERS = Filters()


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
        filters: what narrows the distribution that tokens are drawn from.
    """

    tokens: list[int]
    images: list[Image]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = ()
    filters: Filters = NO_FILTERS


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
