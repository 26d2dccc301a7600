"""What TRL calls as the model's image processor: our `Image` objects in, cached features out.

The trainer and the in-process generator share one `ImageFeatures`, so that a picture is preprocessed once in this
process, however often it is shown.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.image import Image
from thinkimg.models.image_features import ImageFeatures


class CachedImageProcessor:
    """Stands in for Hugging Face's image processor inside a processor; everything but the call is the original's."""

    def __init__(self, features: ImageFeatures) -> None:
        self.cached_features = features

    def __call__(self, images: Sequence[Image], return_tensors: str = "pt", **options: Any) -> dict[str, torch.Tensor]:
        """The features of all images, as the original gives them. Asked with `crop_to_patches`, as TRL asks for
        InternVL, and with one list of images per row: `num_patches` (images,) only."""
        if return_tensors == "pt" and options == {"crop_to_patches": True}:
            flat = [image for row in images for image in (row if isinstance(row, list) else [row])]
            return {"num_patches": self.cached_features.tiles(flat)}
        if return_tensors != "pt" or options:
            raise TypeError(f"cached features exist as default tensors only, not with {return_tensors=}, {options}")
        return self.cached_features(images)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "cached_features":
            raise AttributeError(name)
        return getattr(self.cached_features.image_processor, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Saving a processor copies it deeply: what is saved is the original.
        return copy.deepcopy(self.cached_features.image_processor, memo)


def with_cached_images(processor: Any, features: ImageFeatures) -> Any:
    """A shallow copy of `processor` whose image processor is cached; the original stays as it is."""
    copied = copy.copy(processor)
    copied.image_processor = CachedImageProcessor(features)
    return copied
