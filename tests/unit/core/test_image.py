"""Untrusted bytes become pictures, or a refusal that says why; nothing is decoded before its size is known."""

import io
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from tests.support.data.odd_pictures import ODD_PICTURES, OddPicture
from thinkimg import image as image_module
from thinkimg.cache import BoundedCache
from thinkimg.image import MAX_PIXELS, Image, ImageDecodeError, handle, keep_decoded_pictures

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of what these files are on purpose

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def encoded(picture: Pillow.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG made by hand: header, the given chunks, end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def exif(orientation: int) -> Pillow.Exif:
    made = Pillow.Exif()
    made[0x0112] = orientation
    return made


def flag(width: int = 6, height: int = 4) -> Pillow.Image:
    """White with a red corner and a blue one: no rotation or reflection leaves it as it is."""
    picture = Pillow.new("RGB", (width, height), WHITE)
    picture.putpixel((0, 0), RED)
    picture.putpixel((width - 1, 0), BLUE)
    return picture


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_accepted_format_opens_with_its_size_and_type(format: str) -> None:
    image = Image.from_bytes(encoded(Pillow.new("RGB", (7, 5), RED), format))
    assert (image.width, image.height) == (7, 5)
    assert image.media_type == f"image/{format.lower()}"
    assert image.suffix == {"JPEG": ".jpg"}.get(format, f".{format.lower()}")
    assert image.pixels().mode == "RGB"
    assert all(abs(a - b) < 3 for a, b in zip(image.pixels().getpixel((3, 3)), RED, strict=True))


def test_a_palette_gives_its_colours() -> None:
    picture = flag().convert("P", palette=Pillow.Palette.ADAPTIVE)
    assert picture.mode == "P"
    assert Image.from_bytes(encoded(picture)).pixels().tobytes() == flag().tobytes()


def test_a_transparent_palette_entry_is_white() -> None:
    picture = Pillow.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    pixels = Image.from_bytes(encoded(picture, transparency=0)).pixels()
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [WHITE, BLUE]


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), WHITE),
        ("LA", (9, 255), (9, 9, 9)),
        ("1", 1, WHITE),
        ("L", 77, (77, 77, 77)),
    ],
)
def test_transparency_is_laid_on_white_and_grey_becomes_rgb(mode: str, colour: Any, seen: tuple[int, ...]) -> None:
    pixels = Image.from_bytes(encoded(Pillow.new(mode, (3, 3), colour))).pixels()
    assert pixels.mode == "RGB"
    assert pixels.getpixel((1, 1)) == seen


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "seen"), [(0, 0), (256, 1), (32768, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_to_eight(format: str, value: int, seen: int) -> None:
    picture = Pillow.new("I;16", (3, 2), value)
    picture.putpixel((0, 0), 65535)  # of a TIFF only the largest value says how many bits are used
    assert Image.from_bytes(encoded(picture, format)).pixels().getpixel((2, 1)) == (seen, seen, seen)


@pytest.mark.parametrize(
    ("kind", "dark", "light", "seen"),
    [
        ("<u2", 1000, 4095, (62, 255)),  # 12 bits in 16
        ("<u2", 300, 1023, (75, 255)),
        ("<u2", 100, 250, (100, 250)),  # 8 bits in 16
        ("<u2", 0, 1, (0, 255)),  # a mask
        ("<u2", 1, 5, (0, 255)),
        ("<i4", 100, 200, (100, 200)),
        ("<i4", 10_000, 60_000, (39, 233)),
        ("<i4", 70_000, 90_000, (0, 255)),
        ("<i4", -500, 500, (0, 255)),
        ("<i2", -30, 30, (0, 255)),
        ("<f4", 0.25, 1.0, (64, 255)),
        ("<f4", 25.0, 255.0, (25, 255)),
        ("<f4", 0.0, 0.001, (0, 255)),
        ("<f4", 300.0, 1200.0, (19, 75)),  # metres above the sea
        ("<f4", -1.0, 1.0, (0, 255)),
        ("<f4", 1e30, 3e38, (0, 255)),
        ("<f4", float("nan"), 0.5, (0, 128)),
        ("<f4", float("inf"), 0.5, (255, 128)),
    ],
)
def test_a_tiff_of_many_bits_is_never_black(kind: str, dark: float, light: float, seen: tuple[int, int]) -> None:
    values = np.full((4, 6), dark, np.dtype(kind))
    values[:, 3:] = light
    pixels = Image.from_bytes(encoded(Pillow.fromarray(values), "TIFF")).pixels()
    assert (pixels.getpixel((1, 1)), pixels.getpixel((4, 1))) == tuple((one,) * 3 for one in seen)


@pytest.mark.parametrize(("largest", "refused"), [(4095, True), (65535, False)])
def test_a_coloured_tiff_of_12_bits_in_16_is_refused_by_name(largest: int, refused: bool) -> None:
    """Pillow writes none."""
    strip = struct.pack("<3H", largest, 0, 0) * 4
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 0), (259, 3, 1), (262, 3, 2), (273, 4, 0), (277, 3, 3), (278, 3, 2),
            (279, 4, len(strip))]  # fmt: skip
    after = 8 + 2 + 12 * len(tags) + 4
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, value in tags:
        count, value = (3, after) if tag == 258 else (1, after + 6 if tag == 273 else value)
        data += struct.pack("<HHII", tag, kind, count, value)
    data += struct.pack("<I3H", 0, 16, 16, 16) + strip
    if refused:
        with pytest.raises(ImageDecodeError, match="a TIFF whose colours have 16 bits and use 12 or fewer"):
            Image.from_bytes(data).pixels()
    else:
        assert Image.from_bytes(data).pixels().getpixel((0, 0)) == RED


