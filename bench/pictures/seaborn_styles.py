"""Charts in the styles of seaborn, by matplotlib's own copies of them. Needs nothing that is not installed."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from PIL import Image as Pillow

matplotlib.use("Agg")
from matplotlib import pyplot

from .charts import Chart
from .truth import Box, Drawn, drawn, own_colors

_STYLES = ("seaborn-v0_8-whitegrid", "seaborn-v0_8-darkgrid", "seaborn-v0_8-ticks")
_DPI = 100


def lacking(program: str) -> str:
    return ""


def draw(program: str, charts: Sequence[Chart]) -> Iterator[Drawn]:
    for chart in charts:
        style = ["dark_background"] if chart.dark else [_STYLES[int(10 * chart.share) % 3]]
        with pyplot.style.context([*style, {"font.size": chart.font * 72 / _DPI}]):
            alone, _ = _draw(chart, True)
            picture, texts = _draw(chart, False)
        yield drawn(picture, alone, chart.marks(), texts)


def _draw(chart: Chart, alone: bool) -> tuple[Pillow.Image, dict[str, Box]]:
    small = chart.font * 72 / _DPI
    figure, axes = pyplot.subplots(figsize=(chart.size[0] / _DPI, chart.size[1] / _DPI), dpi=_DPI, layout="constrained")
    axes.set_title(chart.title, fontsize=1.25 * small)
    _marks(axes, chart, alone)
    if chart.kind != "slices":
        along, across = (axes.yaxis, axes.xaxis) if chart.kind == "lying bars" else (axes.xaxis, axes.yaxis)
        along.set_ticks(range(len(chart.categories)), labels=chart.categories, fontsize=small)
        along.set_label_text(chart.category_axis, fontsize=small)
        across.set_label_text(chart.value_axis, fontsize=small)
        across.set_tick_params(labelsize=small)
        if chart.slant:
            axes.tick_params(axis="x", labelrotation=45)
    entries = chart.categories if chart.kind == "slices" else chart.series if len(chart.series) > 1 else ()
    if entries:
        keys = [pyplot.Rectangle((0, 0), 1, 1, color=color) for color in chart.colors]
        place = {"right": "outside right upper", "top": "outside upper center", "bottom": "outside lower center"}[
            chart.legend
        ]
        figure.legend(
            keys, entries, loc=place, ncols=1 if chart.legend == "right" else min(3, len(entries)), fontsize=small
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    texts = _texts(figure, chart.size[1])
    pyplot.close(figure)
    return Pillow.open(buffer).convert("RGB"), texts


def _marks(axes: Any, chart: Chart, alone: bool) -> None:
    own = own_colors(chart.marks())
    places = range(len(chart.categories))
    base = [0] * len(chart.categories)
    for s, row in enumerate(chart.values):
        fills = [own.get((s, c), "") if alone else chart.colors[c if chart.kind == "slices" else s] for c in places]
        if chart.kind == "slices":
            axes.pie(row, colors=fills, startangle=90, wedgeprops={"edgecolor": axes.get_facecolor(), "linewidth": 1})
        elif chart.kind == "lines":
            axes.plot(places, row, color=chart.colors[s], linewidth=2)
            if alone:
                axes.scatter(places, row, s=40, c=fills, linewidths=0, zorder=10)
        elif chart.kind == "areas":
            top = [low + value for low, value in zip(base, row, strict=True)]
            axes.fill_between(places, base, top, color=fills[0], linewidth=0)
            base = top
        elif chart.kind == "lying bars":
            axes.barh(places, row, chart.share, color=fills, linewidth=0)
        else:
            many = len(chart.series) if chart.kind == "grouped" else 1
            offset = (s - (many - 1) / 2) * chart.share / many if many > 1 else 0
            axes.bar([c + offset for c in places], row, chart.share / many, bottom=base, color=fills, linewidth=0)
            if chart.kind == "stacked":
                base = [low + value for low, value in zip(base, row, strict=True)]


def _texts(figure: Any, height: int) -> dict[str, Box]:
    found: dict[str, Box] = {}
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            found[text.get_text()] = (box.x0, height - box.y1, box.x1, height - box.y0)
    return found
