"""SAM with onnxruntime, without torch: a folder that `thinkimg weights export` wrote, encoder and decoder apart.

Pictures are brought to the network's square as transformers' image processor of SAM does it (longest side, padded right
and below), with Pillow, as the authors' own code does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image as Pillow

from thinkimg.errors import UserError
from thinkimg.tools.backends.decoding import decode_prompts
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmentation import Embedding, Mask, Prompt
from thinkimg.tools.weights.exported import CORNERS, DECODER, ENCODER, NO_POINT, ON_OBJECT, find_exported


class OnnxSAM:
    """The backend `onnx` of SAM."""

    def __init__(self, options: SegmenterOptions) -> None:
        folder, self.about = find_exported(options.weights)
        self.encoder, self.decoder = _session(folder / ENCODER), _session(folder / DECODER)
        self.details: Mapping[str, str] = {
            "device": "cpu",
            "dtype": "float32",
            "weights": str(folder),
            "exported from": self.about.source,
        }

    def encode(self, pictures: Sequence[Pillow.Image]) -> list[Embedding]:
        fitted = [_fitted(picture.size, self.about.side) for picture in pictures]
        pixels = np.stack([self._pixels(picture, size) for picture, size in zip(pictures, fitted, strict=True)])
        (features,) = self.encoder.run(None, {"pixels": pixels})
        return [
            # A copy: a slice would keep the memory of the whole batch.
            Embedding(each[None].copy(), picture.size, size, each.nbytes)
            for each, picture, size in zip(features, pictures, fitted, strict=True)
        ]

    def _pixels(self, picture: Pillow.Image, size: tuple[int, int]) -> np.ndarray:
        """float32, (3, side, side)."""
        resized = picture if size == picture.size else picture.resize(size, Pillow.Resampling.BILINEAR)
        mean, std = np.array(self.about.mean, np.float32), np.array(self.about.std, np.float32)
        padded = np.zeros((self.about.side, self.about.side, 3), np.float32)
        padded[: size[1], : size[0]] = (np.asarray(resized, np.float32) / 255 - mean) / std
        return padded.transpose(2, 0, 1)

    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Mask]:
        scale = np.array([new / old for new, old in zip(embedding.fitted, embedding.size, strict=True)], np.float32)

        def low(boxes: np.ndarray | None, points: np.ndarray | None, several: bool) -> tuple[np.ndarray, np.ndarray]:
            if boxes is not None:
                shown, labels = boxes.reshape(-1, 2, 2) * scale, np.tile(CORNERS, (len(boxes), 1))
            else:
                assert points is not None
                nowhere = np.zeros((len(points), 1, 2), np.float32)  # SAM was trained with one where there is no box
                shown = np.concatenate([points * scale, nowhere], axis=1)
                labels = np.full(shown.shape[:2], ON_OBJECT)
                labels[:, -1] = NO_POINT
            given = {"features": embedding.features, "points": shown[None], "labels": labels[None].astype(np.int64)}
            logits, scores = self.decoder.run(None, given)
            chosen = slice(1, None) if several else slice(0, 1)
            return logits[:, chosen], scores[:, chosen]

        def enlarge(logits: np.ndarray) -> np.ndarray:
            side, (width, height) = self.about.side, embedding.fitted
            square = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
            whole = cv2.resize(square[:height, :width], embedding.size, interpolation=cv2.INTER_LINEAR)
            return np.asarray(whole > 0)

        return decode_prompts(prompts, low, enlarge)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def _session(path: Path) -> Any:
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} is no whole file of ONNX: {first}", "options.weights") from error
