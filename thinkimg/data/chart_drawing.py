"""Draws a chart record as a picture of 256x256 pixels, and tells where every text landed.

Two demands shape every layout here. Texts must be legible to an OCR model at this size and illegible once the picture
is shrunk to 48x48. And a label must stand so close to its own value, and so far from every other text, that sorting the
texts into reading order puts the two side by side: beneath each other under an axis, in one row otherwise.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from thinkimg.data.chart import Chart, ChartItem, Color, Panel, Style

SIZE = 256
_OVERSAMPLING = 2  # shapes are drawn this much larger and reduced: smooth edges; texts are drawn at their final size

Box = tuple[float, float, float, float]  # pixels: left, top, right, bottom
Font = ImageFont.FreeTypeFont

# The same colour names in every palette, so that a question can speak of "the red bar" whatever the shade.
PALETTES: dict[str, dict[str, Color]] = {
    "plain": {
        "red": (214, 39, 40), "blue": (31, 92, 200), "green": (44, 150, 44), "orange": (250, 140, 20),
        "purple": (140, 60, 190), "yellow": (240, 210, 30), "pink": (245, 130, 190), "brown": (130, 80, 45),
        "gray": (128, 128, 128),
    },
    "bright": {
        "red": (240, 20, 30), "blue": (20, 60, 245), "green": (10, 180, 60), "orange": (255, 150, 0),
        "purple": (160, 30, 220), "yellow": (250, 225, 0), "pink": (255, 110, 180), "brown": (150, 85, 30),
        "gray": (140, 140, 140),
    },
    "soft": {
        "red": (225, 80, 75), "blue": (75, 125, 215), "green": (90, 175, 95), "orange": (245, 165, 75),
        "purple": (155, 100, 195), "yellow": (238, 215, 90), "pink": (240, 155, 200), "brown": (155, 110, 80),
        "gray": (150, 150, 150),
    },
    "deep": {
        "red": (170, 20, 30), "blue": (15, 50, 140), "green": (15, 110, 50), "orange": (225, 115, 0),
        "purple": (95, 25, 140), "yellow": (225, 190, 10), "pink": (225, 90, 150), "brown": (100, 60, 30),
        "gray": (105, 105, 105),
    },
}  # fmt: skip
BACKGROUNDS: tuple[Color, ...] = ((255, 255, 255), (250, 250, 246), (244, 247, 252), (252, 246, 238))
INKS: tuple[Color, ...] = ((0, 0, 0), (25, 25, 40), (45, 30, 25))

# Name -> (file of matplotlib's font folder, or None for the font inside Pillow; relative size; stroke in pixels).
# DejaVu runs wide, hence the smaller size. Without matplotlib every name falls back to Pillow's font: charts and
# questions stay the same, the pixels differ.
_FONTS: dict[str, tuple[str | None, float, float]] = {
    "aileron": (None, 1.08, 0.0),
    "aileron-bold": (None, 1.04, 0.35),
    "dejavu-sans": ("DejaVuSans.ttf", 0.96, 0.0),
    "dejavu-bold": ("DejaVuSans-Bold.ttf", 0.92, 0.0),
    "dejavu-serif": ("DejaVuSerif.ttf", 0.96, 0.0),
    "dejavu-mono": ("DejaVuSansMono.ttf", 0.98, 0.0),
}
FONT_NAMES: tuple[str, ...] = tuple(_FONTS)


@dataclass(frozen=True)
class PlacedText:
    """A text and the box of its ink in pixels, for tests and for looking closer."""

    text: str
    box: Box


@dataclass
class Drawing:
    image: Image.Image
    texts: list[PlacedText]


def draw_chart(chart: Chart) -> Drawing:
    """Draw all panels; the returned image is RGB, SIZE x SIZE."""
    canvas = _Canvas(chart.style)
    grouped = len(chart.panels) > 1
    for panel in chart.panels:
        left, top, right, bottom = (percent * SIZE / 100 for percent in panel.box)
        if grouped or chart.style.frame:
            canvas.frame((left, top, right - 1, bottom - 1))
        inside = (left + 4, top + 6, right - 4, bottom - 6)
        _PAINTERS[panel.kind](canvas, panel, _draw_title(canvas, panel.title, inside))
    return canvas.finish()


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    file, scale, _ = _FONTS[name]
    path = _matplotlib_fonts() / file if file else None
    if path is not None and path.is_file():
        return ImageFont.truetype(path, size * scale, layout_engine=ImageFont.Layout.BASIC)
    embedded = ImageFont.load_default(size * _FONTS["aileron"][1])
    if not isinstance(embedded, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: charts cannot be drawn")
    return embedded


@lru_cache(maxsize=1)
def _matplotlib_fonts() -> Path:
    """Folder of the fonts that matplotlib ships; found without importing it, which would take half a second."""
    spec = importlib.util.find_spec("matplotlib")
    package = Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
    return package / "mpl-data" / "fonts" / "ttf"


@dataclass
class _Canvas:
    """Shapes on an oversampled layer, texts kept back until the shapes are reduced to the final size."""

    style: Style
    layer: Image.Image = field(init=False)
    pen: ImageDraw.ImageDraw = field(init=False)
    waiting: list[tuple[float, float, str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layer = Image.new("RGB", (SIZE * _OVERSAMPLING,) * 2, self.style.background)
        self.pen = ImageDraw.Draw(self.layer)

    def color(self, item: ChartItem) -> Color:
        return PALETTES[self.style.palette][item.color]

    def faint(self) -> Color:
        """A grid colour: visible to people, too pale to disturb OCR."""
        return _blend(self.style.background, self.style.ink, 0.12)

    def frame(self, box: Box) -> None:
        self.pen.rectangle(
            _scaled(box), outline=_blend(self.style.background, self.style.ink, 0.55), width=_OVERSAMPLING
        )

    def line(self, points: list[tuple[float, float]], color: Color, width: float = 1) -> None:
        scaled = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in points]
        self.pen.line(scaled, fill=color, width=round(width * _OVERSAMPLING), joint="curve")

    def diamond(self, centre: tuple[float, float], radius: float, color: Color) -> None:
        """A data point. OCR takes a round one for a letter or a digit twice as often."""
        x, y = (value * _OVERSAMPLING for value in centre)
        reach = radius * _OVERSAMPLING
        self.pen.polygon([(x - reach, y), (x, y - reach), (x + reach, y), (x, y + reach)], fill=color)

    def text(self, x: float, baseline: float, text: str, anchor: str = "m", larger: int = 0) -> None:
        """anchor: l, m or r, the part of the text that stands at x."""
        self.waiting.append((round(x), round(baseline), text, anchor + "s", self.style.font_size + larger))

    def width(self, text: str) -> float:
        return _font(self.style.font, self.style.font_size).getlength(text)

    def pair(self, x: float, baseline: float, item: ChartItem) -> None:
        """A label and right after it its value, so that OCR takes them for two words of one line."""
        self.text(x, baseline, item.label, "l")
        self.text(x + self.pair_width(item), baseline, str(item.value), "r")

    def pair_width(self, item: ChartItem) -> float:
        return self.width(item.label) + 0.45 * self.style.font_size + self.width(str(item.value))

    def finish(self) -> Drawing:
        image = self.layer.reduce(_OVERSAMPLING)
        pen = ImageDraw.Draw(image)
        placed = []
        stroke = _FONTS[self.style.font][2]
        for x, y, text, anchor, size in self.waiting:
            font = _font(self.style.font, size)
            pen.text((x, y), text, fill=self.style.ink, font=font, anchor=anchor, stroke_width=stroke)
            placed.append(PlacedText(text, pen.textbbox((x, y), text, font=font, anchor=anchor, stroke_width=stroke)))
        return Drawing(image, placed)


def _scaled(box: Box) -> Box:
    left, top, right, bottom = (value * _OVERSAMPLING for value in box)
    return left, top, right, bottom


def _blend(one: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _draw_title(canvas: _Canvas, title: str, inside: Box) -> Box:
    """Draw the title and return what is left of the panel below it."""
    left, top, right, bottom = inside
    size = canvas.style.font_size + 1
    x, anchor = (left, "l") if canvas.style.title_left else ((left + right) / 2, "m")
    canvas.text(x, top + 0.85 * size, title, anchor, larger=1)
    return left, top + 1.45 * size, right, bottom


def _axis_end(canvas: _Canvas, items: tuple[ChartItem, ...]) -> float:
    return max(item.value for item in items) * canvas.style.headroom


def _label_columns(canvas: _Canvas, items: tuple[ChartItem, ...], inside: Box) -> tuple[Box, list[float]]:
    """Write each label under the axis with its value right beneath; return the plot area and the columns' centres."""
    left, top, right, bottom = inside
    size = canvas.style.font_size
    axis = bottom - 2.45 * size
    slot = (right - left) / len(items)
    centres = [left + slot * (index + 0.5) for index in range(len(items))]
    for item, x in zip(items, centres, strict=True):
        canvas.text(x, axis + 1.1 * size, item.label)
        canvas.text(x, axis + 2.3 * size, str(item.value))
    plot = (left, top, right, axis)
    _draw_axes(canvas, plot)
    return plot, centres


