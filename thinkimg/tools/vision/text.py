"""Strings found in a picture: which of them are legible, a lone zero among numbers, and where the ink is."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinkimg.tools.vision.colors import most_frequent_color
from thinkimg.tools.vision.geometry import Box


@dataclass(frozen=True)
class TextItem:
    """A string found in a picture.

    Attributes:
        text: verbatim; whoever drew the picture wrote it, so it is never to be trusted.
        box: left, top, right, bottom in pixels of the picture.
        confidence: 0 to 1.
    """

    text: str
    box: Box
    confidence: float


def legible(items: Iterable[TextItem], min_confidence: float = 0.5) -> list[TextItem]:
    """Without what the detector took for text and the recogniser did not."""
    return [item for item in items if item.confidence >= min_confidence]


_ROUND = frozenset("OoQD日口〇")
"""What a lone zero is read as, by recognisers whose alphabet is also Chinese: a tick mark may cross it."""
_NUMBER = re.compile(r"[-+−]?\d[\d.,]*\s?[%kKM]?")


def with_zeros(items: Sequence[TextItem]) -> tuple[TextItem, ...]:
    """The same, with a lone round letter read as 0 where it stands in a row or column of numbers, as on an axis."""
    return tuple(
        replace(item, text="0") if item.text in _ROUND and any(_numbers_beside(item, items)) else item for item in items
    )


def _numbers_beside(item: TextItem, items: Sequence[TextItem]) -> Iterator[bool]:
    """For its row, and for columns by right edge and by centre: are there two numbers, and more than other strings?"""
    near = 0.7 * (item.box[3] - item.box[1])
    here = _places(item)
    for axis in range(len(here)):
        beside = [other.text for other in items if other is not item and abs(_places(other)[axis] - here[axis]) < near]
        numbers = sum(_NUMBER.fullmatch(text) is not None for text in beside)
        others = sum(text not in _ROUND for text in beside) - numbers
        yield numbers >= 2 and numbers > others


def _places(item: TextItem) -> tuple[float, float, float]:
    """What strings of one row, of a column with one right edge, or of a centred column have in common."""
    x1, y1, x2, y2 = item.box
    return (y1 + y2) / 2, x2, (x1 + x2) / 2


def ink_box(pixels: np.ndarray, item: TextItem) -> Box:
    """The box of what is really written in `item.box`: detectors leave a margin, and it is not always the same.

    Args:
        pixels: the picture, uint8, shape (height, width, 3).

    Returns:
        left, top, right, bottom in pixels; `item.box` where nothing stands out from the ground.
    """
    import cv2

    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = item.box
    # A detector that cut too close loses half of the first or the last letter.
    room = max(3.0, 0.5 * min(x2 - x1, y2 - y1))
    left, top = max(0, int(x1 - room)), max(0, int(y1 - room))
    right, bottom = min(width, int(x2 + room) + 1), min(height, int(y2 + room) + 1)
    part = pixels[top:bottom, left:right].astype(np.int16)
    inner = pixels[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].reshape(-1, 3)
    if not len(inner):
        return item.box
    difference = np.abs(part - most_frequent_color(inner)).max(axis=2)
    contrast = float(np.percentile(difference, 98))
    if contrast < 40:
        return item.box
    ink = (difference > 0.4 * contrast).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    kept = []
    for x, y, w, h, _ in stats[1:].tolist():
        shared = max(0.0, min(x2, left + x + w) - max(x1, left + x)) * max(0.0, min(y2, top + y + h) - max(y1, top + y))
        # A grid line or the edge of a bar passes through.
        if shared > 0.3 * w * h and w < right - left and h < bottom - top:
            kept.append((x, y, x + w, y + h))
    if not kept:
        return item.box
    a, b, c, d = zip(*kept, strict=True)
    found = (float(left + min(a)), float(top + min(b)), float(left + max(c)), float(top + max(d)))
    area = (found[2] - found[0]) * (found[3] - found[1])
    return found if area > 0.2 * (x2 - x1) * (y2 - y1) else item.box
