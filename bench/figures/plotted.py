"""Figures by matplotlib, in its own styles. Truth is asked of matplotlib's artists after drawing."""

import io
import random
from collections.abc import Sequence
from typing import Any
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.collections import Collection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image as Pillow
from PIL import ImageDraw

from figures.truth import (
    AXES,
    AXES_OF_CATEGORIES,
    CATEGORIES,
    SERIES,
    TITLES,
    Area,
    Box,
    Figure,
    Panel,
    Target,
    Written,
    centre,
    places,
)

STYLES = ("default", "ggplot", "bmh", "seaborn-v0_8-whitegrid", "seaborn-v0_8-darkgrid", "dark_background", "classic",
          "fivethirtyeight", "tableau-colorblind10", "Solarize_Light2")  # fmt: skip
FONTS = ("DejaVu Sans", "DejaVu Sans", "DejaVu Serif", "STIXGeneral", "DejaVu Sans Mono")


class _Sheet:
    """One figure: a style and a size drawn from `rng`, and the ways back from artists to pixels."""

    def __init__(self, rng: random.Random, rows: int = 1, columns: int = 1, least: int = 480) -> None:
        self.style = rng.choice(STYLES)
        pyplot.style.use(["default", self.style])
        size = rng.randint(9, 13)
        font = {"font.family": rng.choice(FONTS), "font.size": size, "axes.unicode_minus": False}
        names = ("xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize")
        pyplot.rcParams.update({**font, **dict.fromkeys(names, size), "axes.titlesize": size + rng.randint(0, 4)})
        width, height = rng.randint(least, 2 * least), rng.randint(least * 3 // 4, least * 3 // 2)
        self.dpi = rng.choice((80, 100, 120, 150))
        self.figure, axes = pyplot.subplots(
            rows, columns, figsize=(width / 80, height / 80), dpi=self.dpi, squeeze=False, layout="constrained"
        )
        self.axes: list[Any] = list(axes.ravel())
        self.jpeg = rng.random() < 0.25

    def draw(self) -> Pillow.Image:
        self.figure.canvas.draw()
        self.figure.set_layout_engine("none")  # or hiding artists for the second drawing would move the rest
        picture = Pillow.fromarray(np.asarray(self.figure.canvas.buffer_rgba())).convert("RGB")
        self.size = picture.size
        if self.jpeg:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=85)
            picture = Pillow.open(buffer).convert("RGB")
        return picture

    def box(self, extent: Any) -> Box:
        """From matplotlib's pixels, which count from below."""
        return extent.x0, self.size[1] - extent.y1, extent.x1, self.size[1] - extent.y0

    def box_of(self, artist: Any) -> Box:
        return self.box(artist.get_window_extent())

    def mask(self, patch: Patch) -> np.ndarray:
        """The pixels of a bar or wedge."""
        mask = Pillow.new("1", self.size)
        for polygon in patch.get_transform().transform_path(patch.get_path()).to_polygons():
            ImageDraw.Draw(mask).polygon([(x, self.size[1] - y) for x, y in polygon], fill=1)
        return np.asarray(mask)

    def written(self) -> tuple[Written, ...]:
        """Each string with the box of its ink: a second drawing shows nothing but texts. Call it last."""
        for artist in self.figure.findobj(lambda each: isinstance(each, Patch | Line2D | Collection)):
            artist.set_visible(False)
        drawn: list[Text] = []  # ticks outside of the view are artists too, and are not
        draw = Text.draw

        def noted(text: Text, *args: Any, **options: Any) -> None:
            drawn.append(text)
            draw(text, *args, **options)

        with mock.patch.object(Text, "draw", noted):
            self.figure.canvas.draw()
        texts = [text for text in drawn if text.get_visible() and text.get_text().strip()]
        ink = np.asarray(self.figure.canvas.buffer_rgba())[:, :, 3] > 100
        found = []
        for text in texts:
            x1, y1, x2, y2 = (round(value) for value in self.box_of(text))
            x1, y1 = max(x1 - 2, 0), max(y1 - 2, 0)
            rows, columns = np.nonzero(ink[y1 : y2 + 2, x1 : x2 + 2])
            if len(rows):
                left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                box = (float(x1 + left), float(y1 + top), float(x1 + right), float(y1 + bottom))
                found.append(Written(text.get_text(), box))
        pyplot.close(self.figure)
        return tuple(found)