# ---- to endpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_what_every_decoder_reads_alike_is_sent_as_it_is(format: str) -> None:
    image = Image.from_bytes(encoded(flag(), format))
    assert image.as_sent() is image
    assert image.as_sent() is image, "and not decoded again"


@pytest.mark.parametrize("format", ["WEBP", "GIF", "BMP", "TIFF"])
def test_what_some_endpoints_refuse_is_sent_as_png(format: str) -> None:
    image = Image.from_bytes(encoded(flag(), format))
    sent = image.as_sent()
    assert sent.media_type == "image/png"
    assert sent.pixels().tobytes() == image.pixels().tobytes()


@pytest.mark.parametrize("odd", ODD_PICTURES.values(), ids=ODD_PICTURES)
def test_an_endpoint_sees_what_the_tools_see(odd: OddPicture) -> None:
    image = Image.from_bytes(odd.data)
    sent = image.as_sent()
    assert sent.media_type in ("image/png", "image/jpeg")
    with Pillow.open(io.BytesIO(sent.data)) as opened:
        plain = opened.convert("RGB")  # what a server does that knows of nothing else
    for place, colour in odd.places:
        seen = plain.getpixel(place)
        assert isinstance(seen, tuple)
        assert max(abs(a - b) for a, b in zip(seen, colour, strict=True)) <= 4


def test_phones_files_of_several_pictures_are_sent_byte_for_byte() -> None:
    sent = Image.from_bytes(ODD_PICTURES["MPO"].data).as_sent()
    assert sent.data == ODD_PICTURES["MPO"].data
    assert sent.media_type == "image/jpeg"


