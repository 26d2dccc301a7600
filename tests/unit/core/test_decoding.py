"""A picture that would take minutes is refused by what its bytes say, before a decoder sees it; ordinary ones pass."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from thinkimg.decoding import (
    MOST_PARTS,
    MOST_RUN_LENGTH_BYTES,
    MOST_SCANNED_PIXELS,
    MOST_SCANS,
    TooMuchWork,
    check_parts,
    check_tiles,
    scans,
)
from thinkimg.image import MAX_BYTES, MAX_PIXELS, Image, ImageDecodeError

SIDE = 8000


def noise(width: int = 64, height: int = 48) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def encoded(picture: Pillow.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def segment(kind: int, body: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body


def of_empty_scans(count: int, side: int = SIDE, between: bytes = b"") -> bytes:
    """A progressive grey JPEG whose `count` scans say nothing, in ten bytes each."""
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    head += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    head += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    head += segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + b"\0" * (side * side // 512 + 2)
    return head + (between + segment(0xDA, b"\x01\x01\x00\x01\x3f\x00")) * (count - 1) + b"\xff\xd9"


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a picture fails the test: the refusal comes before."""

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(Pillow, "open", opened)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("between", [b"", b"\xff\xd0", b"\xff\xff\xff", b"\xff\x00\x00", segment(0xFE, b"words")])
def test_a_jpeg_of_a_thousand_empty_scans_is_refused_by_their_number(between: bytes) -> None:
    with pytest.raises(ImageDecodeError, match=r"has 1,000 scans; at most 100 are decoded\. Save it anew"):
        Image.from_bytes(of_empty_scans(1000, between=between))


@pytest.mark.usefixtures("no_decoder")
def test_so_is_one_of_which_only_a_record_was_read() -> None:
    kept = {"sha256": "0" * 64, "media_type": "image/jpeg", "width": SIDE, "height": SIDE}
    with pytest.raises(ImageDecodeError, match="has 1,000 scans"):
        Image.from_reference(kept, of_empty_scans(1000)).pixels()


def test_scans_of_a_large_picture_are_fewer() -> None:
    most = MOST_SCANNED_PIXELS // SIDE**2
    with pytest.raises(ImageDecodeError, match=f"{most + 1} scans of 8000x8000 pixels; at most {most} are decoded"):
        Image.from_bytes(of_empty_scans(most + 1))
    assert Image.from_bytes(of_empty_scans(most)).width == SIDE
    assert most >= 10, "a progressive JPEG of ordinary software has ten"
    assert MAX_PIXELS * 10 <= MOST_SCANNED_PIXELS


def test_what_is_at_the_bound_is_decoded() -> None:
    picture = Image.from_bytes(of_empty_scans(MOST_SCANS, side=64))
    assert picture.pixels().size == (64, 64)
    with pytest.raises(ImageDecodeError, match="101 scans"):
        Image.from_bytes(of_empty_scans(MOST_SCANS + 1, side=64))


def test_an_ordinary_progressive_jpeg_has_ten_scans_and_the_pixels_that_pillow_sees() -> None:
    data = encoded(noise(), "JPEG", progressive=True)
    assert scans(data) == 10
    seen = Image.from_bytes(data).pixels()
    assert np.array_equal(np.asarray(seen), np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")))


def test_scans_of_thumbnails_and_of_further_pictures_are_none_of_the_first() -> None:
    inner = of_empty_scans(300, side=64)
    data = encoded(noise(), "JPEG")
    with_thumbnail = data[:2] + segment(0xE1, b"Exif\0\0" + inner) + data[2:]
    assert scans(with_thumbnail) == scans(data + inner) == 1
    assert Image.from_bytes(with_thumbnail).pixels().size == Image.from_bytes(data + inner).pixels().size == (64, 48)


def test_a_jpeg_with_restarts_is_one_scan() -> None:
    assert scans(encoded(noise(), "JPEG", restart_marker_blocks=1)) == 1


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_parts(format: str, count: int) -> bytes:
    data = encoded(noise(), format)
    if format == "JPEG":
        return data[:2] + segment(0xFE, b"") * count + data[2:]
    if format == "PNG":
        return data[:33] + chunk(b"tEXt", b"a\0b") * count + data[33:]
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + b"\x21\xf0\x01a\x00" * count + data[start:]


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_files_of_very_many_parts_are_refused(format: str) -> None:
    with pytest.raises(ImageDecodeError, match=r"too many (segments|chunks|blocks).*; at most 20,000 are decoded"):
        Image.from_bytes(with_parts(format, MOST_PARTS + 1))


@pytest.mark.usefixtures("no_decoder")
def test_so_are_segments_between_scans() -> None:
    with pytest.raises(ImageDecodeError, match="too many segments"):
        Image.from_bytes(of_empty_scans(3, side=64, between=segment(0xFE, b"") * MOST_PARTS))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_files_of_many_parts_are_decoded(format: str) -> None:
    assert Image.from_bytes(with_parts(format, 5000)).pixels().size == (64, 48)


@pytest.mark.usefixtures("no_decoder")
def test_long_run_lengths_are_refused() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, 0, 0, 0, 256, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024)
    check_parts(data + b"\x01\x00" * 1000)
    with pytest.raises(ImageDecodeError, match="bytes of run lengths"):
        Image.from_bytes(data + b"\x01\x00" * MOST_RUN_LENGTH_BYTES)


def test_a_plain_bmp_of_any_size_is_decoded() -> None:
    data = encoded(noise(1000, 800), "BMP")
    assert len(data) > MOST_RUN_LENGTH_BYTES
    assert Image.from_bytes(data).pixels().size == (1000, 800)


def test_tiles_far_larger_than_their_picture_and_strips_that_share_bytes_are_refused() -> None:
    with pytest.raises(TooMuchWork, match=r"tiles hold 1,024,000,000 pixels; at most 256,000,000"):
        check_tiles({322: 16, 323: 16}, 1, 64_000_000, MAX_BYTES)
    with pytest.raises(TooMuchWork, match=r"said to have 10,000,000 bytes; at most 400,000"):
        check_tiles({279: (100_000,) * 100}, 1000, 100, 100_000)
    check_tiles({322: 1024, 323: 512, 325: 900}, 10, 10, 1000)  # a small picture in one large tile
    check_tiles({322: "wide", 279: (0.5, "long", None)}, 10, 10, 1000)  # broken: the decoder says so


def test_a_tiff_whose_strips_share_their_bytes_is_refused() -> None:
    data = bytearray(encoded(noise(64, 400), "TIFF", compression="tiff_lzw", tiffinfo={278: 1}))
    tags = Pillow.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]
    counts = tags[279]
    assert len(counts) == 400
    assert Image.from_bytes(bytes(data)).pixels().size == (64, 400)
    form = next(form for form in ("<400H", "<400I") if data.count(struct.pack(form, *counts)) == 1)
    at = data.index(struct.pack(form, *counts))
    data[at : at + struct.calcsize(form)] = struct.pack(form, *[60_000] * 400)
    with pytest.raises(ImageDecodeError, match=r"parts are said to have 24,000,000 bytes"):
        Image.from_bytes(bytes(data))
