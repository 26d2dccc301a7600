"""`Image`: encoded bytes with their hash and size. Everything that crosses a process or a file is this.

Decoding is where untrusted bytes meet a C library, so it happens in one place, behind limits.
"""

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.cache import BoundedCache
from thinkimg.decoding import TooMuchWork, check_parts, check_scanned, check_tiles, scans

MAX_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 64 * 1000 * 1000
LONGEST_STRIP = 200
"""Longer side to shorter side: what image processors of the Qwen-VL kind accept at most."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MEDIA_TYPES = {"MPO": "image/jpeg"}
"""MPO is Pillow's name for a JPEG with further pictures behind the first, as phones make them; the first one counts."""
_TURN = Pillow.Transpose
_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, Pillow.DecompressionBombError)
"""What Pillow raises for data that is not what it says."""


_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]{1,40}")


def is_sha256(text: Any) -> bool:
    """64 hex digits, lower case."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


class ImageDecodeError(ValueError):
    """The bytes are not an image we accept; the message says why (format, size, broken data)."""


@dataclass(frozen=True)
class Image:
    """An encoded picture.

    Attributes:
        data: the file's bytes, as they came (or PNG, when made from pixels).
        sha256: hex digest of `data`; the image's identity everywhere.
        width, height: pixels, after the EXIF rotation is applied.
        media_type: such as `image/png`.
        holder: for whom it is held, where several callers must not learn of each other's pictures, also not by how soon
            an answer comes. No part of the identity.
    """

    data: bytes = field(repr=False)
    sha256: str
    width: int
    height: int
    media_type: str
    holder: str = field(default="", repr=False, compare=False)

    def held_for(self, holder: str) -> "Image":
        """The same picture of another holder; the bytes are not copied."""
        return self if holder == self.holder else replace(self, holder=holder)

    @property
    def kept_as(self) -> tuple[str, str]:
        """The key of whatever is kept of it to save work: pixels, texts, embeddings."""
        return self.holder, self.sha256

    @classmethod
    def from_bytes(cls, data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> "Image":
        """Check the header of `data`; pixels are decoded only by `pixels`.

        Raises:
            ImageDecodeError: not an image, a format outside `FORMATS`, larger than the limits, or more work than its
                size says (`thinkimg.decoding`).
        """
        if len(data) > max_bytes:
            raise ImageDecodeError(f"the image has {len(data):,} bytes; at most {max_bytes:,} are accepted")
        try:
            with _opened(data) as opened:
                width, height = opened.size
                if not 0 < width * height <= max_pixels:
                    raise ImageDecodeError(
                        f"the image has {width}x{height} pixels; at most {max_pixels:,} are accepted"
                    )
                if _orientation(opened) >= 5:  # orientations 5-8 swap the sides
                    width, height = height, width
                form = opened.format or "PNG"
                media_type = _MEDIA_TYPES.get(form, Pillow.MIME[form])
        except ImageDecodeError:
            raise
        except _BROKEN as error:
            reason = _reason(error)
            raise ImageDecodeError(f"not a readable image ({', '.join(FORMATS)} are accepted){reason}") from error
        return cls(data, hashlib.sha256(data).hexdigest(), width, height, media_type)

    @classmethod
    def from_reference(cls, reference: Mapping[str, Any], data: bytes = b"") -> "Image":
        """What a record says of a picture, without its bytes unless they are given. The record may be somebody else's,
        and names of files are made of it.

        Raises:
            ValueError: its `sha256` is not 64 hex digits, or another member is not what it must be.
        """
        sha256, media_type = reference.get("sha256"), reference.get("media_type")
        width, height = reference.get("width"), reference.get("height")
        if not isinstance(sha256, str) or not is_sha256(sha256):
            raise ValueError(f"a picture's sha256 must be 64 hex digits, not {str(sha256)[:80]!r}")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise ValueError(f"a picture's media_type must be such as image/png, not {str(media_type)[:80]!r}")
        if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
            raise ValueError(f"a picture's width and height must be pixels, not {str((width, height))[:80]}")
        return cls(data, sha256, width, height, media_type)

    @classmethod
    def from_pixels(cls, pixels: Pillow.Image) -> "Image":
        """Encode as PNG: lossless, so that a tool's output is the same pixels on every machine."""
        data = _png(pixels)
        return cls(data, hashlib.sha256(data).hexdigest(), pixels.width, pixels.height, "image/png")

    @classmethod
    def from_pillow(cls, picture: Pillow.Image) -> "Image":
        """A picture that somebody else has opened, by the same rules as `pixels`: what it shows is what the file would
        show. Made for data sets whose pictures come decoded; where the file's bytes can be had, take those.

        Raises:
            ImageDecodeError: its data is broken, or it is larger than `MAX_PIXELS`.
        """
        if not 0 < picture.width * picture.height <= MAX_PIXELS:
            raise ImageDecodeError(
                f"the image has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS:,} are accepted"
            )
        try:
            return cls.from_pixels(_as_seen(picture))
        except ImageDecodeError:
            raise
        except _BROKEN as error:
            raise ImageDecodeError(f"the image data is broken{_reason(error)}") from error

    @classmethod
    def from_file(cls, path: str | Path) -> "Image":
        """Raises `ImageDecodeError` for an unreadable picture, `OSError` for an unreadable file."""
        return cls.from_bytes(Path(path).read_bytes())

    @property
    def too_thin(self) -> bool:
        """Whether image processors of the Qwen-VL kind refuse its shape (`LONGEST_STRIP`)."""
        return max(self.width, self.height) > LONGEST_STRIP * min(self.width, self.height)

    def pixels(self) -> Pillow.Image:
        """The decoded picture: mode RGB, EXIF rotation applied, transparency laid on white, 16 bit scaled to 8.

        A copy of the caller's own. Where `keep_decoded_pictures` was called, pictures that were decoded lately are not
        decoded again.

        Raises:
            ImageDecodeError: the data is broken behind a good header.
        """
        return _decoded.get_or_make(self.kept_as, self._decode, _size, self.holder).copy()

    def _decode(self) -> Pillow.Image:
        try:
            with _opened(self.data) as opened:
                return _as_seen(opened, bits=self.data[24] if self.data.startswith(_PNG) else 8)
        except ImageDecodeError:
            raise
        except _BROKEN as error:
            raise ImageDecodeError(f"the image data is broken{_reason(error)}") from error

    def as_sent(self) -> "Image":
        """The picture as endpoints take it, and as `pixels` shows it: itself where it is a PNG or JPEG that every
        decoder reads alike, else encoded anew (PNG; JPEG where it was one, or where a PNG would be too large). Other
        kinds are refused by some endpoints (BMP, TIFF, GIF) or dropped without a word (WebP), and transparency, 16
        bits, and EXIF rotation are seen otherwise by some.

        Raises:
            ImageDecodeError: the data is broken behind a good header.
        """
        return _sent.get_or_make(self.kept_as, self._encode_for_sending, lambda image: len(image.data), self.holder)

    def _encode_for_sending(self) -> "Image":
        try:
            with _opened(self.data) as opened:
                plain, lossy = _is_plain(opened, self.data), opened.format in ("JPEG", "MPO")
                seen = _as_seen(opened, bits=self.data[24] if self.data.startswith(_PNG) else 8)
        except ImageDecodeError:
            raise
        except _BROKEN as error:
            raise ImageDecodeError(f"the image data is broken{_reason(error)}") from error
        if plain:
            return self
        if not lossy and len((made := Image.from_pixels(seen)).data) <= _MOST_SENT:
            return made
        buffer = io.BytesIO()
        seen.save(buffer, "JPEG", quality=95, subsampling=0)
        data = buffer.getvalue()
        return Image(data, hashlib.sha256(data).hexdigest(), seen.width, seen.height, "image/jpeg")

    @property
    def suffix(self) -> str:
        """File name ending, with the dot."""
        return "." + self.media_type.rpartition("/")[2].replace("jpeg", "jpg")