def _draw_axes(canvas: _Canvas, plot: Box) -> None:
    left, top, right, bottom = plot
    if canvas.style.grid:
        for part in (0.25, 0.5, 0.75):
            y = top + (bottom - top) * part
            canvas.line([(left, y), (right, y)], canvas.faint())
    canvas.line([(left, top), (left, bottom), (right, bottom)], canvas.style.ink)


def _draw_bars(canvas: _Canvas, panel: Panel, inside: Box) -> None:
    (_, top, _, bottom), centres = _label_columns(canvas, panel.items, inside)
    end = _axis_end(canvas, panel.items)
    half = canvas.style.thickness * (inside[2] - inside[0]) / len(panel.items) / 2
    for item, x in zip(panel.items, centres, strict=True):
        height = (bottom - top) * item.value / end
        canvas.pen.rectangle(_scaled((x - half, bottom - height, x + half, bottom - 1)), fill=canvas.color(item))


def _draw_line(canvas: _Canvas, panel: Panel, inside: Box) -> None:
    (_, top, _, bottom), centres = _label_columns(canvas, panel.items, inside)
    end = _axis_end(canvas, panel.items)
    points = [(x, bottom - (bottom - top) * i.value / end) for i, x in zip(panel.items, centres, strict=True)]
    canvas.line(points, _blend(canvas.style.background, canvas.style.ink, 0.6), width=4)
    for item, point in zip(panel.items, points, strict=True):
        canvas.diamond(point, 6.5, canvas.color(item))


