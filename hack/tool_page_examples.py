"""What the pages of the tools show: per tool a call on a drawn figure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

INK, GRID = "#303030", "#d8d8d8"
BARS = {"Ants": (62, "#1f77b4"), "Bees": (41, "#ff7f0e"), "Cats": (88, "#2ca02c"), "Dogs": (73, "#d62728")}


@dataclass(frozen=True)
class Example:
    """Attributes:
    figure: draws the picture.
    arguments: of the call, without `image`.
    backend: None for the tool's default.
    models: options of the backend -> folder of a small trained model (`page_models`), for tools that own weights.
    """

    figure: Callable[[], Pillow.Image]
    arguments: dict[str, Any] = field(default_factory=dict)
    backend: str | None = None
    models: dict[str, str] = field(default_factory=dict)

    def options(self, root: Path) -> dict[str, Any]:
        """Of the backend; the models are below `root`."""
        options: dict[str, Any] = {}
        for name, folder in self.models.items():
            outer, _, inner = name.partition(".")
            place = options.setdefault(outer, {}) if inner else options
            place |= {inner or outer: str(root / folder), "device": "cpu"}
        return options


def bar_chart() -> Pillow.Image:
    """A title, four bars with their values, an axis; 640x420."""
    picture = Pillow.new("RGB", (640, 420), "white")
    _bars(ImageDraw.Draw(picture), (0, 0, 640, 420), "Animals counted in May", BARS, 22)
    return picture


def four_panels() -> Pillow.Image:
    """Four small bar charts in frames, 2x2; 640x480."""
    picture = Pillow.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(picture)
    for number, title in enumerate(("North", "South", "East", "West")):
        x, y = 10 + 315 * (number % 2), 10 + 235 * (number // 2)
        pen.rectangle((x, y, x + 305, y + 225), outline=INK)
        values = {name: ((value * (number + 3)) % 70 + 20, color) for name, (value, color) in BARS.items()}
        _bars(pen, (x, y, x + 305, y + 225), title, values, 16)
    return picture


def small_print() -> Pillow.Image:
    """A dim photograph-like scan, lying on its side; 420x260."""
    picture = Pillow.new("RGB", (420, 260), "#777777")
    pen = ImageDraw.Draw(picture)
    for number, text in enumerate(("Invoice 4711", "Paper, 20 reams", "Total 118.40 EUR")):
        pen.text((40, 50 + 60 * number), text, fill="#5c5c5c", font=ImageFont.load_default(26))
    return picture.transpose(Pillow.Transpose.ROTATE_90)


def things_on_a_floor() -> Pillow.Image:
    """Balls and boxes, near and far: a scene of the kind that the small models were trained on, but not one of them."""
    from page_models import scene

    return scene(random.Random(12)).picture


def _bars(
    pen: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    title: str,
    values: dict[str, tuple[int, str]],
    size: int,
) -> None:
    x1, y1, x2, y2 = box
    font = ImageFont.load_default(size)
    pen.text(((x1 + x2) / 2, y1 + size), title, fill=INK, font=font, anchor="mm")
    floor, ceiling, slot = y2 - 2 * size, y1 + 3.4 * size, (x2 - x1 - 2 * size) / len(values)
    for share in (0.25, 0.5, 0.75, 1):
        height = floor - (floor - ceiling) * share
        pen.line((x1 + size, height, x2 - size, height), fill=GRID)
    for number, (name, (value, color)) in enumerate(values.items()):
        middle, top = x1 + size + slot * (number + 0.5), floor - (floor - ceiling) * value / 100
        pen.rectangle((middle - slot * 0.3, top, middle + slot * 0.3, floor), fill=color)
        pen.text((middle, top - 0.7 * size), str(value), fill=INK, font=font, anchor="mm")
        pen.text((middle, floor + 0.9 * size), name, fill=INK, font=font, anchor="mm")
    pen.line((x1 + size, floor, x2 - size, floor), fill=INK, width=2)


EXAMPLES: dict[str, Example] = {
    "OCR": Example(bar_chart),
    "Crop": Example(bar_chart, {"box": [50, 20, 75, 100]}),
    "DrawHorizontalLineByY": Example(bar_chart, {"y": 43.5}),
    "DrawVerticalLineByX": Example(bar_chart, {"x": 61.5}),
    "DrawLine": Example(bar_chart, {"points": [[15, 45], [61.5, 26]]}),
    "ZoominSubplot": Example(four_panels, {"description": "East"}),
    "Point": Example(bar_chart, {"description": "the bar of Cats"}),
    "SegmentRegionAroundPoint": Example(bar_chart, {"points": [[61.5, 60]]}),
    "GroundingDINO": Example(
        things_on_a_floor, {"query": "blue box. yellow ball. red ball"}, "transformers", {"weights": "grounding-dino"}
    ),
    "SAM": Example(things_on_a_floor, {"points": [[17, 53], [50, 51]]}, "transformers", {"weights": "sam"}),
    "GroundedSAM": Example(
        things_on_a_floor,
        {"query": "blue box. yellow ball"},
        None,
        {"detector.weights": "grounding-dino", "segmenter.weights": "sam"},
    ),
    "EstimateDepth": Example(things_on_a_floor, {"points": [[17, 53], [50, 51]]}, None, {"weights": "depth"}),
    "AdjustImage": Example(small_print, {"rotate": 90, "contrast": 4, "brightness": 1.3, "upscale": 1.5, "sharpen": 1}),
}
