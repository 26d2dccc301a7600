"""Segmentation from prompts: what a backend is, and the embeddings kept between calls. No torch here.

The models of the SAM family work in two halves: an encoder, which sees the picture and is costly, and a decoder, which
sees the prompts and is cheap. The encoder's result is kept by the picture's hash.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image as Pillow

from thinkimg.cache import BoundedCache
from thinkimg.image import Image
from thinkimg.tools.vision.geometry import Box, Point, with_room


@dataclass(frozen=True)
class Prompt:
    """One object, shown by a box around it or by points on it; pixels of the picture, not rounded."""

    box: Box | None = None
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, eq=False)
class Mask:
    """One object.

    Attributes:
        pixels: bool, shape (height, width) of the picture.
        score: the model's own estimate of the mask's quality, about 0 to 1.
    """

    pixels: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the encoder made of a picture.

    Attributes:
        features: the backend's own.
        size: width and height of the picture that was encoded.
        fitted: width and height to which it was brought for the encoder.
        nbytes: memory that `features` take.
    """

    features: Any
    size: tuple[int, int]
    fitted: tuple[int, int]
    nbytes: int


class SegmentationModel(Protocol):
    """The two halves."""

    details: Mapping[str, str]

    def encode(self, pictures: Sequence[Pillow.Image]) -> list[Embedding]:
        """The costly half, for several pictures at once (RGB, any sizes)."""

    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Mask]:
        """The cheap half, a mask per prompt."""


class Segmenter:
    """A model and its cache. Thread-safe: one call or batch computes at a time."""

    def __init__(self, model: SegmentationModel, embedding_cache_bytes: int) -> None:
        self.model = model
        self.cache: BoundedCache[tuple[str, str], Embedding] = BoundedCache(embedding_cache_bytes, fair=True)
        self._lock = threading.Lock()

    def segment(self, requests: Sequence[tuple[Image, Sequence[Prompt]]]) -> list[list[Mask]]:
        """A list of masks per request, one per prompt, at the size of the request's picture.

        New pictures are encoded as one batch; the same picture twice is encoded once.

        Raises:
            ImageDecodeError: a picture is broken.
        """
        with self._lock:
            embeddings = self._embeddings([image for image, _ in requests])
            return [self._masks(embeddings[image.kept_as], image, prompts) for image, prompts in requests]

    def _embeddings(self, images: Sequence[Image]) -> dict[tuple[str, str], Embedding]:
        found = {image.kept_as: self.cache.get(image.kept_as) for image in images}
        new = {image.kept_as: image for image in images if found[image.kept_as] is None}
        known = {key: embedding for key, embedding in found.items() if embedding is not None}
        if new:
            made = self.model.encode([with_room(image.pixels()) for image in new.values()])
            for (key, image), embedding in zip(new.items(), made, strict=True):
                self.cache.put(key, embedding, embedding.nbytes, image.holder)
                known[key] = embedding
        return known

    def _masks(self, embedding: Embedding, image: Image, prompts: Sequence[Prompt]) -> list[Mask]:
        return [
            Mask(mask.pixels[: image.height, : image.width], mask.score)
            for mask in self.model.decode(embedding, prompts)
        ]