def bars(rng: random.Random) -> Figure:
    """Upright or lying bars, plain or in two or three series with a legend."""
    sheet = _Sheet(rng)
    (axes,) = sheet.axes
    lying = rng.random() < 0.35
    series = rng.sample(SERIES, rng.choice((1, 1, 2, 3)))
    count = rng.randint(3, 7 if len(series) == 1 else 4)
    categories = rng.sample(CATEGORIES, count)
    drawn = _draw_bars(axes, rng, categories, series, lying)
    _label(axes, rng, categories, lying, sheet)
    texts_of_legend = []
    if len(series) > 1:
        headroom = 1.45 if not lying else 1.5
        (axes.set_xlim if lying else axes.set_ylim)(0, headroom * 100)
        place = "upper right" if rng.random() < 0.6 or lying else "upper center"
        legend = axes.legend(loc=place, ncols=1 if place == "upper right" else len(series), frameon=rng.random() < 0.7)
        texts_of_legend = list(legend.get_texts())
    _fix_ticks(axes)
    picture = sheet.draw()
    targets = []
    areas = []
    for (name, category), patch in drawn.items():
        description = f"the bar of {category}" if len(series) == 1 else f"the {name} bar of {category}"
        x, y = centre(sheet.box_of(patch))
        targets.append(Target("bar", description, x, y))
        areas.append(Area("bar", (x, y), sheet.mask(patch)))
    targets += [Target("legend", f'legend entry "{t.get_text()}"', *centre(sheet.box_of(t))) for t in texts_of_legend]
    targets += _axis_targets(axes, sheet, rng)
    return Figure(picture, sheet.style, sheet.written(), tuple(targets), tuple(areas))


def _draw_bars(
    axes: Any, rng: random.Random, categories: Sequence[str], series: Sequence[str], lying: bool
) -> dict[tuple[str, str], Patch]:
    places_ = np.arange(len(categories))
    thickness = rng.uniform(0.5, 0.85) / len(series)
    edge = {"edgecolor": "black", "linewidth": 1} if rng.random() < 0.3 else {}
    drawn = {}
    for number, name in enumerate(series):
        values = [rng.randint(15, 99) for _ in categories]
        offset = (number - (len(series) - 1) / 2) * thickness
        plot = axes.barh if lying else axes.bar
        container = plot(places_ + offset, values, thickness, label=name, **edge)
        if len(series) == 1 and rng.random() < 0.5:
            axes.bar_label(container, padding=2)
        drawn |= {(name, category): patch for category, patch in zip(categories, container.patches, strict=True)}
    return drawn


def _label(axes: Any, rng: random.Random, categories: Sequence[str], lying: bool, sheet: _Sheet) -> None:
    axes.set_title(rng.choice(TITLES))
    along, across = (axes.yaxis, axes.xaxis) if lying else (axes.xaxis, axes.yaxis)
    along.set_ticks(range(len(categories)), labels=categories)
    along.set_label_text(rng.choice(AXES_OF_CATEGORIES))
    across.set_label_text(rng.choice(AXES))
    if rng.random() < 0.4:
        axes.spines[["top", "right"]].set_visible(False)
    if not lying:  # labels that touch would be one string to any reader
        per_label = sheet.figure.get_size_inches()[0] * sheet.dpi * 0.85 / len(categories)
        longest = max(map(len, categories)) * 0.75 * pyplot.rcParams["font.size"] * sheet.dpi / 72
        if longest > per_label:
            axes.tick_params(axis="x", labelrotation=90)


def _fix_ticks(axes: Any) -> None:
    """Ticks outside of the view are artists too, but nobody sees them."""
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if isinstance(axis.get_major_locator(), matplotlib.ticker.AutoLocator):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_ticks([tick for tick in axis.get_ticklocs() if min(limits) <= tick <= max(limits)])