def _draw_rows(canvas: _Canvas, panel: Panel, inside: Box) -> None:
    """Horizontal bars: label, bar, value in one row; where rows are close, label, value, bar.

    Labels in close rows look like one paragraph, and so do values: only a value next to its label stays with it.
    """
    left, top, right, bottom = inside
    slot = (bottom - top) / len(panel.items)
    close = slot < 3 * canvas.style.font_size
    heads = [canvas.pair_width(item) if close else canvas.width(item.label) for item in panel.items]
    axis = left + max(heads) + 5
    room = right - axis - (0 if close else canvas.width("88") + 5)
    half = canvas.style.thickness * min(slot, 34) / 2
    end = _axis_end(canvas, panel.items)
    _draw_row_axes(canvas, (axis, top, axis + room, bottom))
    for index, (item, head) in enumerate(zip(panel.items, heads, strict=True)):
        y = top + slot * (index + 0.5)
        tip = axis + room * item.value / end
        canvas.pen.rectangle(_scaled((axis + 1, y - half, tip, y + half)), fill=canvas.color(item))
        baseline = y + 0.36 * canvas.style.font_size
        if close:
            canvas.pair(axis - 4 - head, baseline, item)
        else:
            canvas.text(axis - 4, baseline, item.label, "r")
            canvas.text(tip + 5, baseline, str(item.value), "l")


def _draw_row_axes(canvas: _Canvas, plot: Box) -> None:
    left, top, right, bottom = plot
    if canvas.style.grid:
        for part in (0.33, 0.66, 1):
            x = left + (right - left) * part
            canvas.line([(x, top), (x, bottom)], canvas.faint())
    canvas.line([(left, top), (left, bottom)], canvas.style.ink)


def _draw_pie(canvas: _Canvas, panel: Panel, inside: Box) -> None:
    """The pie on the left, on the right a legend with a row for each slice."""
    left, top, right, bottom = inside
    size = canvas.style.font_size
    legend = right - size - 8 - max(map(canvas.pair_width, panel.items))
    radius = min((legend - left - 12) / 2, (bottom - top) / 2 - 4)
    centre = (left + radius + 2, (top + bottom) / 2)
    _draw_slices(canvas, panel.items, centre, radius)
    pitch = min((bottom - top) / len(panel.items), 2.9 * size)
    first = centre[1] - pitch * (len(panel.items) - 1) / 2
    for index, item in enumerate(panel.items):
        y = first + pitch * index
        swatch = (legend, y - 0.4 * size, legend + 0.8 * size, y + 0.4 * size)
        canvas.pen.rectangle(_scaled(swatch), fill=canvas.color(item))
        canvas.pair(legend + size + 6, y + 0.36 * size, item)


def _draw_slices(canvas: _Canvas, items: tuple[ChartItem, ...], centre: tuple[float, float], radius: float) -> None:
    total = sum(item.value for item in items)
    x, y = centre
    circle = _scaled((x - radius, y - radius, x + radius, y + radius))
    angle = start = canvas.style.turn
    for item in items:
        canvas.pen.pieslice(circle, angle, angle + 360 * item.value / total, fill=canvas.color(item))
        angle += 360 * item.value / total
    for item in items:  # the gaps between slices, last, so that no slice paints over them
        edge = (x + radius * math.cos(math.radians(start)), y + radius * math.sin(math.radians(start)))
        canvas.line([(x, y), edge], canvas.style.background, 1.5)
        start += 360 * item.value / total


_PAINTERS: dict[str, Callable[[_Canvas, Panel, Box], None]] = {
    "bar": _draw_bars,
    "barh": _draw_rows,
    "line": _draw_line,
    "pie": _draw_pie,
}
