"""A reader of text that looks at each picture once."""

import os
import threading
from abc import ABC, abstractmethod

from PIL import Image as Pillow

from thinkimg.cache import BoundedCache
from thinkimg.image import Image
from thinkimg.tools.vision.text import TextItem, with_zeros

CACHE_VARIABLE = "THINKIMG_OCR_CACHE"
CACHE_SIZE = 2048  # pictures; the strings of one take some kilobytes
_CACHE_BYTES = 64 * 1024 * 1024
_ITEM_BYTES = 400  # that a string with its box takes beside its letters, roughly


class TextReader(ABC):
    """An engine and its cache. Thread-safe: one picture is read at a time, and a picture only once."""

    def __init__(self, cache_size: int = CACHE_SIZE) -> None:
        self.cache: BoundedCache[tuple[str, str], tuple[TextItem, ...]] = BoundedCache(
            _CACHE_BYTES, max_entries=cache_size, fair=True
        )
        self._lock = threading.Lock()

    def read(self, image: Image) -> tuple[TextItem, ...]:
        """All strings of `image`, whatever their confidence, in no particular order.

        Raises:
            ImageDecodeError: the picture is broken.
        """
        return self.cache.get_or_make(image.kept_as, lambda: self._read(image), _size, image.holder)

    def _read(self, image: Image) -> tuple[TextItem, ...]:
        with self._lock:
            return with_zeros(self._recognise(image.pixels()))

    @abstractmethod
    def _recognise(self, picture: Pillow.Image) -> tuple[TextItem, ...]:
        """What the engine sees; `picture` is RGB."""


def _size(items: tuple[TextItem, ...]) -> int:
    return _ITEM_BYTES + sum(_ITEM_BYTES + 4 * len(item.text) for item in items)


def kept_pictures() -> int:
    """Pictures whose strings are kept: the environment's THINKIMG_OCR_CACHE; 0 switches the cache off."""
    return int(os.environ.get(CACHE_VARIABLE, CACHE_SIZE))
