"""What the agent loop needs of a model: `ChatModel.reply`. `TokenModel` gives it exact tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.message import Message
from thinkimg.models.generator import NO_FILTERS, Filters, GenerationRequest, Generator
from thinkimg.trajectory import InvariantError, Trajectory


@dataclass(frozen=True)
class Reply:
    """One turn of a model.

    Attributes:
        text: what it said, special tokens removed.
        finish: `stop` or `length` (cut off by the limit).
        context: per turn that had no tokens yet, the tokens it adds; None for a model without tokens.
        tokens, mask, logprobs: of the model's own turn; a closing token is appended, masked, to one that does not end
            with its own (cut off, or ended by a stop string).
        prompt_tokens, completion_tokens: what the turn cost, pictures included; 0 if an endpoint does not say.
        cost: in money, as the endpoint itself says (OpenRouter and its kin); else 0.
    """

    text: str
    finish: Literal["stop", "length"]
    context: list[list[int]] | None = None
    tokens: list[int] | None = None
    mask: list[bool] | None = None
    logprobs: list[float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class SamplingParameters:
    """Temperature 0 is greedy; `max_tokens` is per turn; `max_context_tokens` bounds the whole trajectory. A turn also
    ends with the token that completes one of the strings `stop`; `ApiModel` leaves that to the endpoint's `extra`.
    `extra` are further fields of a request to an endpoint, which a model of tokens refuses."""

    temperature: float = 1.0
    max_tokens: int = 512
    max_context_tokens: int = 32_768
    stop: tuple[str, ...] = ()
    filters: Filters = NO_FILTERS
    extra: Mapping[str, Any] = field(default_factory=dict)


class ContextFull(Exception):
    """The next turn does not fit into `max_context_tokens`. The agent ends the trajectory with status `tokens`."""


class QuestionRefused(Exception):
    """The endpoint answers, but not this conversation. The agent ends the trajectory with status `refused`.

    Attributes:
        reason: `content`: a filter of what is asked or answered; `picture`: kind, size, shape or number of pictures;
            `size`: too many bytes; `other`: it does not say.
    """

    def __init__(self, message: str, reason: Literal["content", "picture", "size", "other"] = "other") -> None:
        super().__init__(message)
        self.reason = reason


class ChatModel(Protocol):
    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        """The model's next turn after `trajectory`, which is not changed.

        Raises:
            InfrastructureError: the engine or endpoint failed.
            ContextFull: no room for another turn.
            QuestionRefused: an endpoint does not take this conversation.
        """
        ...


class Family(Protocol):
    """How one model family turns messages into tokens. The only place that knows template tokens."""

    image_token_id: int
    grpo_refused: str | None
    """Why this family cannot be trained by RL; None where it can."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Ids never sampled, and masked in the loss too: placeholders and template tokens."""
        ...

    @property
    def closing_ids(self) -> tuple[int, ...]:
        """What ends a turn; appended, masked, to one that was cut off."""
        ...

    def image_tokens(self, image: Image) -> int:
        """How many placeholders the image's features fill."""
        ...

    def encode_start(self, messages: Sequence[Message], images: dict[str, Image]) -> list[list[int]]:
        """Tokens per message of a conversation's beginning; the last ends where the model speaks."""
        ...

    def encode_tail(self, message: Message, images: dict[str, Image]) -> list[int]:
        """Tokens of a message that follows a finished assistant's turn, up to where the model speaks again."""
        ...

    def encode_reply(self, text: str) -> list[int]:
        """Tokens of a given (not sampled) assistant's turn, behind the opening, end token included: SFT and
        synthesis."""
        ...

    def choose_thinking(self, thinking: bool) -> None:
        """Let turns begin with a thought, or with an empty one. Raises `ValueError`: the model has no such choice."""
        ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def feature_tokens(self, features: Mapping[str, Any]) -> int:
        """How many placeholders these features fill, counted from the features themselves."""
        ...

    def model_inputs(self, ids: Any) -> dict[str, Any]:
        """What the model takes beside token ids and features, made from the ids (batch, length)."""
        ...

    def collapse(self, tokens: Sequence[int], images: Sequence[Image]) -> list[int]:
        """Tokens as an engine takes them that expands placeholders itself: one per image.

        Raises:
            InvariantError: runs of placeholders and images do not agree.
        """
        ...


def encode_context(family: Family, trajectory: Trajectory) -> list[list[int]]:
    """Tokens of the turns at the end of `trajectory` that have none yet: the one encoder of rollouts and of SFT.

    Raises:
        InvariantError: the model would speak first, or not exactly one message stands between two of its turns.
    """
    turns = trajectory.turns
    known = next((n for n, turn in enumerate(turns) if turn.tokens is None), len(turns))
    new = [turn.message for turn in turns[known:]]
    if not new or (known and len(new) > 1):
        raise InvariantError(f"turn {len(turns)}: {len(new)} messages stand before this assistant's turn, not one")
    if known == 0:
        return family.encode_start(new, trajectory.images)
    return [family.encode_tail(message, trajectory.images) for message in new]


class TokenModel:
    """A `ChatModel` made of a family and a generator. The prompt of a turn is all earlier tokens, verbatim, plus a
    tail; it is never a difference of template renderings."""

    def __init__(self, family: Family, generator: Generator) -> None:
        self.family = family
        self.generator = generator

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        """See `ChatModel.reply`. Refused are pictures too thin for image processors of the Qwen-VL kind."""
        for image in trajectory.ordered_images:
            if image.too_thin:
                size = f"{image.width}x{image.height} pixels"
                raise QuestionRefused(f"a picture is too thin to be shown to a model: {size}", "picture")
        if sampling.extra:
            raise UserError("only an endpoint can be sent this field", min(sampling.extra))
        context = encode_context(self.family, trajectory)
        tokens = [token for turn in trajectory.turns if turn.tokens is not None for token in turn.tokens]
        tokens += [token for delta in context for token in delta]
        room = min(sampling.max_tokens, sampling.max_context_tokens - len(tokens) - len(self.family.closing_ids))
        if room < 1:
            raise ContextFull(f"{len(tokens)} tokens of {sampling.max_context_tokens} are used")
        result = await self.generator.generate(
            GenerationRequest(
                tokens, trajectory.ordered_images, room, sampling.temperature, seed, sampling.stop, sampling.filters
            )
        )
        ended = result.finish == "stop" and result.tokens[-1] in self.family.stop_ids
        closing = [] if ended else list(self.family.closing_ids)
        return Reply(
            text=self.family.decode(result.tokens),
            finish=result.finish,
            context=context,
            tokens=result.tokens + closing,
            mask=[True] * len(result.tokens) + [False] * len(closing),
            logprobs=result.logprobs + [0.0] * len(closing),
            prompt_tokens=len(tokens),
            completion_tokens=len(result.tokens),
        )
