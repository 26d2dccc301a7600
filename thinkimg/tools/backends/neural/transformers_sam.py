"""SAM 2, and the first SAM, with transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from transformers import AutoImageProcessor, AutoModelForMaskGeneration

from thinkimg.tools.backends.decoding import decode_prompts
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmentation import Embedding, Mask, Prompt
from thinkimg.tools.weights.catalogue import DEFAULTS

DEFAULT_WEIGHTS = DEFAULTS["SAM", "transformers"]


class TransformersSAM:
    """The backend `transformers` of SAM: any model that transformers lists for mask generation."""

    def __init__(self, options: SegmenterOptions) -> None:
        source = options.weights or DEFAULT_WEIGHTS
        folder = weights.locate_pretrained(options, DEFAULT_WEIGHTS)
        self.device, self.dtype = weights.choose_device(options.device), weights.choose_dtype(options.dtype)
        self.processor = weights.load_processor(AutoImageProcessor, folder, options)
        self.model = weights.load_pretrained(AutoModelForMaskGeneration, folder, options, self.device)
        self.details = weights.details(options, source, self.device)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Pillow.Image]) -> list[Embedding]:
        prepared = self.processor(images=list(pictures), return_tensors="pt")
        pixels = prepared["pixel_values"].to(self.device, self.dtype)
        with weights.one_machine():
            embedded = self.model.get_image_embeddings(pixels)
        return [
            self._embedding(_one(embedded, number), picture, prepared, number)
            for number, picture in enumerate(pictures)
        ]

    def _embedding(self, features: Any, picture: Pillow.Image, prepared: Any, number: int) -> Embedding:
        # SAM keeps the proportions and pads; SAM 2 distorts to its square.
        reshaped = prepared.get("reshaped_input_sizes")
        height, width = prepared["pixel_values"].shape[-2:] if reshaped is None else reshaped[number].tolist()
        parts = features if isinstance(features, list) else [features]
        return Embedding(features, picture.size, (int(width), int(height)), sum(part.nbytes for part in parts))

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Mask]:
        scale = np.array([new / old for new, old in zip(embedding.fitted, embedding.size, strict=True)], np.float32)

        def low(boxes: np.ndarray | None, points: np.ndarray | None, several: bool) -> tuple[np.ndarray, np.ndarray]:
            shown = {}
            if points is not None:
                shown["input_points"] = torch.from_numpy(points * scale)[None].to(self.device, self.dtype)
                shown["input_labels"] = torch.ones(1, *points.shape[:2], dtype=torch.int, device=self.device)
            if boxes is not None:
                shown["input_boxes"] = torch.from_numpy(boxes * np.tile(scale, 2))[None].to(self.device, self.dtype)
            # A list is changed by the model in place.
            features = list(embedding.features) if isinstance(embedding.features, list) else embedding.features
            out = self.model(image_embeddings=features, multimask_output=several, **shown)
            return out.pred_masks[0].float().cpu().numpy(), out.iou_scores[0].float().cpu().numpy()

        def enlarge(logits: np.ndarray) -> np.ndarray:
            sizes = {"original_sizes": [embedding.size[::-1]], "reshaped_input_sizes": [embedding.fitted[::-1]]}
            low_resolution = torch.from_numpy(logits)[None, None]
            mask: np.ndarray = self.processor.post_process_masks([low_resolution], **sizes)[0][0, 0].numpy()
            return mask

        with weights.one_machine():
            return decode_prompts(prompts, low, enlarge)


def _one(embedded: Any, number: int) -> Any:
    """The features of one picture, copied: a slice would keep the memory of the whole batch."""
    if isinstance(embedded, torch.Tensor):
        return embedded[number : number + 1].clone()
    return [part[number : number + 1].clone() for part in embedded]
