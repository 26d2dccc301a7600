"""From a picture to what a network takes, and back to the picture's own coordinates."""

import math

from PIL import Image as Pillow

Box = tuple[float, float, float, float]  # left, top, right, bottom
Point = tuple[float, float]
GROUND = (255, 255, 255)
SMALL = 320
"""Pixels of the longer side up to which a picture is looked at as it is; in larger ones lines and letters are thin."""


def box_from_percent(box: Box, width: int, height: int) -> Box:
    """Pixels, not rounded."""
    x1, y1, x2, y2 = box
    return x1 * width / 100, y1 * height / 100, x2 * width / 100, y2 * height / 100


def point_from_percent(point: Point, width: int, height: int) -> Point:
    """Pixels, not rounded."""
    return point[0] * width / 100, point[1] * height / 100


def with_room(picture: Pillow.Image, most: int = 16) -> Pillow.Image:
    """The picture on a ground whose sides differ by at most the factor `most`.

    Networks reduce the longer side to their size; a strip of 4000x3 would have no row left. The picture stays in the
    top left corner, so that pixels keep their coordinates.
    """
    least = math.ceil(max(picture.size) / most)
    size = max(picture.width, least), max(picture.height, least)
    if size == picture.size:
        return picture
    ground = Pillow.new("RGB", size, GROUND)
    ground.paste(picture, (0, 0))
    return ground


def fitted_size(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """Width and height after the shorter side is brought to `shortest`, the longer to at most `longest`.

    The rule of DETR, to the pixel (`get_size_with_aspect_ratio` of its `datasets/transforms.py`).
    """
    width, height = size
    low, high = min(size), max(size)
    if high / low * shortest > longest:
        shortest = round(longest * low / high)
    if low == shortest:
        return size
    if width < height:
        return shortest, int(shortest * height / width)
    return int(shortest * width / height), shortest


def clip_box(box: Box, width: int, height: int) -> Box | None:
    """The part of `box` that is on the picture, None if there is none."""
    x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def clip(box: Box, size: tuple[int, int]) -> Box:
    """The box, its sides moved onto the picture; it may have no area then."""
    width, height = size
    x1, y1, x2, y2 = (float(value) for value in box)
    return max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