def test_a_large_photograph_is_sent_as_jpeg_and_upright() -> None:
    noise = Pillow.effect_noise((1600, 1600), 90).convert("RGB")
    for data in (encoded(noise, "BMP"), encoded(noise, "JPEG", exif=exif(6))):
        sent = Image.from_bytes(data).as_sent()
        assert sent.media_type == "image/jpeg"
        assert len(sent.data) < 5_000_000
        with Pillow.open(io.BytesIO(sent.data)) as opened:
            assert opened.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_truncated_file_is_not_sent(format: str) -> None:
    data = encoded(Pillow.effect_noise((64, 64), 90).convert("RGB"), format)
    with pytest.raises(ImageDecodeError):
        Image.from_bytes(data[: len(data) * 2 // 3]).as_sent()


def test_sixteen_bits_with_a_transparent_value_are_a_picture() -> None:
    rows = b"".join(b"\0" + struct.pack(">HH", 65535, 32768) for _ in range(2))
    data = png(2, 2, chunk(b"tRNS", struct.pack(">H", 65535)), chunk(b"IDAT", zlib.compress(rows)), depth=16, colour=0)
    pixels = Image.from_bytes(data).pixels()
    assert pixels.getpixel((0, 0)) == WHITE
    assert pixels.getpixel((1, 0)) == (128, 128, 128)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_and_the_size_agrees(format: str, orientation: int) -> None:
    tags = exif(orientation)
    big = flag().resize((48, 32), Pillow.Resampling.NEAREST)
    options: dict[str, Any] = {"exif": tags} | ({"quality": 100} if format != "TIFF" else {})
    image = Image.from_bytes(encoded(big, format, **options))
    pixels = image.pixels()
    tagged = big.copy()
    tagged.info["exif"] = tags.tobytes()
    wanted = ImageOps.exif_transpose(tagged)
    assert (image.width, image.height) == pixels.size == wanted.size
    x, y = wanted.width - 1, wanted.height - 1
    for corner in [(0, 0), (x, 0), (0, y), (x, y)]:
        difference = zip(pixels.getpixel(corner), wanted.getpixel(corner), strict=True)
        assert max(abs(a - b) for a, b in difference) < 60, f"{corner} of {format}"


def test_size_and_pixels_agree_when_a_png_hides_its_exif_behind_the_pixels() -> None:
    plain = encoded(flag(), "PNG")
    end = plain.rindex(struct.pack(">I", 0) + b"IEND")
    late = plain[:end] + chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + plain[end:]
    image = Image.from_bytes(late)
    assert (image.width, image.height) == image.pixels().size == (6, 4)


@pytest.mark.parametrize("broken", [b"", b"x", b"Exif\0\0", b"II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\0" * 40])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_counts_as_none(format: str, broken: bytes) -> None:
    image = Image.from_bytes(encoded(flag(), format, exif=broken))
    assert (image.width, image.height) == image.pixels().size == (6, 4)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_none(orientation: int) -> None:
    image = Image.from_bytes(encoded(flag(), "JPEG", exif=exif(orientation)))
    assert (image.width, image.height) == image.pixels().size == (6, 4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_looking_at_the_header_decodes_no_pixels(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(flag(600, 400), format)

    def load(self: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert Image.from_bytes(data).width == 600


@pytest.mark.parametrize("size", [(100_000, 1_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageDecodeError):
        Image.from_bytes(png(*size, chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"eXIf", b"II*\0")))


def test_the_limits_say_what_is_too_much() -> None:
    data = encoded(flag())
    assert Image.from_bytes(data, max_pixels=24).width == 6
    with pytest.raises(ImageDecodeError, match=r"^the image has 6x4 pixels; at most 23 are accepted"):
        Image.from_bytes(data, max_pixels=23)
    with pytest.raises(ImageDecodeError, match=r"^the image has \d+ bytes; at most 10 are accepted"):
        Image.from_bytes(data, max_bytes=10)
    assert MAX_PIXELS < Pillow.MAX_IMAGE_PIXELS, "Pillow's own limit would warn before ours speaks"


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%PDF-1.7",
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["empty", "text", "svg", "png-signature", "gif-signature", "pdf", "eps"],
)  # fmt: skip
def test_what_is_not_an_accepted_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageDecodeError, match="not a readable image"):
        Image.from_bytes(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_at_the_latest_when_its_pixels_are_wanted(format: str, share: float) -> None:
    data = encoded(Pillow.effect_noise((64, 48), 80).convert("RGB"), format)
    with pytest.raises(ImageDecodeError):
        Image.from_bytes(data[: int(len(data) * share)]).pixels()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_flipped_bytes_give_a_picture_or_a_refusal_never_a_crash(format: str, data: st.DataObject) -> None:
    original = bytearray(encoded(flag(8, 8), format, **({"exif": exif(6)} if format in ("PNG", "JPEG") else {})))
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = Image.from_bytes(bytes(original), max_pixels=10_000)
        assert image.pixels().size == (image.width, image.height)
    except ImageDecodeError:
        pass


def test_pixels_made_into_an_image_come_back_unchanged_and_have_one_hash() -> None:
    image = Image.from_pixels(flag())
    assert image.pixels().tobytes() == flag().tobytes()
    assert image == Image.from_pixels(flag()) == Image.from_bytes(image.data)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (256, 256), (2000, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_what_is_encoded_is_what_every_reader_of_png_sees(size: tuple[int, int], mode: str) -> None:
    pixels = Pillow.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1])).convert(mode)
    data = Image.from_pixels(pixels).data
    with Pillow.open(io.BytesIO(data)) as opened:
        opened.verify()
    with Pillow.open(io.BytesIO(data)) as opened:
        assert opened.convert(mode).tobytes() == pixels.tobytes()
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert seen.shape[:2] == (size[1], size[0])


def test_whoever_draws_on_pixels_draws_on_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_decoded", BoundedCache(10**6))
    image = Image.from_pixels(Pillow.new("RGB", (4, 4), "white"))
    first = image.pixels()
    first.putpixel((0, 0), (0, 0, 0))
    assert image.pixels().getpixel((0, 0)) == (255, 255, 255)
    assert image_module._decoded.get(image.kept_as) is not None


def kept_of(monkeypatch: pytest.MonkeyPatch, *bounds: int) -> BoundedCache[tuple[str, str], Pillow.Image]:
    """The process's decoded pictures, after so many asked it to keep them."""
    kept: BoundedCache[tuple[str, str], Pillow.Image] = BoundedCache(0, largest=image_module._LARGEST_SHARE)
    monkeypatch.setattr(image_module, "_decoded", kept)
    for bound in bounds:
        keep_decoded_pictures(bound)
    return kept


def plain(width: int, height: int, shade: int) -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), (shade, shade, shade)))


