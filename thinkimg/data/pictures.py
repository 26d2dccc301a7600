"""Pictures as data sets have them: a path beside the file, bytes, base64, a hub data set's struct, a Pillow object.

Whoever wrote a data set chose its paths; whoever runs it need not trust them. So a path leads to a picture below the
data's own folder, whatever links and `..` it goes through, or below a folder that the user allows (`?pictures=FOLDER`).
"""

import base64
import binascii
import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from thinkimg.image import Image, ImageDecodeError

_SHOWN = 200


class PictureReader:
    """Makes an `Image` of what stands in a row.

    Args:
        folders: where paths lead, after links: relative ones are looked for below each in turn. None where a data set
            has no files of its own, so that paths are refused.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders: Sequence[Path] = folders
        self._real = [folder.resolve() for folder in folders]
        self._last: tuple[Path, Image] | None = None

    def read(self, value: Any) -> Image:
        """The file's own bytes wherever there are any.

        Raises:
            ValueError: there is no picture, or it is none that `Image` accepts; its path leads elsewhere.
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
        path = None if text.startswith("data:") else self._find(text.removeprefix("file://"))
        if path is not None:
            return self._of_file(path)
        try:
            data = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
            return Image.from_bytes(data)
        except (binascii.Error, ValueError) as error:
            if len(text) > _SHOWN and isinstance(error, ImageDecodeError):  # surely not a path
                raise
        raise ValueError(f"there is no picture {text[:_SHOWN]!r}")

    def _find(self, text: str) -> Path | None:
        """The file that a path means, if there is one. Raises `ValueError`: it is nowhere that it may be."""
        found = [path for folder in self._folders if os.path.isfile(path := folder / text)]
        for path in found:
            real = path.resolve()
            if any(real.is_relative_to(folder) for folder in self._real):
                return path
        if found:
            raise ValueError(
                f"the path {text[:_SHOWN]!r} leads out of {self._folders[0]}, to {found[0].resolve()}: put "
                "?pictures=FOLDER behind the data's address if pictures may be taken from there"
            )
        return None

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
