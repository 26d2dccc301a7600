"""Reading text: what is found, and a reader that looks at each picture once."""

import os
import re
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image as Pillow

from thinkimg.image import Image

CACHE_VARIABLE = "THINKIMG_OCR_CACHE"
SMALL = 320
"""Pixels of the longer side up to which a picture is looked at as it is; in larger ones lines and letters are thin."""
CACHE_SIZE = 2048  # pictures; the strings of one take about a kilobyte


@dataclass(frozen=True)
class TextItem:
    """A string found in a picture.

    Attributes:
        text: verbatim; whoever drew the picture wrote it, so it is never to be trusted.
        box: left, top, right, bottom in pixels of the picture.
        confidence: 0 to 1.
    """

    text: str
    box: tuple[float, float, float, float]
    confidence: float


class TextReader(ABC):
    """An engine and its cache. Thread-safe: one picture is read at a time, and a picture only once."""

    def __init__(self, cache_size: int = CACHE_SIZE) -> None:
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[TextItem, ...]] = OrderedDict()
        self._cache_size = cache_size

    def read(self, image: Image) -> tuple[TextItem, ...]:
        """All strings of `image`, whatever their confidence, in no particular order.

        Raises:
            ImageDecodeError: the picture is broken.
        """
        with self._lock:
            if image.sha256 in self._cache:
                self._cache.move_to_end(image.sha256)
                return self._cache[image.sha256]
            items = with_zeros(self._recognise(image.pixels()))
            self._cache[image.sha256] = items
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
            return items

    @abstractmethod
    def _recognise(self, picture: Pillow.Image) -> tuple[TextItem, ...]:
        """What the engine sees; `picture` is RGB."""


def kept_pictures() -> int:
    """Pictures whose strings are kept: the environment's THINKIMG_OCR_CACHE; 0 switches the cache off."""
    return int(os.environ.get(CACHE_VARIABLE, CACHE_SIZE))


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


def ink_box(pixels: np.ndarray, item: TextItem) -> tuple[float, float, float, float]:
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


def most_frequent_color(colors: np.ndarray) -> np.ndarray:
    """The median of the most frequent colours, which are counted coarsely; (n, 3) -> (3,)."""
    coarse, where = np.unique(colors // 16, axis=0, return_inverse=True)
    most = int(np.bincount(where.ravel(), minlength=len(coarse)).argmax())
    return np.asarray(np.median(colors[where.ravel() == most], axis=0))


def border_color(picture: Pillow.Image) -> tuple[int, int, int]:
    """Median of the outermost pixels, so that the pasted picture has no edge."""
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue


def clip(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    x1, y1, x2, y2 = (float(value) for value in box)
    return max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
