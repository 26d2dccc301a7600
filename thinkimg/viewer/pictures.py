"""Pictures as data URIs: what a page needs to be one file."""

import base64
import io
from pathlib import Path

from thinkimg.image import Image, ImageDecodeError

MAX_SIDE = 1200  # pixels; coordinates are percent, so overlays fit at any size


def data_uri(path: Path) -> str | None:
    """The picture for the page: re-encoded without loss where that is smaller, reduced to `MAX_SIDE`; None if it is
    missing or broken, which the page then says."""
    try:
        image = Image.from_file(path)
        data, media_type = _compact(image)
    except (OSError, ImageDecodeError):
        return None
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _compact(image: Image) -> tuple[bytes, str]:
    large = max(image.width, image.height) > MAX_SIDE
    if not large and image.media_type not in ("image/png", "image/bmp", "image/tiff"):
        return image.data, image.media_type
    pixels = image.pixels()
    pixels.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    lossless = image.media_type != "image/jpeg"
    pixels.save(buffer, "WEBP", lossless=lossless, quality=50 if lossless else 85, method=3)
    data = buffer.getvalue()
    if large or len(data) < len(image.data) or image.media_type != "image/png":
        return data, "image/webp"
    return image.data, image.media_type
