"""What a tool found, drawn on the picture that it looked at: for people."""

from collections.abc import Iterator
from typing import Any

from PIL import ImageDraw, ImageFont

from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult

_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_LABEL_CHARACTERS = 40


def draw_result(image: Image, result: ToolResult) -> Image:
    """Boxes and points of `result.data` with their labels, on a copy of `image` at its own size.

    Understood are `box` [x1, y1, x2, y2], `boxes` (lists of four, or mappings with `box`), and `points` (pairs, or
    mappings with `x` and `y`), all in percent; labels are `label` or `text` beside them, or the list `strings` or
    `labels` of the same length.

    Raises:
        ImageDecodeError: the picture is broken.
    """
    picture = image.pixels()
    pen = ImageDraw.Draw(picture)
    width = max(2, round(min(picture.size) / 250))
    font = ImageFont.load_default(max(12, round(picture.height / 45)))

    def place(x: float, y: float) -> tuple[float, float]:
        return x / 100 * picture.width, y / 100 * picture.height

    for number, (corners, label) in enumerate(_shapes(result.data)):
        color = _COLORS[number % len(_COLORS)]
        left, top = place(*corners[:2])
        if len(corners) == 4:
            pen.rectangle([(left, top), place(*corners[2:])], outline=color, width=width)
        else:
            reach = 4 * width
            pen.line([(left - reach, top), (left + reach, top)], fill=color, width=width)
            pen.line([(left, top - reach), (left, top + reach)], fill=color, width=width)
        if label:
            _write(pen, (left, top), label[:_LABEL_CHARACTERS], color, font, picture.size)
    return Image.from_pixels(picture)


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    color: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """White on a ground of the shape's colour, above its corner, or inside where there is no room above."""
    x1, y1, x2, y2 = pen.textbbox((0, 0), text, font=font)
    high, wide = y2 - y1 + 4, x2 - x1 + 4
    left = max(0, min(corner[0], size[0] - wide))
    top = corner[1] - high if corner[1] >= high else corner[1]
    pen.rectangle([(left, top), (left + wide, top + high)], fill=color)
    pen.text((left + 2 - x1, top + 2 - y1), text, fill="white", font=font)


def _shapes(data: dict[str, Any]) -> Iterator[tuple[list[float], str]]:
    """Two or four numbers each, and a label."""
    labels: list[Any] = next((data[name] for name in ("strings", "labels") if isinstance(data.get(name), list)), [])
    found = [*_listed(data.get("boxes")), *_listed([data["box"]] if "box" in data else None)]
    found += [*_listed(data.get("detections")), *_listed(data.get("points"))]
    for number, (corners, label) in enumerate(found):
        if not label and len(labels) == len(found):
            label = str(labels[number])
        yield corners, label


def _listed(items: Any) -> Iterator[tuple[list[float], str]]:
    for item in items if isinstance(items, list | tuple) else ():
        if isinstance(item, dict):
            corners = item.get("box") or [item[axis] for axis in ("x", "y") if axis in item]
            label = str(item.get("label") or item.get("text") or "")
        else:
            corners, label = item, ""
        if isinstance(corners, list | tuple) and len(corners) in (2, 4):
            yield [float(number) for number in corners], label
