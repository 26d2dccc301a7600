"""DrawHorizontalLineByY, DrawVerticalLineByX and DrawLine: a thin straight line, at source resolution.

A model draws one across an image to compare heights: which bars reach above it, which value of the axis it meets; or
from one point to another, to compare slopes or to see what lies between.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Ends, X, Y
from thinkimg.tools.tool import ToolResult, tool

Color = tuple[int, int, int]
COLORS: tuple[Color, ...] = ((230, 25, 75), (0, 90, 255), (0, 150, 60), (255, 255, 0))  # red unless it would drown


def percent_to_pixel(percent: float, size: int) -> int:
    """The pixel (row or column, from 0) in which that percentage of `size` falls; 100 is the last one."""
    return min(int(percent * size / 100), size - 1)


def line_width(width: int, height: int) -> int:
    """Odd, so that a line has a middle row: 3 pixels in small pictures, else about 0.6 % of the shorter side."""
    return 1 + 2 * max(1, round(min(width, height) * 0.003))


def _reader(axis: str) -> Callable[[str], dict[str, Any]]:
    def read(param: str) -> dict[str, Any]:
        return {axis: markup.axis_values(param, axis) or param}

    return read


@tool(name="DrawHorizontalLineByY", version="2", read_param=_reader("y"))
def draw_horizontal_line_by_y(image: Image, y: Y) -> ToolResult:
    """Draw a horizontal line across the whole image at a height. Returns the image with the line.

    Args:
        image: The image to draw on.
        y: Height of the line.
    """
    return _draw_lines(image, "y", y)


@tool(name="DrawVerticalLineByX", version="2", read_param=_reader("x"))
def draw_vertical_line_by_x(image: Image, x: X) -> ToolResult:
    """Draw a vertical line across the whole image at a position. Returns the image with the line.

    Args:
        image: The image to draw on.
        x: Position of the line.
    """
    return _draw_lines(image, "x", x)


@tool(
    name="DrawLine", version="1", aliases=("line",), read_param=lambda param: {"points": markup.points(param) or param}
)
def draw_line(image: Image, points: Ends) -> ToolResult:
    """Draw a straight line from one point to another. Returns the image with the line.

    Args:
        image: The image to draw on.
        points: Both ends of the line.
    """
    ends = [(percent_to_pixel(x, image.width), percent_to_pixel(y, image.height)) for x, y in points]
    if ends[0] == ends[1]:
        raise ModelError('DrawLine: argument "points" names the same place twice; give both ends of a line.')
    picture = image.pixels()
    beneath = Pillow.new("1", picture.size)
    width = line_width(*picture.size)
    ImageDraw.Draw(beneath).line(ends, fill=1, width=width)
    color = _visible_color(np.asarray(picture)[np.asarray(beneath)])
    ImageDraw.Draw(picture).line(ends, fill=color, width=width)
    said = " to ".join(f"[{x:g}, {y:g}]" for x, y in points)
    data = {"points": [list(point) for point in points], "pixels": [list(end) for end in ends], "color": list(color)}
    return ToolResult(f"Drew a line from {said}.", data, (Image.from_pixels(picture),))


def _draw_lines(image: Image, axis: Literal["x", "y"], values: list[float]) -> ToolResult:
    """Lines across the picture where the axis has these values, in percent."""
    kind, name, side = ("vertical", "columns", image.width) if axis == "x" else ("horizontal", "rows", image.height)
    places = [percent_to_pixel(value, side) for value in values]
    picture = image.pixels()
    reach = line_width(*picture.size) // 2
    boxes = [
        (place - reach, 0, place + reach, image.height - 1)
        if axis == "x"
        else (0, place - reach, image.width - 1, place + reach)
        for place in places
    ]
    color = _draw(picture, boxes)
    data = {axis: values, name: places, "color": list(color)}
    return ToolResult(f"Drew a {kind} line at {axis}={_listed(values)}.", data, (Image.from_pixels(picture),))


def _draw(picture: Pillow.Image, boxes: list[tuple[int, int, int, int]]) -> Color:
    color = _visible_color(_beneath(picture, boxes))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        pen.rectangle(box, fill=color)
    return color


def _beneath(picture: Pillow.Image, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """The pixels in these boxes, (n, 3)."""
    width, height = picture.size
    strips = [
        picture.crop((max(left, 0), max(top, 0), min(right + 1, width), min(bottom + 1, height)))
        for left, top, right, bottom in boxes
    ]
    return np.concatenate([np.asarray(strip).reshape(-1, 3) for strip in strips])


def _visible_color(beneath: np.ndarray) -> Color:
    """The first colour that at most a quarter of the pixels under the lines resemble, else the least resembled."""
    shares = [float(np.mean(np.abs(beneath.astype(int) - color).max(axis=1) < 90)) for color in COLORS]
    visible = [color for color, share in zip(COLORS, shares, strict=True) if share <= 0.25]
    return visible[0] if visible else COLORS[int(np.argmin(shares))]


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
