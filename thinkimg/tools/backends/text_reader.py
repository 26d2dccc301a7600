"""A reader of text that looks at each picture once."""

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict

from PIL import Image as Pillow

from thinkimg.image import Image
from thinkimg.tools.vision.text import TextItem, with_zeros

CACHE_VARIABLE = "THINKIMG_OCR_CACHE"
CACHE_SIZE = 2048  # pictures; the strings of one take about a kilobyte


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
