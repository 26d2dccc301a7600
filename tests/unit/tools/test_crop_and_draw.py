"""Crop and the line tools work on the source's own pixels, whatever its format."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.crop import box_to_percent, box_to_pixels
from thinkimg.tools.draw_line import COLORS
from thinkimg.tools.registry import load_tool

RED = COLORS[0]


def encoded(picture: Pillow.Image, form: str = "PNG", **options: object) -> Image:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return Image.from_bytes(buffer.getvalue())


def rotated_jpeg() -> Image:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return encoded(Pillow.new("RGB", (40, 20), "white"), "JPEG", exif=exif)


INPUTS = {
    "palette": encoded(Pillow.new("RGB", (31, 17), "white").quantize()),
    "alpha": encoded(Pillow.new("RGBA", (31, 17), (0, 0, 0, 0))),
    "16 bit": encoded(Pillow.fromarray(np.full((17, 31), 65535, np.uint16))),
    "gray": encoded(Pillow.new("L", (31, 17), 255)),
    "rotated": rotated_jpeg(),
}


def draw(image: Image, **arguments: float) -> np.ndarray:
    tool = load_tool("DrawHorizontalLineByY" if "y" in arguments else "DrawVerticalLineByX")
    (drawn,) = tool.run({"image": "img_1", **arguments}, {"img_1": image}).images
    assert (drawn.width, drawn.height) == (image.width, image.height)
    return np.asarray(drawn.pixels())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (7, 5), (255, 257), (3000, 3), (3, 3000), (1601, 1201)])
@pytest.mark.parametrize("percent", [0, 28.5, 50, 100])
def test_a_line_is_centred_on_the_exact_row_or_column(width, height, percent):
    image = Image.from_pixels(Pillow.new("RGB", (width, height), "white"))
    for axis, size, pixels in ((0, height, draw(image, y=percent)), (1, width, draw(image, x=percent))):
        marked = (pixels == RED).all(axis=2).all(axis=1 - axis)
        place = min(int(percent * size / 100), size - 1)
        reach = max(1, round(min(width, height) * 0.003))
        assert np.flatnonzero(marked).tolist() == list(range(max(0, place - reach), min(size, place + reach + 1)))
        assert (np.delete(pixels, np.flatnonzero(marked), axis=axis) == 255).all()


@pytest.mark.parametrize("name", INPUTS)
def test_lines_and_crops_accept_every_kind_of_picture(name):
    image = INPUTS[name]
    pixels = draw(image, y=50)
    assert (pixels[image.height // 2] == RED).all()
    assert pixels[0].min() > 250
    crop = load_tool("Crop").run({"image": "i", "box": [0, 0, 50, 100]}, {"i": image})
    assert crop.images[0].height == image.height


def test_a_rotated_photo_is_drawn_on_as_people_see_it():
    assert draw(INPUTS["rotated"], y=50).shape == (40, 20, 3)


def test_a_line_over_red_takes_another_colour():
    image = Image.from_pixels(Pillow.new("RGB", (50, 50), RED))
    assert (draw(image, y=50)[25] == COLORS[1]).all()


def test_a_line_grows_with_the_picture():
    image = Image.from_pixels(Pillow.new("RGB", (2000, 2000), "white"))
    assert (draw(image, y=50)[:, 0] == RED).all(axis=1).sum() == 13


@pytest.mark.parametrize(
    ("points", "on", "off"),
    [
        ([[10, 20], [90, 20]], [(20, 20), (100, 20), (179, 20)], [(100, 25), (10, 20), (190, 20)]),
        ([[0, 0], [100, 100]], [(20, 10), (100, 50), (180, 90)], [(199, 0), (0, 99)]),
        ([[100, 0], [0, 100]], [(180, 9), (100, 49), (20, 89)], [(0, 0), (199, 99)]),
        ([[50, 90], [50, 10]], [(100, 10), (100, 90)], [(105, 50), (100, 5), (100, 95)]),
    ],
)
def test_a_line_goes_from_one_end_to_the_other(points, on, off):
    image = Image.from_pixels(Pillow.new("RGB", (200, 100), "white"))
    result = load_tool("DrawLine").run({"image": "i", "points": points}, {"i": image})
    pixels = np.asarray(result.images[0].pixels())
    assert [tuple(pixels[y, x]) for x, y in on] == [RED] * len(on)
    assert [tuple(pixels[y, x]) for x, y in off] == [(255, 255, 255)] * len(off)
    assert result.data["points"] == points


def test_a_line_over_red_takes_another_colour_and_needs_two_ends():
    image = Image.from_pixels(Pillow.new("RGB", (50, 50), RED))
    line = load_tool("line")
    drawn = line.run({"image": "i", "points": [[0, 0], [100, 100]]}, {"i": image})
    assert tuple(drawn.data["color"]) == COLORS[1]
    for points in ([[10, 10]], [[10, 10], [20, 20], [30, 30]], [[10, 10], [10.5, 10.5]]):
        with pytest.raises(ModelError, match="points"):
            line.run({"image": "i", "points": points}, {"i": image})


def test_crop_gives_the_sources_own_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (101, 67, 3), np.uint8)
    image = Image.from_pixels(Pillow.fromarray(pixels))
    result = load_tool("Crop").run({"image": "i", "box": [25, 10, 75, 90]}, {"i": image})
    left, top, right, bottom = box_to_pixels((25, 10, 75, 90), 67, 101)
    assert (np.asarray(result.images[0].pixels()) == pixels[top:bottom, left:right]).all()
    assert result.data["box"] == box_to_percent((left, top, right, bottom), 67, 101)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 5000), st.integers(1, 5000))
def test_a_box_of_pixels_survives_the_way_through_percent(data, width, height):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    x1, y1, x2, y2 = box_to_percent((left, top, right, bottom), width, height)
    assert box_to_pixels((x1, y1, x2, y2), width, height) == (left, top, right, bottom)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=4, max_size=4), st.integers(1, 4000), st.integers(1, 4000))
def test_a_crop_is_never_empty_and_never_outside(numbers, width, height):
    x1, x2 = sorted(numbers[:2])
    y1, y2 = sorted(numbers[2:])
    left, top, right, bottom = box_to_pixels((x1, y1, x2, y2), width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_picture_with_broken_pixels_is_refused_in_words_for_the_model():
    data = encoded(Pillow.effect_noise((64, 64), 50), "JPEG").data
    image = Image.from_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="broken") as caught:
        load_tool("Crop").run({"image": "i", "box": [0, 0, 50, 50]}, {"i": image})
    assert caught.value.kind == "refused"
