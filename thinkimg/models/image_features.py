"""Images to model features, each picture once: a cache by sha256 in front of Hugging Face's image processor."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.image import Image


class ImageFeatures:
    """Callable: images to `pixel_values` (patches of all images, dim) and `image_grid_thw` (images, 3), in order.

    Args:
        image_processor: of the Qwen2-VL kind: patches of all images concatenated.
        max_images: pictures kept; the least recently used goes first.

    Attributes:
        runs: how many pictures were really preprocessed.
    """

    def __init__(self, image_processor: Any, max_images: int = 20_000) -> None:
        self.image_processor = image_processor
        self.max_images = max_images
        self.runs = 0
        self._kept: OrderedDict[str, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    def __call__(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        features = [self._features(image) for image in images]
        return {
            "pixel_values": torch.cat([pixels for pixels, _ in features]),
            "image_grid_thw": torch.cat([grid for _, grid in features]),
        }

    def _features(self, image: Image) -> tuple[torch.Tensor, torch.Tensor]:
        kept = self._kept.get(image.sha256)
        if kept is None:
            self.runs += 1
            made = self.image_processor(images=[image.pixels()], return_tensors="pt")
            kept = self._kept[image.sha256] = (made["pixel_values"], made["image_grid_thw"])
            if len(self._kept) > self.max_images:
                self._kept.popitem(last=False)
        self._kept.move_to_end(image.sha256)
        return kept
