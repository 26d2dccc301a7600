"""Pictures of the kinds that are decoded wrongly elsewhere, with what is to be seen in them."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow

WIDTH, HEIGHT = 60, 40
RED, WHITE = (255, 0, 0), (255, 255, 255)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class OddPicture:
    """A picture of two halves.

    Attributes:
        first, second: colours of the left and the right half; of the upper and the lower one where it stands.
        standing: shown 40 wide and 60 high.
        media_type: of the file.
    """

    data: bytes
    first: Colour
    second: Colour
    media_type: str = "image/png"
    standing: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return (HEIGHT, WIDTH) if self.standing else (WIDTH, HEIGHT)

    @property
    def places(self) -> list[tuple[tuple[int, int], Colour]]:
        """Points well inside of each half, and the colour there."""
        width, height = self.size
        second = (10, height - 10) if self.standing else (width - 10, 10)
        return [((10, 10), self.first), (second, self.second)]


def _halves(mode: str, first: Any, second: Any) -> Pillow.Image:
    picture = Pillow.new(mode, (WIDTH, HEIGHT), first)
    picture.paste(second, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def _encoded(picture: Pillow.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _grey(first: float, second: float, kind: str) -> Pillow.Image:
    values = np.full((HEIGHT, WIDTH), first, np.dtype(kind))
    values[:, WIDTH // 2 :] = second
    return Pillow.fromarray(values)


def _palette() -> Pillow.Image:
    picture = _halves("P", 0, 1)
    picture.putpalette([*RED, 0, 0, 0])
    return picture


def _rgb16() -> bytes:
    """Pillow writes none: 0xFF00 0x80FF 0x0001 and white."""
    row = struct.pack(">3H", 0xFF00, 0x80FF, 0x0001) * (WIDTH // 2) + b"\xff" * 6 * (WIDTH // 2)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + row) * HEIGHT)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _turned() -> bytes:
    tags = Pillow.Exif()
    tags[0x0112] = 6
    return _encoded(_halves("RGB", RED, WHITE), "JPEG", exif=tags, quality=95)


def _mpo() -> bytes:
    second = Pillow.new("RGB", (WIDTH, HEIGHT), "lime")
    return _encoded(_halves("RGB", RED, WHITE), "MPO", save_all=True, append_images=[second], quality=95)


_MOVING = {"save_all": True, "append_images": [Pillow.new("RGB", (WIDTH, HEIGHT), "lime")]}

ODD_PICTURES: dict[str, OddPicture] = {
    "RGBA": OddPicture(_encoded(_halves("RGBA", (*RED, 255), (0, 0, 0, 0))), RED, WHITE),
    "grey and alpha": OddPicture(_encoded(_halves("LA", (9, 255), (0, 0))), (9, 9, 9), WHITE),
    "palette with transparency": OddPicture(_encoded(_palette(), transparency=b"\xff\x00"), RED, WHITE),
    "palette with one transparent colour": OddPicture(_encoded(_palette(), transparency=1), RED, WHITE),
    "RGB with a transparent colour": OddPicture(
        _encoded(_halves("RGB", RED, (0, 0, 255)), transparency=(0, 0, 255)), RED, WHITE
    ),
    "16 bit grey": OddPicture(_encoded(_grey(0x8000, 0xFFFF, "<u2")), (128, 128, 128), WHITE),
    "16 bit grey, low values": OddPicture(_encoded(_grey(0x0100, 0x4000, "<u2")), (1, 1, 1), (64, 64, 64)),
    "16 bit grey TIFF": OddPicture(
        _encoded(_grey(0x8000, 0xFFFF, ">u2"), "TIFF"), (128, 128, 128), WHITE, "image/tiff"
    ),
    "16 bit RGB": OddPicture(_rgb16(), (255, 128, 0), WHITE),
    "float TIFF": OddPicture(_encoded(_grey(0.5, 1.0, "<f4"), "TIFF"), (127, 127, 127), WHITE, "image/tiff"),
    "CMYK JPEG": OddPicture(
        _encoded(_halves("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)), "JPEG", quality=95), RED, WHITE, "image/jpeg"
    ),
    "EXIF-rotated JPEG": OddPicture(_turned(), RED, WHITE, "image/jpeg", standing=True),
    "MPO": OddPicture(_mpo(), RED, WHITE, "image/jpeg"),
    "moving GIF": OddPicture(_encoded(_halves("RGB", RED, WHITE), "GIF", **_MOVING), RED, WHITE, "image/gif"),
    "WebP with alpha": OddPicture(
        _encoded(_halves("RGBA", (*RED, 255), (0, 0, 0, 0)), "WEBP", lossless=True), RED, WHITE, "image/webp"
    ),
    "1 bit": OddPicture(_encoded(_halves("1", 0, 1)), (0, 0, 0), WHITE),
}
