"""Images to model features, each picture once: a cache by sha256 in front of Hugging Face's image processor."""

from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.cache import BoundedCache
from thinkimg.image import Image

MAX_BYTES = 2 * 1024**3
"""Of the features that a process keeps of a model's pictures; those of one take 1 to 80 MB."""
COUNTS = ("num_patches", "batch_num_images")
"""What image processors return beside features: no input of the model."""


class ImageFeatures:
    """Callable: images to the model's inputs, each picture's concatenated in order: `pixel_values` and what the family
    has beside it, such as `image_grid_thw` (images, 3) of Qwen-VL or `image_sizes` (images, 2) of LLaVA.

    Args:
        image_processor: Hugging Face's.
        max_bytes: memory for features that are kept; the least recently used go first.
    """

    def __init__(self, image_processor: Any, max_bytes: int = MAX_BYTES) -> None:
        self.image_processor = image_processor
        self.kept: BoundedCache[str, dict[str, torch.Tensor]] = BoundedCache(max_bytes)

    @property
    def runs(self) -> int:
        """How many pictures were really preprocessed."""
        return self.kept.misses

    def __call__(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        features = [self._features(image) for image in images]
        names = [name for name in features[0] if name not in COUNTS]
        return {name: _concatenated([one[name] for one in features]) for name in names}

    def tiles(self, images: Sequence[Image]) -> torch.Tensor:
        """How many tiles each picture is cut into (images,), where the family cuts them."""
        return torch.cat([torch.as_tensor(self._features(image)["num_patches"]).reshape(-1) for image in images])

    def _features(self, image: Image) -> dict[str, torch.Tensor]:
        def preprocess() -> dict[str, torch.Tensor]:
            return dict(self.image_processor(images=[image.pixels()], return_tensors="pt"))

        return self.kept.get_or_make(image.sha256, preprocess, _size)


def _size(features: dict[str, torch.Tensor]) -> int:
    return sum(torch.as_tensor(each).nbytes for each in features.values())


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