def test_decoded_pictures_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_of(monkeypatch, 3 * 100)
    images = [plain(5, 5, shade) for shade in range(7)]
    for image in images[:6]:
        image.pixels()
    assert [image.kept_as in kept for image in images] == [False, False, True, True, True, True, False]
    images[2].pixels()
    images[6].pixels()
    assert images[2].kept_as in kept
    assert images[3].kept_as not in kept
    large = plain(6, 5, 0)  # more than a quarter of the bound
    assert large.pixels().size == (6, 5)
    assert large.kept_as not in kept


def test_of_two_bounds_in_one_process_the_wider_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_of(monkeypatch, 3 * 100)
    image = plain(5, 5, 1)
    image.pixels()
    for later in (0, 3 * 50):
        keep_decoded_pictures(later)
    assert image.kept_as in kept
    assert kept.max_bytes == 3 * 100
    keep_decoded_pictures(3 * 200)
    assert kept.max_bytes == 3 * 200


def test_a_process_that_did_not_ask_keeps_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_of(monkeypatch)
    assert plain(5, 5, 1).pixels().size == (5, 5)
    assert len(kept) == 0


def test_threads_that_want_one_picture_decode_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_of(monkeypatch, 10**6)
    decoded = []
    decode = Image._decode
    everybody = threading.Barrier(8)

    def slowly(image: Image) -> Pillow.Image:
        decoded.append(image.sha256)
        time.sleep(0.05)
        return decode(image)

    def look(image: Image) -> bytes:
        everybody.wait()
        return image.pixels().tobytes()

    monkeypatch.setattr(Image, "_decode", slowly)
    image = plain(7, 3, 9)
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(look, [image] * 8))
    assert seen == {bytes([9]) * 63}
    assert decoded == [image.sha256]


def test_an_unreadable_file_is_an_error_of_the_file(tmp_path: Any) -> None:
    with pytest.raises(OSError, match="missing"):
        Image.from_file(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageDecodeError):
        Image.from_file(tmp_path / "text.png")


def test_handles_count_from_one() -> None:
    name: Callable[[int], str] = handle
    assert [name(number) for number in (1, 2, 10)] == ["img_1", "img_2", "img_10"]
