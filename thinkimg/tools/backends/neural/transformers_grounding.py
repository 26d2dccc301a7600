"""GroundingDINO with transformers."""

from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer, GroundingDinoForObjectDetection

from thinkimg.tools.backends.neural import text_positions, weights
from thinkimg.tools.backends.neural.grounding import Preparation
from thinkimg.tools.backends.options import DetectorOptions
from thinkimg.tools.weights.catalogue import DEFAULTS

text_positions.correct()

DEFAULT_WEIGHTS = DEFAULTS["GroundingDINO", "transformers"]


class TransformersGrounding:
    """The backend `transformers` of GroundingDINO."""

    def __init__(self, options: DetectorOptions) -> None:
        source = options.weights or DEFAULT_WEIGHTS
        folder = weights.locate_pretrained(options, DEFAULT_WEIGHTS)
        self.device, self.dtype = weights.choose_device(options.device), weights.choose_dtype(options.dtype)
        self.tokenizer = weights.load_processor(AutoTokenizer, folder, options)
        self.preparation = _preparation(weights.load_processor(AutoImageProcessor, folder, options))
        self.model = weights.load_pretrained(GroundingDinoForObjectDetection, folder, options, self.device)
        self.details = weights.details(options, source, self.device)

    @torch.inference_mode()
    def predict(self, pixels: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        text: Any = self.tokenizer(captions, padding=True, return_tensors="pt").to(self.device)
        out = self.model(pixel_values=pixels.to(self.device, self.dtype), **text)
        return out.logits.float().sigmoid().cpu(), out.pred_boxes.float().cpu()


def _preparation(processor: object) -> Preparation:
    """What the image processor's file says."""
    size = processor.size  # type: ignore[attr-defined]
    mean, deviation = processor.image_mean, processor.image_std  # type: ignore[attr-defined]
    return Preparation(size["shortest_edge"], size["longest_edge"], tuple(mean), tuple(deviation))
