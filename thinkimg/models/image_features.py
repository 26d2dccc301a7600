"""Images to model features, each picture once: a cache by sha256 in front of Hugging Face's image processor."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.image import Image

COUNTS = ("num_patches", "batch_num_images")
"""What image processors return beside features: no input of the model."""


class ImageFeatures:
    """Callable: images to the model's inputs, each picture's concatenated in order: `pixel_values` and what the family
    has beside it, such as `image_grid_thw` (images, 3) of Qwen-VL or `image_sizes` (images, 2) of LLaVA.

    Args:
        image_processor: Hugging Face's.
        max_images: pictures kept; the least recently used goes first.

    Attributes:
        runs: how many pictures were really preprocessed.
    """

    def __init__(self, image_processor: Any, max_images: int = 20_000) -> None:
        self.image_processor = image_processor
        self.max_images = max_images
        self.runs = 0
        self._kept: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()

    def __call__(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        features = [self._features(image) for image in images]
        names = [name for name in features[0] if name not in COUNTS]
        return {name: _concatenated([one[name] for one in features]) for name in names}

    def tiles(self, images: Sequence[Image]) -> torch.Tensor:
        """How many tiles each picture is cut into (images,), where the family cuts them."""
        return torch.cat([torch.as_tensor(self._features(image)["num_patches"]).reshape(-1) for image in images])

    def _features(self, image: Image) -> dict[str, torch.Tensor]:
        kept = self._kept.get(image.sha256)
        if kept is None:
            self.runs += 1
            kept = self._kept[image.sha256] = dict(self.image_processor(images=[image.pixels()], return_tensors="pt"))
            if len(self._kept) > self.max_images:
                self._kept.popitem(last=False)
        self._kept.move_to_end(image.sha256)
        return kept


def _concatenated(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Along the first dimension. Pictures of different numbers of tiles (images, tiles, …) are padded with empty ones,
    as their own processor does."""
    if tensors[0].ndim == 5:
        most = max(tensor.shape[1] for tensor in tensors)
        tensors = [
            torch.cat([tensor, tensor.new_zeros((1, most - tensor.shape[1], *tensor.shape[2:]))], 1)
            for tensor in tensors
        ]
    return torch.cat(tensors)
