"""Pictures that a server holds, by hash, so that each travels once."""

import threading
from collections import OrderedDict

from thinkimg.image import Image


class ImageStore:
    """Least recently used out first. Safe to use from several threads.

    Args:
        max_bytes: of all pictures together; one that is larger than this is not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, sha256: str) -> Image | None:
        with self._lock:
            image = self._images.get(sha256)
            if image is not None:
                self._images.move_to_end(sha256)
            return image

    def put(self, image: Image) -> None:
        with self._lock:
            if image.sha256 in self._images or len(image.data) > self._max_bytes:
                return
            self._images[image.sha256] = image
            self.bytes += len(image.data)
            while self.bytes > self._max_bytes:
                _, dropped = self._images.popitem(last=False)
                self.bytes -= len(dropped.data)
