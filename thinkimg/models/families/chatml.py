"""ChatML turns (`<|im_start|>role … <|im_end|>`), as several families have them; special tokens never come from text."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock


class ChatML:
    """The part of a family adapter (see `thinkimg.models.chat.Family`) that is ChatML. A family adds its pictures:
    `image_token`, `image_tokens`, `_picture` and what the model takes beside token ids.

    Args:
        processor: Hugging Face's processor (tokenizer and image processor) of the model.
    """

    image_token: str
    """The placeholder that features fill, as text."""
    grpo_refused: str | None = None
    template_tokens: tuple[str, ...] = ("<|im_start|>",)
    """Special tokens of the template that the tokenizer may not call special."""
    role_end = "\n"
    turn_end = "\n"

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = self._id(self.image_token)
        self._counts: dict[tuple[int, int], int] = {}

    def _id(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        if number is None or number == self.tokenizer.unk_token_id:
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
        special |= {self._id(token) for token in self.template_tokens}
        return tuple(sorted(special - set(self.stop_ids)))

    def image_tokens(self, image: Image) -> int:
        size = (image.height, image.width)
        if size not in self._counts:
            self._counts[size] = self._count(*size)
        return self._counts[size]

    def _count(self, height: int, width: int) -> int:
        """Placeholders of a picture of this size."""
        raise NotImplementedError

    def _picture(self, image: Image) -> list[int]:
        """All tokens of a picture, its frame included."""
        raise NotImplementedError

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

    after_picture = ""
    """Text that the template puts behind every picture."""

    def _turn(self, role: str, message: Message, images: dict[str, Image]) -> list[int]:
        head = [self._id("<|im_start|>"), *self._text(role + self.role_end)]
        tail = self._text(self.turn_end) if self.turn_end else []
        return [*head, *self._body(message, images), self._id("<|im_end|>"), *tail]

    @cached_property
    def _opening(self) -> list[int]:
        return [self._id("<|im_start|>"), *self._text("assistant\n")]

    def encode_start(self, messages: Sequence[Message], images: dict[str, Image]) -> list[list[int]]:
        deltas = [self._turn(message.role, message, images) for message in messages]
        deltas[-1] = deltas[-1] + self._opening
        return deltas

    def encode_tail(self, message: Message, images: dict[str, Image]) -> list[int]:
        # Tool results are a user's turn in these templates; what ends a turn belongs to the assistant's turn before.
        role = "user" if message.role == "tool" else message.role
        before = self._text(self.turn_end) if self.turn_end else []
        return [*before, *self._turn(role, message, images), *self._opening]

    def encode_reply(self, text: str) -> list[int]:
        return [*self._text(text), *self.closing_ids]

    def decode(self, tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in self.stop_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))
