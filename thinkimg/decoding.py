"""How much work a picture is, found in its bytes before a decoder sees them: a few bytes of a file can ask for minutes.

What is measured is what decoders repeat: passes over all pixels (scans), and parts that are read one by one. A picture
of ordinary software is far below each bound, so that what is refused was made to be slow, and its remedy is to save it
anew.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

MOST_SCANS = 100
"""Of a JPEG; a progressive one of ordinary software has 10."""
MOST_SCANNED_PIXELS = 1_280_000_000
"""Scans x pixels: 20 scans of the largest picture that is accepted."""
MOST_PARTS = 20_000
"""Segments (JPEG), chunks (PNG) or blocks (GIF) that are read one by one in Python: some 0.1 s."""
MOST_RUN_LENGTH_BYTES = 2 * 1024 * 1024
"""Of a BMP with run lengths, which Pillow reads run by run in Python."""
MOST_TILED = 4
"""Pixels that a TIFF's tiles hold, to the pixels of the picture; and bytes that its strips and tiles are said to have,
to the bytes of the file. More than a few times as many is the same data decoded again and again."""
_SMALL_TILES = 1_000_000
"""Pixels in tiles that are no matter, whatever the picture's size: a small picture may lie in one large tile."""

_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])")
"""Of a JPEG, but those that stand alone between or within scans."""
_START_OF_SCAN, _START, _END = 0xDA, 0xD8, 0xD9
_PNG = b"\x89PNG\r\n\x1a\n"
_GIF_EXTENSION, _GIF_COMMENT = 0x21, b"\xfe"
_RUN_LENGTHS = (1, 2)
"""A BMP's kinds of compression."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_BYTE_COUNTS = (279, 325)
"""A TIFF's tags: of strips, of tiles."""


class TooMuchWork(ValueError):
    """Decoding would take far longer than the picture's size says; the message has count, bound and remedy."""


def scans(data: bytes) -> int:
    """How often a decoder goes over the picture: scans of a JPEG, 1 for all others. Only markers are read, and they are
    followed one by one only where there may be many: thumbnails and further pictures hold some of their own.

    Raises:
        TooMuchWork: more than `MOST_SCANS`.
    """
    if not data.startswith(b"\xff\xd8") or data.count(_SCAN) <= 1:
        return 1
    kinds = list(islice(_markers(data), MOST_PARTS + 1))
    if len(kinds) > MOST_PARTS:
        raise _refusal("the file has too many segments", MOST_PARTS)
    if (found := kinds.count(_START_OF_SCAN)) > MOST_SCANS:
        raise _refusal(f"the JPEG has {found:,} scans", MOST_SCANS)
    return max(1, found)


def check_parts(data: bytes) -> None:
    """Raises `TooMuchWork` for a file of more parts than any picture needs."""
    if data.startswith(b"\xff\xd8"):
        parts, name = _before_scans(data), "segments"
    elif data.startswith(_PNG):
        parts, name = _chunks(data), "chunks"
    elif data.startswith(b"GIF8"):
        parts, name = _blocks(data), "blocks before its first frame"
    else:
        _check_run_lengths(data)
        return
    if next(islice(parts, MOST_PARTS, None), None) is not None:
        raise _refusal(f"the file has too many {name}", MOST_PARTS)


def check_scanned(passes: int, width: int, height: int) -> None:
    """Raises `TooMuchWork` where so many scans are too many for a picture of this size."""
    if passes * width * height > MOST_SCANNED_PIXELS:
        most = MOST_SCANNED_PIXELS // (width * height)
        raise _refusal(f"the JPEG has {passes:,} scans of {width}x{height} pixels", most)


def check_tiles(tags: Mapping[int, Any], width: int, height: int, size: int) -> None:
    """Of a TIFF's first picture.

    Args:
        tags: its directory.
        size: bytes of the file.

    Raises:
        TooMuchWork: its tiles hold far more than the picture, or its strips share their bytes.
    """
    across, down = (sum(_whole(tags.get(tag))) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if across > 0 and down > 0:
        held = (-(-width // across) * across) * (-(-height // down) * down)
        if held > max(_SMALL_TILES, MOST_TILED * width * height):
            raise _refusal(f"the TIFF's tiles hold {held:,} pixels", max(_SMALL_TILES, MOST_TILED * width * height))
    for tag in _BYTE_COUNTS:
        if (said := sum(_whole(tags.get(tag)))) > MOST_TILED * size:
            raise _refusal(f"the TIFF's parts are said to have {said:,} bytes", MOST_TILED * size)


def _whole(value: object) -> Iterator[int]:
    """The whole numbers of a tag: what else it may hold, decoders do not take for sizes."""
    values = value if isinstance(value, tuple | bytes) else (value,)
    return (one for one in values if isinstance(one, int))


def _refusal(found: str, most: int) -> TooMuchWork:
    return TooMuchWork(f"{found}; at most {most:,} are decoded. Save it anew, as PNG or baseline JPEG")


def _markers(data: bytes) -> Iterator[int]:
    """Kinds of a JPEG's segments, as libjpeg follows them: what lies inside of a segment is skipped by its length, and
    what lies between a scan's header and the next marker is the scan's data."""
    at = 2
    while found := _MARKER.search(data, at):
        kind, at = found[1][0], found.end()
        if kind == _END:
            return
        yield kind
        if kind != _START:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))


def _before_scans(data: bytes) -> Iterator[int]:
    """Up to the first scan Pillow reads segments itself."""
    for kind in _markers(data):
        if kind == _START_OF_SCAN:
            return
        yield kind


def _chunks(data: bytes) -> Iterator[int]:
    if len(data) <= 12 * MOST_PARTS:  # a chunk takes 12 bytes at least
        return
    at = len(_PNG)
    while at < len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _blocks(data: bytes) -> Iterator[int]:
    if len(data) <= 2 * MOST_PARTS:
        return
    flags = data[10]
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    while at < len(data) and data[at] != 0x2C:
        yield at
        if data[at] != _GIF_EXTENSION:  # Pillow skips single bytes that it does not know
            at += 1
            continue
        comment = data[at + 1 : at + 2] == _GIF_COMMENT
        at += 2
        # Pillow takes an empty first block for none, and reads on to the next end.
        if data[at : at + 1] == b"\0" and not comment:
            at += 1
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1


def _check_run_lengths(data: bytes) -> None:
    if len(data) <= MOST_RUN_LENGTH_BYTES or not data.startswith(b"BM") or data[14:18] < b"\x28\0\0\0":
        return
    if int.from_bytes(data[30:34], "little") in _RUN_LENGTHS:
        raise _refusal(f"the BMP has {len(data):,} bytes of run lengths", MOST_RUN_LENGTH_BYTES)
