"""Figures by Pillow, as an office program draws them: cards, flat colours, no anti-aliasing of shapes."""

import random
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from figures.truth import CATEGORIES, SERIES, TITLES, Area, Box, Figure, Panel, Target, Written, centre, places

_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf", None)
_GROUNDS = ("white", "#f7f7f2", "#eef3f8", "#1d2430", "#333333")
_PALETTES = (
    ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5", "#70ad47"),
    ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51", "#8ab17d"),
    ("#b2182b", "#ef8a62", "#fddbc7", "#67a9cf", "#2166ac", "#7f8c8d"),
)


class _Sheet:
    """A picture, a pen and what was written so far."""

    def __init__(self, rng: random.Random, width: int, height: int) -> None:
        self.ground = rng.choice(_GROUNDS)
        self.ink = "#f0f0f0" if self.ground in _GROUNDS[3:] else "#202020"
        self.palette = rng.choice(_PALETTES)
        self.picture = Pillow.new("RGB", (width, height), self.ground)
        self.pen = ImageDraw.Draw(self.picture)
        self.size = max(13, round(min(width, height) * rng.uniform(0.028, 0.04)))
        name = rng.choice(_FONTS)
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.font: Any = (
            ImageFont.truetype(str(folder / name), self.size) if name else ImageFont.load_default(self.size)
        )
        self.written: list[Written] = []

    def write(self, text: str, x: float, y: float, anchor: str = "mm") -> Box:
        """Write `text`, anchored as Pillow names it; gives the box of its ink."""
        place = (round(x), round(y))
        self.pen.text(place, text, fill=self.ink, font=self.font, anchor=anchor)
        blank = Pillow.new("L", self.picture.size)
        ImageDraw.Draw(blank).text(place, text, fill=255, font=self.font, anchor=anchor)
        box = blank.point(lambda value: 255 * (value > 100)).getbbox()
        assert box is not None
        self.written.append(Written(text, tuple(map(float, box))))  # type: ignore[arg-type]
        return self.written[-1].box

    def bar(self, box: Box, color: str) -> Area:
        corners = tuple(round(value) for value in box)
        self.pen.rectangle((corners[0], corners[1], corners[2] - 1, corners[3] - 1), fill=color)
        mask = np.zeros((self.picture.height, self.picture.width), bool)
        mask[corners[1] : corners[3], corners[0] : corners[2]] = True
        return Area("bar", centre(box), mask)


def draw_with_pillow(rng: random.Random) -> Figure:
    """A bar chart with values and a legend, or cards of small bar charts, each in a frame or on white space alone."""
    return _cards(rng) if rng.random() < 0.5 else _bar_chart(rng)


def _bar_chart(rng: random.Random) -> Figure:
    width = rng.randint(400, 1400)
    sheet = _Sheet(rng, width, round(width * rng.uniform(0.6, 0.9)))
    height, line = sheet.picture.height, sheet.size
    sheet.write(rng.choice(TITLES), width / 2, 1.5 * line)
    series = rng.sample(SERIES, rng.randint(1, 2))
    legend = _legend(sheet, series, 3.2 * line) if len(series) > 1 else []
    names = rng.sample([name for name in CATEGORIES if len(name) <= 6], rng.randint(3, 5))
    floor, ceiling = height - 3 * line, 6.5 * line
    slot = (width - 4 * line) / len(names)
    thick = slot * rng.uniform(0.5, 0.8) / len(series)
    targets, areas = list(legend), []
    sheet.pen.line((2 * line, floor, width - 2 * line, floor), fill=sheet.ink, width=max(1, line // 12))
    for number, name in enumerate(names):
        middle = 2 * line + slot * (number + 0.5)
        sheet.write(name, middle, floor + line)
        for index, one in enumerate(series):
            value = rng.randint(15, 99)
            left = middle + (index - len(series) / 2) * thick
            box = (left, floor - (floor - ceiling) * value / 100, left + thick - 2, floor)
            areas.append(sheet.bar(box, sheet.palette[index]))
            description = f"the bar of {name}" if len(series) == 1 else f"the {one} bar of {name}"
            targets.append(Target("bar", description, *areas[-1].point))
            if thick > 2.2 * line:
                sheet.write(str(value), left + thick / 2, box[1] - 0.8 * line)
    return Figure(sheet.picture, "office", tuple(sheet.written), tuple(targets), tuple(areas))


def _legend(sheet: _Sheet, series: list[str], y: float) -> list[Target]:
    found = []
    x = sheet.picture.width * 0.25
    for number, name in enumerate(series):
        half = sheet.size * 0.4
        sheet.pen.rectangle((x - half, y - half, x + half, y + half), fill=sheet.palette[number])
        box = sheet.write(name, x + sheet.size, y, "lm")
        found.append(Target("legend", f'legend entry "{name}"', *centre(box)))
        x = box[2] + 3 * sheet.size
    return found


def _cards(rng: random.Random) -> Figure:
    rows, columns = rng.choice([(r, c) for r in (1, 2, 3) for c in (1, 2, 3) if r * c > 1])
    width, height = columns * rng.randint(260, 420), rows * rng.randint(220, 320)
    sheet = _Sheet(rng, width, height)
    sheet.size = rng.randint(13, 17)
    sheet.font = sheet.font.font_variant(size=sheet.size)
    framed = rng.random() < 0.5
    gap = rng.randint(10, 24)
    titles = rng.sample(TITLES, rows * columns)
    found = []
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        card = (
            column * width / columns + gap, row * height / rows + gap,
            (column + 1) * width / columns - gap, (row + 1) * height / rows - gap,
        )  # fmt: skip
        if framed:
            sheet.pen.rectangle(card, outline=sheet.ink, width=rng.randint(1, 2))
        found.append(Panel(title, places(row, column, rows, columns, rng), _card(sheet, rng, title, card)))
    name = f"office, {'framed' if framed else 'open'} {rows}x{columns}"
    return Figure(sheet.picture, name, tuple(sheet.written), panels=tuple(found))


def _card(sheet: _Sheet, rng: random.Random, title: str, card: Box) -> Box:
    """A small bar chart; gives the box of its plot."""
    x1, y1, x2, y2 = card
    line = sheet.size
    sheet.write(title, (x1 + x2) / 2, y1 + 1.1 * line)
    names = rng.sample([name for name in CATEGORIES if len(name) <= 5], 3)
    floor, ceiling = y2 - 2.2 * line, y1 + 3.6 * line
    slot = (x2 - x1 - 2 * line) / 3
    sheet.pen.line((x1 + line, floor, x2 - line, floor), fill=sheet.ink)
    for number, name in enumerate(names):
        middle = x1 + line + slot * (number + 0.5)
        value = rng.randint(10, 99)
        top = floor - (floor - ceiling) * value / 100
        sheet.bar((middle - slot * 0.3, top, middle + slot * 0.3, floor), sheet.palette[number])
        sheet.write(str(value), middle, top - 0.7 * line)
        sheet.write(name, middle, floor + line)
    return x1 + line, ceiling, x2 - line, floor
