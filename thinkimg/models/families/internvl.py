"""InternVL 3 (as transformers has it): ChatML turns; a picture is cut into tiles, each of which fills as many
`<IMG_CONTEXT>` as any other, between `<img>` and `</img>`."""

from collections.abc import Mapping
from typing import Any

from thinkimg.models.families.chatml import ChatML


class InternVL(ChatML):
    """The family adapter (see `thinkimg.models.chat.Family`).

    The processor asks its image processor for tiles at every call; here that becomes the image processor's own
    setting, so that whoever calls it alone gets the same pixels.
    """

    image_token = "<IMG_CONTEXT>"
    frame = ("<img>", "</img>")
    engine_adds_frame = True
    after_picture = "\n"

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        processor.image_processor.crop_to_patches = True

    def placeholders(self, height: int, width: int) -> int:
        tiles = self.processor.image_processor.get_number_of_image_patches(height, width, {})
        return int(tiles) * int(self.processor.image_seq_length)

    def feature_tokens(self, features: Mapping[str, Any]) -> int:
        return int(features["pixel_values"].shape[0]) * int(self.processor.image_seq_length)
