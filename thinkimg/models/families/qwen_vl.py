"""Qwen-VL (2, 2.5, 3, 3.5, with and without experts): ChatML turns, one run of `<|image_pad|>` per image, M-RoPE."""

from collections.abc import Mapping
from typing import Any

from thinkimg.models.families.chatml import ChatML


class QwenVL(ChatML):
    """The family adapter (see `thinkimg.models.chat.Family`)."""

    image_token = "<|image_pad|>"
    frame = ("<|vision_start|>", "<|vision_end|>")

    def placeholders(self, height: int, width: int) -> int:
        images = self.processor.image_processor
        return int(images.get_number_of_image_patches(height, width, {})) // int(images.merge_size) ** 2

    def feature_tokens(self, features: Mapping[str, Any]) -> int:
        return int(features["image_grid_thw"].prod(-1).sum()) // int(self.processor.image_processor.merge_size) ** 2

    def model_inputs(self, ids: Any) -> dict[str, Any]:
        return {"mm_token_type_ids": (ids == self.image_token_id).int()}
