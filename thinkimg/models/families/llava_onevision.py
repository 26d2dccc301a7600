"""LLaVA-OneVision (Qwen2 as language model): ChatML with a space behind the role; tiles of any resolution, of which a
picture's features keep what is not padding."""

from collections.abc import Mapping
from typing import Any

from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.models.families.chatml import ChatML


class LlavaOnevision(ChatML):
    """The family adapter (see `thinkimg.models.chat.Family`): SFT and evaluation.

    Every picture is encoded as if it were the conversation's only one, in tiles.
    """

    image_token = "<image>"
    role_end = " "
    turn_end = ""
    grpo_refused = (
        "LLaVA-OneVision's processor gives a picture fewer tokens once the conversation holds a second one; a tool's "
        "picture would change the tokens of earlier turns, which RL must keep as they were sampled"
    )

    def placeholders(self, height: int, width: int) -> int:
        (count,) = self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"]
        return int(count)

    def _body(self, message: Message, images: dict[str, Image]) -> list[int]:
        """All pictures first, then each text on a line of its own."""
        pictures = [block for block in message.content if isinstance(block, ImageBlock)]
        texts = [block.text for block in message.content if isinstance(block, TextBlock | ToolResultBlock)]
        tokens = [token for block in pictures for token in self._picture(images[block.handle])]
        return tokens + self._text("".join("\n" + text for text in texts))

    def feature_tokens(self, features: Mapping[str, Any]) -> int:
        return sum(self.placeholders(int(height), int(width)) for height, width in features["image_sizes"])
