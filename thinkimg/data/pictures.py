"""Pictures as data sets have them: a path beside the file, bytes, base64, a hub data set's struct, a Pillow object."""

import base64
import binascii
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from thinkimg.image import Image, ImageDecodeError

_SHOWN = 200


class PictureReader:
    """Makes an `Image` of what stands in a row.

    Args:
        folder: which paths are relative to; None where a data set has no files of its own, so that paths are refused.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._last: tuple[Path, Image] | None = None

    def read(self, value: Any) -> Image:
        """The file's own bytes wherever there are any.

        Raises:
            ValueError: there is no picture, or it is none that `Image` accepts.
        """
        if isinstance(value, Mapping):  # as `datasets` has a picture that it does not decode
            value = value.get("bytes") or value.get("path")
        if isinstance(value, Image):
            return value
        if isinstance(value, Pillow.Image):
            return Image.from_pillow(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return Image.from_bytes(bytes(value))
        if isinstance(value, str) and value:
            return self._of_text(value)
        raise ValueError(f"there is no picture: {type(value).__name__} is neither a path nor bytes nor base64")

    def _of_text(self, text: str) -> Image:
        if text.startswith(("http://", "https://")):
            raise ValueError(f"pictures are not downloaded: {text[:_SHOWN]!r}; put the file beside the data")
        path = None if self._folder is None or text.startswith("data:") else self._folder / text
        if path is not None and os.path.isfile(path):
            return self._of_file(path)
        try:
            data = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
            return Image.from_bytes(data)
        except (binascii.Error, ValueError) as error:
            if len(text) > _SHOWN and isinstance(error, ImageDecodeError):  # surely not a path
                raise
        raise ValueError(f"there is no picture {text[:_SHOWN]!r}")

    def _of_file(self, path: Path) -> Image:
        """Questions about one picture mostly follow one another: the last one is not read again."""
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        try:
            image = Image.from_file(path)
        except (OSError, ImageDecodeError) as error:
            raise ValueError(f"cannot read the picture {path}: {error}") from None
        self._last = (path, image)
        return image
