"""Charts by programs that have nothing in common with our own drawing, for measuring the tools that look at pixels.

The tools may be tuned on `TUNING`. `JUDGING` is what they are judged by: nothing is tuned on it, ever.
"""

from collections.abc import Callable, Iterator, Sequence

from . import documents, pages, seaborn_styles
from .charts import Chart
from .truth import Drawn

TUNING = ("chartjs", "bokeh", "table", "seaborn")
JUDGING = ("ggplot2", "libreoffice", "d3")
KINDS_OF = {"table": ("lying bars",)}
"""Families that draw some kinds only."""

_MODULES = {
    "chartjs": pages, "bokeh": pages, "table": pages, "d3": pages, "seaborn": seaborn_styles,
    "ggplot2": documents, "libreoffice": documents,
}  # fmt: skip


def lacking(family: str) -> str:
    """What must be installed before the family can be drawn, and how; "" for nothing."""
    return _MODULES[family].lacking(family)


def draw(family: str, charts: Sequence[Chart]) -> Iterator[Drawn]:
    drawing: Callable[[str, Sequence[Chart]], Iterator[Drawn]] = _MODULES[family].draw
    return drawing(family, charts)