@contextmanager
def _opened(data: bytes) -> Iterator[Pillow.Image]:
    """The picture before its pixels are decoded, once it is known that this is not too much work.

    Raises:
        ImageDecodeError: it is too much.
        Any of `_BROKEN`.
    """
    try:
        check_parts(data)
        passes = scans(data)
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as opened:
            if passes > 1:
                check_scanned(passes, *opened.size)
            if opened.format == "TIFF":
                check_tiles(opened.tag_v2, *opened.size, len(data))  # type: ignore[attr-defined]
            yield opened
    except TooMuchWork as error:
        raise ImageDecodeError(str(error)) from error


def _reason(error: Exception) -> str:
    """What Pillow says, unless it names our buffer and where that lies."""
    return "" if isinstance(error, Pillow.UnidentifiedImageError) or "object at 0x" in str(error) else f": {error}"


def _as_seen(opened: Pillow.Image, bits: int = 8) -> Pillow.Image:
    """Mode RGB, EXIF rotation applied, transparency laid on white, 16 bit scaled to 8.

    Args:
        bits: of a sample, as a PNG's header has them; the colour that it declares transparent is in these.
    """
    orientation = _orientation(opened)  # before `load`, so that size and picture follow the same header
    opened.load()
    picture = opened.transpose(_TURNS[orientation]) if orientation in _TURNS else opened.copy()
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey(picture, _PNG_WHITE if opened.format == "PNG" else None)
    if opened.format == "TIFF":
        _refuse_lost_bits(opened)
    if picture.mode in ("1", "L", "RGB"):
        key = picture.info.pop("transparency", None)
        picture = picture.convert("RGB")
        return picture if key is None else _without_colour(picture, key, bits)
    if picture.has_transparency_data:
        picture = picture.convert("LA").convert("RGBA") if picture.mode == "La" else picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


