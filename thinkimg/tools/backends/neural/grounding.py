"""What both GroundingDINO backends share: pictures to tensors, and boxes with token scores to labelled boxes.

The two differ in the network alone, so that their results can be compared.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image as Pillow
from torchvision.transforms import functional

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.backends.detection import Detection, Query
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.vision.geometry import clip_box, fitted_size, with_room

_MOST_TOKENS = 256
"""Longer captions would be cut off by the model."""


@dataclass(frozen=True)
class Preparation:
    """How pictures are brought to the network: DETR's rule of sizes, then mean and deviation per channel of 0..1."""

    shortest: int = 800
    longest: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)

    def tensor(self, picture: Pillow.Image) -> torch.Tensor:
        """float32, shape (3, height, width)."""
        size = fitted_size(picture.size, self.shortest, self.longest)
        fitted = picture.resize(size, Pillow.Resampling.BILINEAR)
        return functional.normalize(functional.to_tensor(fitted), list(self.mean), list(self.deviation))


class GroundingModel(Protocol):
    """A network that scores every token of a caption for every box."""

    tokenizer: Any
    preparation: Preparation
    details: Mapping[str, str]

    def predict(self, pixels: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (n, 3, h, w) -> scores (n, boxes, tokens), 0 to 1, and boxes (n, boxes, 4) as centre and size, 0 to 1.
        Float32, on the CPU."""


class TokenDetector:
    """`thinkimg.tools.backends.detection.Detector` over such a network.

    Pictures that come to the same size are one batch. Others are not padded to it: padding changes what the network
    sees, and a call's result must not depend on its neighbours.
    """

    def __init__(self, model: GroundingModel, most: int) -> None:
        self.model = model
        self.details = dict(model.details)
        self._most = most
        self._lock = threading.Lock()

    def detect(self, requests: Sequence[tuple[Image, Query]]) -> list[list[Detection] | ModelError]:
        tokens = [self.model.tokenizer(query.caption)["input_ids"] for _, query in requests]
        results: dict[int, list[Detection] | ModelError] = {}
        groups: dict[tuple[int, ...], list[tuple[int, torch.Tensor, tuple[int, int]]]] = {}
        for number, (image, _) in enumerate(requests):
            if len(tokens[number]) > _MOST_TOKENS:
                results[number] = _too_long(len(tokens[number]))
                continue
            picture = with_room(image.pixels())
            pixels = self.model.preparation.tensor(picture)
            groups.setdefault(tuple(pixels.shape), []).append((number, pixels, picture.size))
        for group in groups.values():
            captions = [requests[number][1].caption for number, _, _ in group]
            with self._lock, weights.one_machine():
                scores, boxes = self.model.predict(torch.stack([pixels for _, pixels, _ in group]), captions)
            for row, (number, _, size) in enumerate(group):
                image, query = requests[number]
                results[number] = self._read(scores[row], boxes[row], tokens[number], image, size, query)
        return [results[number] for number in range(len(requests))]

    def _read(
        self,
        scores: torch.Tensor,
        boxes: torch.Tensor,
        tokens: list[int],
        image: Image,
        size: tuple[int, int],
        query: Query,
    ) -> list[Detection]:
        """The boxes above the threshold; `size` is that of the picture with room, which the boxes are relative to."""
        scores = scores[:, : len(tokens)]
        best = scores.max(dim=1).values
        found: list[Detection] = []
        for index in best.argsort(descending=True, stable=True).tolist():
            if best[index] <= query.box_threshold or len(found) == self._most:
                break
            box = clip_box(_corners(boxes[index].tolist(), size), image.width, image.height)
            if box is not None:
                label = self._label(scores[index], tokens, query)
                found.append(Detection(label, box, round(float(best[index]), 4)))
        return found

    def _label(self, scores: torch.Tensor, tokens: list[int], query: Query) -> str:
        """The words that score above the threshold; if none does, all words of the query."""
        chosen = [token for token, score in zip(tokens, scores.tolist(), strict=True) if score > query.text_threshold]
        text = self.model.tokenizer.decode(chosen, skip_special_tokens=True).replace(".", " ")
        return " ".join(text.split()) or ", ".join(query.phrases)


def _corners(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return (
        (x - width / 2) * size[0],
        (y - height / 2) * size[1],
        (x + width / 2) * size[0],
        (y + height / 2) * size[1],
    )


def _too_long(tokens: int) -> ModelError:
    return ModelError(
        f'GroundingDINO: argument "query" is too long: {tokens} tokens, at most {_MOST_TOKENS} can be read. '
        "Name fewer things."
    )
