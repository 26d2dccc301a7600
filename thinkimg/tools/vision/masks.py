"""Masks: COCO's run lengths, the box around one, and pictures with masks laid over them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg.image import Image

COLORS = ((30, 110, 255), (230, 60, 60), (30, 160, 80), (240, 160, 0), (150, 70, 200), (0, 170, 180))
_OUTLINE = (255, 255, 255)
_OPACITY = 0.5


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, alternating from zeros; `size` is [height, width]."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode_rle`; bool, shape `size`."""
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (exclusive) in pixels; None for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def overlay(picture: Pillow.Image, masks: Sequence[np.ndarray]) -> Image:
    """The picture, at its own size, with each mask in a translucent colour, outlined in white and numbered from 1."""
    drawn = np.asarray(picture).copy()
    for number, mask in enumerate(masks):
        color = np.array(COLORS[number % len(COLORS)])
        drawn[mask] = (drawn[mask] * (1 - _OPACITY) + color * _OPACITY).astype(np.uint8)
        drawn[_rim(mask)] = _OUTLINE
    result = Pillow.fromarray(drawn)
    if len(masks) > 1:
        _number(result, masks)
    return Image.from_pixels(result)


def _rim(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a neighbour outside of it."""
    inner = np.pad(mask, 1, constant_values=True)
    return np.asarray(
        mask & ~(inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]),
    )


def _number(picture: Pillow.Image, masks: Sequence[np.ndarray]) -> None:
    pen = ImageDraw.Draw(picture)
    size = max(10, round(min(picture.size) * 0.05))
    for number, mask in enumerate(masks, 1):
        box = mask_box(mask)
        if box is not None:
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            pen.text(
                middle, str(number), fill="white", stroke_fill="black", stroke_width=2, font_size=size, anchor="mm"
            )
