"""The one record of an episode: synthesis writes it, SFT and RL train on it, evaluation scores it, the viewer shows it.

Each message is stored once, with its delta of tokens. Invariants (`Trajectory.check`):

1. Concatenating the deltas gives exactly the tokens that the model saw and produced.
2. A turn's mask and log-probabilities are as long as its tokens; only an assistant's tokens are the model's own.
3. Per image there are exactly the placeholder tokens that its features fill, in the order of the images.
"""

import math
import uuid
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from thinkimg.image import Image, handle
from thinkimg.message import ImageBlock, Message, Role, TextBlock, ToolResultBlock

T = TypeVar("T")

Status = Literal["running", "answered", "rounds", "tokens", "refused", "time", "infrastructure"]
"""`answered`; or the limit that ended it (`rounds`; `tokens`: its context is full); or `refused`: whoever serves the
model does not take this conversation (a content filter, a picture); or `infrastructure`: not the model's fault. `time`
is of earlier versions, which ended a trajectory by the clock."""

LOST = ("infrastructure", "time")
"""Nobody's mistake: neither rewarded nor punished, neither right nor wrong, and to be tried again."""


class InvariantError(ValueError):
    """The record contradicts itself. The sample must not be trained on; it is dropped and counted."""


class Turn(BaseModel):
    """One message and its delta of tokens.

    Attributes:
        tokens: token ids this message adds, template tokens included; None for a model without tokens (an API).
        mask: True where the model itself sampled the token, and only there is loss taken.
        logprobs: natural log-probability of each sampled token under the distribution it was drawn from (temperature
            and filters applied, image tokens suppressed; temperature 1 when greedy); 0.0 where `mask` is False. None
            when not recorded (SFT data, APIs).
        finish: why an assistant's turn ended: `stop` (its own end token) or `length`.
        seconds: time to generate it, or to run its tools.
    """

    model_config = ConfigDict(extra="forbid")

    message: Message
    tokens: list[int] | None = None
    mask: list[bool] | None = None
    logprobs: list[float] | None = None
    finish: Literal["stop", "length"] | None = None
    seconds: float = 0.0

    @field_validator("logprobs", mode="before")
    @classmethod
    def _unknown_logprobs(cls, given: Any) -> Any:
        """What was not finite stands as null."""
        return [math.nan if value is None else value for value in given] if isinstance(given, list) else given

    @property
    def role(self) -> Role:
        return self.message.role


class Trajectory(BaseModel):
    """An episode. `images` maps handles to encoded pictures; JSON holds their hashes, a folder holds their bytes."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    question: str
    reference: str | None = None
    answer: str | None = None
    status: Status = "running"
    turns: list[Turn] = Field(default_factory=list)
    images: dict[str, Image] = Field(default_factory=dict)
    rewards: dict[str, float] = Field(default_factory=dict)
    correct: bool | None = None
    seconds: float = 0.0
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("rewards", mode="before")
    @classmethod
    def _without_unknown_rewards(cls, given: Any) -> Any:
        """Files of earlier versions have rewards that were not finite, as null."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @field_serializer("images")
    def _images_as_references(self, images: dict[str, Image]) -> dict[str, dict[str, Any]]:
        return {
            name: {"sha256": image.sha256, "width": image.width, "height": image.height, "media_type": image.media_type}
            for name, image in images.items()
        }

    @field_validator("images")
    @classmethod
    def _handles_count_from_one(cls, images: dict[str, Image]) -> dict[str, Image]:
        if list(images) != [handle(number) for number in range(1, len(images) + 1)]:
            raise ValueError(f"image handles must be img_1, img_2, ... in order, not {list(images)}")
        return images

    # ---- building -------------------------------------------------------------------------------------------------

    def add_image(self, image: Image) -> str:
        """Give `image` the next handle and return it."""
        name = handle(len(self.images) + 1)
        self.images[name] = image
        return name

    def add(self, role: Role, *content: TextBlock | ImageBlock | ToolResultBlock) -> Turn:
        turn = Turn(message=Message(role=role, content=list(content)))
        self.turns.append(turn)
        return turn

    # ---- reading --------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> list[int]:
        """All deltas, concatenated. Raises `InvariantError` if a turn has none."""
        return [token for turn in self.turns for token in _known(turn.tokens)]

    @property
    def mask(self) -> list[bool]:
        return [flag for turn in self.turns for flag in _known(turn.mask)]

    @property
    def logprobs(self) -> list[float]:
        return [value for turn in self.turns for value in _known(turn.logprobs)]

    @property
    def prompt_turns(self) -> int:
        """How many turns come before the model's first."""
        return next((n for n, turn in enumerate(self.turns) if turn.role == "assistant"), len(self.turns))

    @property
    def ordered_images(self) -> list[Image]:
        """Images in the order of their places in the conversation; one that is shown twice appears twice."""
        return [self.images[name] for turn in self.turns for name in turn.message.images]

    @property
    def tool_results(self) -> list[ToolResultBlock]:
        return [result for turn in self.turns for result in turn.message.tool_results]

    @property
    def rounds(self) -> int:
        """How often the model spoke."""
        return sum(turn.role == "assistant" for turn in self.turns)

    def check(self, image_token: int, image_tokens: Callable[[Image], int]) -> None:
        """Verify the invariants.

        Args:
            image_token: id of the placeholder token.
            image_tokens: how many placeholders the features of an image fill.

        Raises:
            InvariantError: naming the turn and what does not agree.
        """
        for number, turn in enumerate(self.turns):
            tokens, mask = _known(turn.tokens), _known(turn.mask)
            if len(mask) != len(tokens) or (turn.logprobs is not None and len(turn.logprobs) != len(tokens)):
                raise InvariantError(f"turn {number}: tokens, mask and log-probabilities differ in length")
            if turn.role != "assistant" and any(mask):
                raise InvariantError(f"turn {number}: only an assistant's tokens may be trained, this is {turn.role}")
            if any(flag and token == image_token for token, flag in zip(tokens, mask, strict=True)):
                raise InvariantError(f"turn {number}: the model sampled an image placeholder")
            expected = sum(image_tokens(self.images[name]) for name in turn.message.images)
            if tokens.count(image_token) != expected:
                raise InvariantError(
                    f"turn {number}: {tokens.count(image_token)} image placeholders for features of {expected}"
                )


def _known(delta: list[T] | None) -> list[T]:
    if delta is None:
        raise InvariantError("a turn has no tokens: it came from a model that does not give them")
    return delta
