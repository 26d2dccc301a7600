"""ChatML turns (`<|im_start|>role … <|im_end|>`), as several families have them; no special token comes from text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.models.families.placeholders import collapse_runs


class ChatML(ABC):
    """What families with ChatML share of an adapter (see `thinkimg.models.chat.Family`). A family adds its pictures:
    `image_token` and `frame`, `placeholders` and `feature_tokens`, and what its template and model have of their own.

    Args:
        processor: Hugging Face's processor (tokenizer and image processor) of the model.
    """

    image_token: str
    """The placeholder that features fill, as text."""
    frame: tuple[str, str] | tuple[()] = ()
    """Special tokens before and behind a picture's placeholders."""
    engine_adds_frame = False
    """Whether vLLM puts the frame around the placeholders itself; then the prompt that it is given has none."""
    grpo_refused: str | None = None
    role_end = "\n"
    """What the template writes behind a role's name."""
    turn_end = "\n"
    """What it writes behind `<|im_end|>`."""
    after_picture = ""
    """Text that it puts behind every picture."""

    _thinking: bool | None = None

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = self._id(self.image_token)
        self._counts: dict[tuple[int, int], int] = {}

    def _id(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        unknown = self.tokenizer.unk_token_id  # some tools save `<|endoftext|>` as the unknown token, too
        if number is None or (number == unknown and token != self.tokenizer.unk_token):
            raise ValueError(f"the tokenizer has no {token}: this is no model of the family {type(self).__name__}")
        return int(number)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        return (self._id("<|im_end|>"), self._id("<|endoftext|>"))

    @cached_property
    def closing_ids(self) -> tuple[int, ...]:
        return (self._id("<|im_end|>"),)

    @cached_property
    def suppressed_ids(self) -> tuple[int, ...]:
        special = set(self.tokenizer.all_special_ids) | {self.image_token_id}
        special |= {self._id(token) for token in ("<|im_start|>", *self.frame)}
        return tuple(sorted(special - set(self.stop_ids)))

    def image_tokens(self, image: Image) -> int:
        size = (image.height, image.width)
        if size not in self._counts:
            self._counts[size] = self.placeholders(*size)
        return self._counts[size]

    @abstractmethod
    def placeholders(self, height: int, width: int) -> int:
        """How many placeholders a picture of this size has, computed without preprocessing it."""

    @abstractmethod
    def feature_tokens(self, features: Mapping[str, Any]) -> int:
        """See `Family.feature_tokens`."""

    def model_inputs(self, ids: Any) -> dict[str, Any]:
        return {}

    def collapse(self, tokens: Sequence[int], images: Sequence[Image]) -> list[int]:
        lengths = [self.image_tokens(image) for image in images]
        return collapse_runs(tokens, self.image_token_id, lengths, int(self.engine_adds_frame))

    # ---- encoding -------------------------------------------------------------------------------------------------

    def _text(self, text: str) -> list[int]:
        """Text of users and tools: what looks like a special token in it stays text (an OCR'd `<|image_pad|>`)."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _body(self, message: Message, images: dict[str, Image]) -> list[int]:
        tokens: list[int] = []
        text = ""
        for block in message.content:
            if isinstance(block, TextBlock | ToolResultBlock):
                text += block.text
            elif isinstance(block, ImageBlock):
                tokens += self._text(text) if text else []
                tokens += self._picture(images[block.handle])
                text = self.after_picture
        return tokens + (self._text(text) if text else [])

    def _picture(self, image: Image) -> list[int]:
        run = [self.image_token_id] * self.image_tokens(image)
        if not self.frame:
            return run
        start, end = self.frame
        return [self._id(start), *run, self._id(end)]

    def _turn(self, message: Message, images: dict[str, Image]) -> list[int]:
        role = "user" if message.role == "tool" else message.role  # tools' results are a user's turn in these templates
        head = [self._id("<|im_start|>"), *self._text(role + self.role_end)]
        tail = self._text(self.turn_end) if self.turn_end else []
        return [*head, *self._body(message, images), self._id("<|im_end|>"), *tail]

    @cached_property
    def _opening(self) -> list[int]:
        return list(self.tokenizer(self._opening_text(self._thinking), add_special_tokens=False)["input_ids"])

    def _opening_text(self, thinking: bool | None) -> str:
        """What the model's own chat template writes where the model is to speak: thinking models open a thought there,
        `<think>`, or write an empty one."""
        if not getattr(self.processor, "chat_template", None):
            return "<|im_start|>assistant\n"
        asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        chosen = {} if thinking is None else {"enable_thinking": thinking}
        before, opened = (
            str(self.processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=opening, **chosen))
            for opening in (False, True)
        )
        opening = opened.removeprefix(before)
        if not opened.startswith(before) or not opening.startswith("<|im_start|>assistant"):
            raise ValueError(f"the chat template opens a turn with {opening!r}: this is no ChatML")
        return opening

    def choose_thinking(self, thinking: bool) -> None:
        if self._opening_text(True) == self._opening_text(False):
            raise ValueError("the model's chat template has no choice between thinking and not: leave thinking out")
        self._thinking = thinking
        vars(self).pop("_opening", None)

    def encode_start(self, messages: Sequence[Message], images: dict[str, Image]) -> list[list[int]]:
        deltas = [self._turn(message, images) for message in messages]
        deltas[-1] = deltas[-1] + self._opening
        return deltas

    def encode_tail(self, message: Message, images: dict[str, Image]) -> list[int]:
        # What ends a turn belongs to the assistant's turn before.
        before = self._text(self.turn_end) if self.turn_end else []
        return [*before, *self._turn(message, images), *self._opening]

    def encode_reply(self, text: str) -> list[int]:
        if self._opening_text(self._thinking).endswith("<think>\n"):
            text = text.removeprefix("<think>").removeprefix("\n")
            text = text if "</think>" in text else f"\n</think>\n\n{text}"  # as the template writes a turn without
        return [*self._text(text), *self.closing_ids]

    def decode(self, tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in self.stop_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))
