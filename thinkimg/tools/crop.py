"""Crop: a part of an image at source resolution."""

import math
from typing import Any

from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Box
from thinkimg.tools.tool import ToolResult, tool

PixelBox = tuple[int, int, int, int]


def box_to_pixels(box: tuple[float, float, float, float], width: int, height: int) -> PixelBox:
    """The smallest box of whole pixels around `box` (percent), never empty; right and bottom are exclusive."""
    x1, y1, x2, y2 = box
    left, right = _interval_to_pixels(x1, x2, width)
    top, bottom = _interval_to_pixels(y1, y2, height)
    return left, top, right, bottom


def box_to_percent(box: tuple[float, float, float, float], width: int, height: int) -> list[float]:
    """The same box in percent, rounded to 2 decimals."""
    left, top, right, bottom = box
    percent = (100 * left / width, 100 * top / height, 100 * right / width, 100 * bottom / height)
    return [round(value, 2) for value in percent]


def _interval_to_pixels(low: float, high: float, size: int) -> tuple[int, int]:
    # A hundredth of a pixel of slack, so that percentages rounded to 2 decimals come back as the same pixels.
    slack = size * 0.00006 + 1e-9
    start = min(math.floor(low * size / 100 + slack), size - 1)
    end = max(math.ceil(high * size / 100 - slack), start + 1)
    return start, min(end, size)


def _read_param(param: str) -> dict[str, Any]:
    return {"box": param} if markup.bare_numbers(param) else {}


@tool(name="Crop", version="2", read_param=_read_param)
def crop(image: Image, box: Box) -> ToolResult:
    """Cut a box out of an image. Returns that part as a new image at its original resolution.

    Args:
        image: The image to cut from.
        box: The part to keep.
    """
    pixel_box = box_to_pixels(box, image.width, image.height)
    part = Image.from_pixels(image.pixels().crop(pixel_box))
    shown = box_to_percent(pixel_box, image.width, image.height)
    text = f"Cropped {_format(shown)}: {part.width}x{part.height} pixels."
    return ToolResult(text, {"box": shown, "size": [part.width, part.height]}, (part,))


def _format(box: list[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
