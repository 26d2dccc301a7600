"""Images to model features, each picture once: a cache by sha256 in front of Hugging Face's image processor.

A process has one such cache, whatever it does and however many models it loads: sampling, the loss, a gate and an
evaluation show the same pictures. The features of one take 1 to 80 MB.
"""

import ctypes
import json
from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.cache import BoundedCache
from thinkimg.image import Image

MAX_BYTES = 2 * 1024**3
"""Of the features that a process keeps, unless `keep_at_most` says otherwise."""
COUNTS = ("num_patches", "batch_num_images")
"""What image processors return beside features: no input of the model."""

_TRIM_EVERY = 64 * 1024**2
"""Bytes of features made, after which the heap is trimmed."""

_Key = tuple[str, str]
"""How pictures are processed, and which one it is (sha256)."""

_of_this_process: BoundedCache[_Key, dict[str, torch.Tensor]] = BoundedCache(MAX_BYTES)


def keep_at_most(max_bytes: int) -> None:
    """Bound the features that this process keeps; 0 keeps none."""
    _of_this_process.bound(max_bytes)


class _Heap:
    """The C library keeps what preprocessing needed for a moment, in pieces between what is kept here: a process grows
    by about twice the bound. Now and then those pieces go back to the system."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)  # glibc's; others do not hoard
        self._made = 0

    def used(self, size: int) -> None:
        self._made += size
        if self._made >= _TRIM_EVERY:
            self._made = 0
            self._trim(0)


_heap = _Heap()


class ImageFeatures:
    """Callable: images to the model's inputs, each picture's concatenated in order: `pixel_values` and what the family
    has beside it, such as `image_grid_thw` (images, 3) of Qwen-VL or `image_sizes` (images, 2) of LLaVA. They are not
    to be changed: a single picture's are those that are kept.

    Args:
        image_processor: Hugging Face's.
        kept: where features are kept; default: in the one cache of the process.

    Attributes:
        runs: how many pictures were really preprocessed.
    """

    def __init__(
        self, image_processor: Any, kept: BoundedCache[_Key, dict[str, torch.Tensor]] = _of_this_process
    ) -> None:
        self.image_processor = image_processor
        self.kept = kept
        self.runs = 0

    def __call__(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        settings = self._settings()
        features = [self._features(image, settings) for image in images]
        names = [name for name in features[0] if name not in COUNTS]
        return {name: _concatenated([one[name] for one in features]) for name in names}

    def tiles(self, images: Sequence[Image]) -> torch.Tensor:
        """How many tiles each picture is cut into (images,), where the family cuts them."""
        settings = self._settings()
        return torch.cat(
            [torch.as_tensor(self._features(image, settings)["num_patches"]).reshape(-1) for image in images]
        )

    def _settings(self) -> str:
        """All that decides what becomes of a picture; asked each time, for limits of pixels may be set later."""
        return json.dumps(self.image_processor.to_dict(), sort_keys=True, default=str)

    def _features(self, image: Image, settings: str) -> dict[str, torch.Tensor]:
        def preprocess() -> dict[str, torch.Tensor]:
            self.runs += 1
            made = dict(self.image_processor(images=[image.pixels()], return_tensors="pt"))
            _heap.used(_size(made))
            return made

        return self.kept.get_or_make((settings, image.sha256), preprocess, _size)


def _size(features: dict[str, torch.Tensor]) -> int:
    return sum(torch.as_tensor(each).nbytes for each in features.values())


def _concatenated(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Along the first dimension. Pictures of different numbers of tiles (images, tiles, …) are padded with empty ones,
    as their own processor does."""
    if len(tensors) == 1:
        return tensors[0]
    if tensors[0].ndim == 5:
        most = max(tensor.shape[1] for tensor in tensors)
        tensors = [
            torch.cat([tensor, tensor.new_zeros((1, most - tensor.shape[1], *tensor.shape[2:]))], 1)
            for tensor in tensors
        ]
    return torch.cat(tensors)
