"""Qwen-VL (2, 2.5, 3): ChatML turns, one run of `<|image_pad|>` per image, M-RoPE."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock


class QwenVL:
    """The family adapter (see `thinkimg.models.chat.Family`).

    Args:
        processor: Hugging Face's processor (tokenizer and image processor) of the model.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = self._id("<|image_pad|>")
        self._counts: dict[tuple[int, int], int] = {}

    def _id(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        if number is None or number == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {token}: this is not a Qwen-VL model")
        return int(number)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        return (self._id("<|im_end|>"), self._id("<|endoftext|>"))

    @cached_property
    def closing_ids(self) -> tuple[int, ...]:
        return (self._id("<|im_end|>"),)

    @cached_property
    def suppressed_ids(self) -> tuple[int, ...]:
        special = set(self.tokenizer.all_special_ids) | {self.image_token_id, self._id("<|im_start|>")}
        return tuple(sorted(special - set(self.stop_ids)))

    def image_tokens(self, image: Image) -> int:
        size = (image.height, image.width)
        if size not in self._counts:
            patches = self.processor.image_processor.get_number_of_image_patches(*size, {})
            self._counts[size] = patches // self.processor.image_processor.merge_size**2
        return self._counts[size]

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
                text = ""
                tokens.append(self._id("<|vision_start|>"))
                tokens += [self.image_token_id] * self.image_tokens(images[block.handle])
                tokens.append(self._id("<|vision_end|>"))
        return tokens + (self._text(text) if text else [])

    def _turn(self, role: str, message: Message, images: dict[str, Image]) -> list[int]:
        head = [self._id("<|im_start|>"), *self._text(role + "\n")]
        return [*head, *self._body(message, images), self._id("<|im_end|>"), *self._text("\n")]

    @cached_property
    def _opening(self) -> list[int]:
        return [self._id("<|im_start|>"), *self._text("assistant\n")]

    def encode_start(self, messages: Sequence[Message], images: dict[str, Image]) -> list[list[int]]:
        deltas = [self._turn(message.role, message, images) for message in messages]
        deltas[-1] = deltas[-1] + self._opening
        return deltas

    def encode_tail(self, message: Message, images: dict[str, Image]) -> list[int]:
        # Tool results are a user's turn in this family's templates; the newline belongs to the assistant's turn before.
        role = "user" if message.role == "tool" else message.role
        return [*self._text("\n"), *self._turn(role, message, images), *self._opening]

    def encode_reply(self, text: str) -> list[int]:
        return [*self._text(text), *self.closing_ids]

    def decode(self, tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in self.stop_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))
