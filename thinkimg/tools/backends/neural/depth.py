"""Depth from one picture with transformers: Depth Anything, DPT, GLPN and the like."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from thinkimg.image import Image
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.backends.options import WeightsOptions
from thinkimg.tools.vision.geometry import with_room
from thinkimg.tools.weights.catalogue import DEFAULTS

DEFAULT_WEIGHTS = DEFAULTS["EstimateDepth", "transformers"]
_METRIC = ("glpn",)
"""Models that give metres; the others give the inverse of a distance, up to scale and shift."""


class DepthEstimator:
    """The backend `transformers` of EstimateDepth. Thread-safe."""

    def __init__(self, options: WeightsOptions) -> None:
        source = options.weights or DEFAULT_WEIGHTS
        folder = weights.locate_pretrained(options, DEFAULT_WEIGHTS)
        self.device, self.dtype = weights.choose_device(options.device), weights.choose_dtype(options.dtype)
        self.processor = weights.load_processor(AutoImageProcessor, folder, options)
        self.model = weights.load_pretrained(AutoModelForDepthEstimation, folder, options, self.device)
        config = self.model.config
        self._metric = config.model_type in _METRIC or getattr(config, "depth_estimation_type", "") == "metric"
        self.details = weights.details(options, source, self.device)
        self._lock = threading.Lock()

    def nearness(self, images: Sequence[Image]) -> list[np.ndarray]:
        """How near each pixel is: float32, shape (height, width) of the picture, 0 the farthest of it, 1 the nearest.

        Pictures that come to the same size are one batch.
        """
        pictures = [with_room(image.pixels()) for image in images]
        groups: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
        for number, picture in enumerate(pictures):
            pixels = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
            groups.setdefault(tuple(pixels.shape), []).append((number, pixels))
        found: dict[int, np.ndarray] = {}
        for group in groups.values():
            numbers = [number for number, _ in group]
            out = self._predict(torch.stack([pixels for _, pixels in group]))
            for number, depth in zip(numbers, self._at_source(out, [pictures[n] for n in numbers]), strict=True):
                found[number] = self._nearness(depth, images[number])
        return [found[number] for number in range(len(images))]

    @torch.inference_mode()
    def _predict(self, pixels: torch.Tensor) -> Any:
        with self._lock, weights.one_machine():
            out = self.model(pixel_values=pixels.to(self.device, self.dtype))
        out.predicted_depth = out.predicted_depth.float().cpu()
        return out

    def _at_source(self, out: Any, pictures: Sequence[Pillow.Image]) -> list[torch.Tensor]:
        sizes = [(picture.height, picture.width) for picture in pictures]
        done = self.processor.post_process_depth_estimation(out, target_sizes=sizes)
        return [each["predicted_depth"] for each in done]

    def _nearness(self, depth: torch.Tensor, image: Image) -> np.ndarray:
        values = depth.reshape(depth.shape[-2:])[: image.height, : image.width].numpy().astype(np.float32)
        values = -values if self._metric else values
        low, high = float(values.min()), float(values.max())
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
