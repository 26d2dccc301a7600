"""What a chart is: panels of labelled values, and how they look. `charts` makes them, `chart_drawing` draws them."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Split = Literal["train", "validation", "test"]
Color = tuple[int, int, int]  # red, green, blue; 0 to 255


@dataclass(frozen=True)
class ChartItem:
    label: str
    value: int
    color: str  # a name of the palettes, unique within its panel


@dataclass(frozen=True)
class Panel:
    kind: str
    title: str
    items: tuple[ChartItem, ...]
    box: tuple[float, float, float, float]  # percent of the picture: left, top, right, bottom


@dataclass(frozen=True)
class Style:
    """How a chart looks. Nothing here changes the answer to a question."""

    font: str
    font_size: int  # pixels; titles are one larger
    palette: str
    background: Color
    ink: Color
    grid: bool
    frame: bool  # around a single panel; the panels of a group always have one, so that pixels alone separate them
    title_left: bool
    headroom: float  # axis end / largest value: keeps the height of a bar from telling its value
    thickness: float  # of bars, share of their slot
    turn: float  # where the first slice of a pie starts, degrees


@dataclass(frozen=True)
class Chart:
    panels: tuple[Panel, ...]
    style: Style
    seed: str  # what it was made from, to make it again

    @cached_property
    def digest(self) -> str:
        """sha256 of what the chart says (not of how it looks): decides its split and names it."""
        content = [[p.kind, p.title, [[i.label, i.value] for i in p.items]] for p in self.panels]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def split(self) -> Split:
        residue = int(self.digest, 16) % 10
        return "train" if residue < 8 else "validation" if residue == 8 else "test"