_PNG_WHITE = 65535.0
_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Of floats, and of 8 to 16 bits of which a file says no more than that they are stored in 16 or 32."""


def _grey(picture: Pillow.Image, white: float | None) -> Pillow.Image:
    """A picture of one channel with more than 8 bits.

    Args:
        white: its value; None: the file's format does not say. Then it is the one of `_WHITES` that the largest value
            calls for; where there is none, or all would be dark, the values are spread over the whole range.
    """
    values = np.asarray(picture, dtype=np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    black = 0.0
    if white is None:
        white = next((one for one in _WHITES if high <= one), None)
        if white is None or low < 0 or high < white / 4:
            black, white = min(low, high), high
    scaled = (np.nan_to_num(values, nan=black) - black) * (255.0 / (white - black) if white > black else 0.0)
    grey = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        grey = np.where(values == key, np.uint8(255), grey)
    return Pillow.fromarray(grey, "L").convert("RGB")


_BITS_PER_SAMPLE = 258
"""A TIFF's tag."""


def _refuse_lost_bits(opened: Pillow.Image) -> None:
    """Pillow keeps the upper 8 of a colour's 16 bits: of 12 bits that are stored in 16 nearly nothing is left."""
    bits = opened.tag_v2.get(_BITS_PER_SAMPLE, ())  # type: ignore[attr-defined]
    if max(bits, default=8) > 8 and 0 < int(np.asarray(opened.convert("RGB")).max()) < 16:
        raise ImageDecodeError("a TIFF whose colours have 16 bits and use 12 or fewer: save it with 8 bits")


def _without_colour(picture: Pillow.Image, key: int | tuple[int, ...], bits: int) -> Pillow.Image:
    """`picture`, white where it has the colour that its file declares transparent (`key`, in samples of the file)."""
    samples = key if isinstance(key, tuple) else (key,) * 3
    bits = 16 if max(samples) > 255 else bits
    scale: Callable[[int], int] = (
        (lambda value: value >> 8) if bits == 16 else (lambda value: value * 255 // ((1 << bits) - 1))
    )
    pixels = np.array(picture)
    pixels[(pixels == [scale(sample) for sample in samples]).all(axis=2)] = 255
    return Pillow.fromarray(pixels)


def _is_plain(opened: Pillow.Image, data: bytes) -> bool:
    """Whether every decoder sees what `_as_seen` does."""
    if _orientation(opened) != 1 or (getattr(opened, "is_animated", False) and opened.format != "MPO"):
        return False
    if opened.format in ("JPEG", "MPO"):
        return opened.mode in ("L", "RGB")
    return opened.format == "PNG" and data[24] <= 8 and not opened.has_transparency_data


_MOST_SENT = 3_700_000
"""Bytes of a picture that is encoded anew: base64 adds a third, and some endpoints take at most 5 MB."""
_LARGEST_SHARE = 0.25
"""Of the bound, that one decoded picture may take."""
_sent: "BoundedCache[tuple[str, str], Image]" = BoundedCache(128 * 1024 * 1024, largest=_LARGEST_SHARE, fair=True)
_decoded: BoundedCache[tuple[str, str], Pillow.Image] = BoundedCache(0, largest=_LARGEST_SHARE, fair=True)


def keep_decoded_pictures(max_bytes: int) -> None:
    """Let this process keep pixels of pictures: tools look at one picture many times.

    Pictures are the process's, whoever asks for them: of several bounds the widest counts.
    """
    _decoded.widen(max_bytes)


def _size(picture: Pillow.Image) -> int:
    return 3 * picture.width * picture.height


def _png(pixels: Pillow.Image) -> bytes:
    """Pillow tries every filter on every row, which costs twice as much as compressing. Here each row is stored as its
    difference from the one above, which suits drawn pictures: a third of the time, and files as small."""
    if pixels.mode != "RGB":
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    width, height = pixels.size
    rows = np.asarray(pixels).reshape(height, 3 * width)
    filtered = np.empty((height, 3 * width + 1), np.uint8)
    filtered[:, 0] = _PNG_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.data, 1)), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_UP, _PNG_RGB = 2, 2
"""Of the PNG specification: the filter that subtracts the row above, and the colour type without palette or alpha."""


def _orientation(opened: Pillow.Image) -> int:
    """EXIF orientation, 1 to 8, from the header alone: no pixel is decoded for it. Broken EXIF data counts as none."""
    if opened.format == "TIFF":  # Pillow applies a TIFF's own: the size it gives is already the turned one
        return 1
    if opened.format == "PNG" and "exif" not in opened.info:  # Pillow would decode all pixels to look behind them
        return 1
    try:
        orientation = opened.getexif().get(0x0112, 1)
    except (*_BROKEN, TypeError, KeyError):
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def handle(number: int) -> str:
    """The name by which model and tools call the `number`-th image (from 1): `img_1`."""
    return f"img_{number}"