def _axis_targets(axes: Any, sheet: _Sheet, rng: random.Random) -> list[Target]:
    found = []
    for name, label in (("x", axes.xaxis.label), ("y", axes.yaxis.label)):
        said = rng.choice((f"the {name}-axis label", f'axis label "{label.get_text()}"', label.get_text()))
        found.append(Target("axis", said, *centre(sheet.box_of(label))))
    return found


def pie(rng: random.Random) -> Figure:
    """Slices with names outside and perhaps percentages inside, or a legend beside the pie."""
    sheet = _Sheet(rng)
    (axes,) = sheet.axes
    names = rng.sample(CATEGORIES[:30], rng.randint(3, 6))
    values = [rng.randint(12, 60) for _ in names]
    with_legend = rng.random() < 0.4
    options: dict[str, Any] = {"autopct": "%.0f%%"} if rng.random() < 0.6 else {}
    options |= {"wedgeprops": {"edgecolor": "white", "linewidth": 1}} if rng.random() < 0.4 else {}
    drawn = axes.pie(values, labels=None if with_legend else names, startangle=rng.randint(0, 359), **options)
    axes.set_title(rng.choice(TITLES))
    texts = []
    if with_legend:
        texts = list(axes.legend(drawn[0], names, loc="center left", bbox_to_anchor=(1.0, 0.5)).get_texts())
    picture = sheet.draw()
    areas = [Area("slice", _inside(wedge, sheet), sheet.mask(wedge)) for wedge in drawn[0]]
    targets = [Target("legend", f'legend entry "{text.get_text()}"', *centre(sheet.box_of(text))) for text in texts]
    return Figure(picture, sheet.style, sheet.written(), tuple(targets), tuple(areas))


def _inside(wedge: Any, sheet: _Sheet) -> tuple[float, float]:
    """A point at four fifths of the radius, where no percentage stands."""
    angle = np.radians((wedge.theta1 + wedge.theta2) / 2)
    x, y = wedge.axes.transData.transform((0.85 * np.cos(angle), 0.85 * np.sin(angle)))
    return float(x), float(sheet.size[1] - y)


def panels(rng: random.Random) -> Figure:
    """2x1 to 3x3 sub-plots of several kinds, with or without frames."""
    rows, columns = rng.choice([(r, c) for r in (1, 2, 3) for c in (1, 2, 3) if r * c > 1])
    sheet = _Sheet(rng, rows, columns, least=560)
    framed = rng.random() < 0.5
    titles = rng.sample(TITLES, rows * columns)
    for axes, title in zip(sheet.axes, titles, strict=True):
        _draw_panel(axes, rng, title, framed)
    picture = sheet.draw()
    found = tuple(
        Panel(title, places(*divmod(number, columns), rows, columns, rng), sheet.box(axes.get_window_extent()))
        for number, (axes, title) in enumerate(zip(sheet.axes, titles, strict=True))
    )
    name = f"{sheet.style}, {'framed' if framed else 'open'} {rows}x{columns}"
    return Figure(picture, name, sheet.written(), panels=found)


def _draw_panel(axes: Any, rng: random.Random, title: str, framed: bool) -> None:
    kind = rng.choice(("bar", "line", "scatter", "barh"))
    count = 3
    values = [rng.randint(10, 99) for _ in range(count)]
    names = rng.sample([name for name in CATEGORIES if len(name) <= 5], count)
    if kind == "bar":
        axes.bar(names, values)
    elif kind == "barh":
        axes.barh(names, values)
    elif kind == "line":
        axes.plot(sorted(rng.sample(range(30), 8)), [rng.random() * 40 for _ in range(8)], marker="o")
    else:
        axes.scatter([rng.random() * 9 for _ in range(25)], [rng.random() * 9 for _ in range(25)])
    axes.set_title(title, fontsize=pyplot.rcParams["font.size"])
    if framed:
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(pyplot.rcParams["text.color"])
        axes.spines[:].set_linewidth(1)
    else:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(rng.random() < 0.3, axis="y")
    axes.xaxis.set_major_locator(axes.xaxis.get_major_locator() if kind == "bar" else MaxNLocator(3))
    axes.yaxis.set_major_locator(axes.yaxis.get_major_locator() if kind == "barh" else MaxNLocator(3))
    _fix_ticks(axes)
