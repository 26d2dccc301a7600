"""Charts as slides that LibreOffice draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .charts import Chart

_SIZE = 9_144_000, 6_858_000  # EMU: 720 x 540 points
_POINTS = 720


def write_deck(pages: Sequence[tuple[Chart, list[list[str]], bool]], path: Path) -> None:
    """A slide for each chart with its marks' colours; the flag says that each mark has its own."""
    from pptx import Presentation

    deck = Presentation()
    deck.slide_width, deck.slide_height = _SIZE
    for chart, fills, alone in pages:
        _add(deck, chart, fills, alone)
    deck.save(str(path))


def _add(deck: Any, chart: Chart, fills: list[list[str]], alone: bool) -> None:
    from pptx.chart.data import CategoryChartData
    from pptx.dml.color import RGBColor
    from pptx.enum.chart import XL_CHART_TYPE, XL_LEGEND_POSITION, XL_MARKER_STYLE
    from pptx.util import Pt

    kinds = {
        "bars": XL_CHART_TYPE.COLUMN_CLUSTERED, "grouped": XL_CHART_TYPE.COLUMN_CLUSTERED,
        "stacked": XL_CHART_TYPE.COLUMN_STACKED, "lying bars": XL_CHART_TYPE.BAR_CLUSTERED,
        "slices": XL_CHART_TYPE.PIE, "lines": XL_CHART_TYPE.LINE_MARKERS, "areas": XL_CHART_TYPE.AREA_STACKED,
    }  # fmt: skip

    def rgb(color: str) -> Any:
        return RGBColor.from_string(color[1:].upper())

    slide = deck.slides.add_slide(deck.slide_layouts[6])
    slide.background.fill.solid()
    slide.background.fill.fore_color.rgb = rgb("#22272e" if chart.dark else "#ffffff")
    ink = rgb("#e4e4e4" if chart.dark else "#303030")
    data = CategoryChartData()
    data.categories = [str(name) for name in chart.categories]
    for name, row in zip(chart.series, chart.values, strict=True):
        data.add_series(name, row)
    drawing = slide.shapes.add_chart(kinds[chart.kind], 0, 0, *_SIZE, data).chart
    size = Pt(round(chart.font * _POINTS / chart.size[0]))
    drawing.font.size, drawing.font.color.rgb = size, ink
    drawing.has_title = True
    drawing.chart_title.text_frame.text = chart.title
    drawing.chart_title.text_frame.paragraphs[0].runs[0].font.size = Pt(round(size.pt * 1.25))
    drawing.chart_title.text_frame.paragraphs[0].runs[0].font.color.rgb = ink
    drawing.has_legend = chart.kind == "slices" or len(chart.series) > 1
    if drawing.has_legend:
        places = {"right": XL_LEGEND_POSITION.RIGHT, "top": XL_LEGEND_POSITION.TOP, "bottom": XL_LEGEND_POSITION.BOTTOM}
        drawing.legend.position, drawing.legend.include_in_layout = places[chart.legend], False
    if chart.kind != "slices":
        for axis, name in ((drawing.category_axis, chart.category_axis), (drawing.value_axis, chart.value_axis)):
            axis.has_title = True
            axis.axis_title.text_frame.text = name
            run = axis.axis_title.text_frame.paragraphs[0].runs[0]
            run.font.size, run.font.color.rgb, run.font.bold = size, ink, False
        drawing.value_axis.minimum_scale = 0
    plot = drawing.plots[0]
    if hasattr(plot, "gap_width"):
        plot.gap_width = round(100 * (1 - chart.share) / chart.share) if chart.share < 0.9 else 2
    for s, series in enumerate(plot.series):
        if chart.kind == "lines":
            series.smooth = False
            series.format.line.color.rgb, series.format.line.width = rgb(chart.colors[s]), Pt(2)
            series.marker.style = XL_MARKER_STYLE.CIRCLE if alone else XL_MARKER_STYLE.NONE
            series.marker.size = 8
        elif chart.kind != "slices":
            series.format.fill.solid()
            series.format.fill.fore_color.rgb = rgb(fills[s][0] if chart.kind == "areas" else chart.colors[s])
        if chart.kind == "areas" or (chart.kind == "lines" and not alone):
            continue
        for c, color in enumerate(fills[s]):
            point = series.points[c]
            form = point.marker.format if chart.kind == "lines" else point.format
            if chart.kind == "lines":
                point.marker.style, point.marker.size = XL_MARKER_STYLE.CIRCLE, 8
                # A marker has the colour of its line; that of a hair-thin one is nowhere pure.
                point.format.line.color.rgb, point.format.line.width = rgb(color), Pt(0.1)
            form.fill.solid()
            form.fill.fore_color.rgb = rgb(color)
