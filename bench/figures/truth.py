"""What is known of a figure, in pixels."""

import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as Pillow

Box = tuple[float, float, float, float]  # left, top, right, bottom

CATEGORIES = (
    "Norway", "Brazil", "Kenya", "Japan", "Canada", "Peru", "Egypt", "India", "Spain", "Chile", "Apples", "Cotton",
    "Coffee", "Sugar", "Timber", "Copper", "Wheat", "Salt", "Trains", "Ferries", "Bicycles", "Trucks", "Metro",
    "Housing", "Health", "Energy", "Food", "Travel", "Science", "Music", "2019", "2020", "2021", "2022", "2023",
)  # fmt: skip
SERIES = ("Budget", "Actual", "Forecast", "Urban", "Rural", "Online", "Retail", "Men", "Women", "Before", "After")
TITLES = (
    "Exports by country", "Passengers", "Quarterly revenue", "Harvest", "Energy use", "Survey results", "Rainfall",
    "Population growth", "Test scores", "Market share", "Visitors", "Carbon emissions", "Unemployment", "Tourism",
    "Water quality", "Traffic", "Wages", "Birth rate", "Stock prices", "Wind speed", "Sleep", "Steel production",
)  # fmt: skip
AXES = ("Amount (kg)", "Sales", "Price in euros", "Count", "Percent", "Hours per week", "Distance (km)", "Score")
AXES_OF_CATEGORIES = ("Country", "Sector", "Group", "Product", "Region")


@dataclass(frozen=True)
class Written:
    """A string and the box of its ink."""

    text: str
    box: Box


@dataclass(frozen=True)
class Target:
    """Something to point to. `kind` is `bar`, `legend` or `axis`."""

    kind: str
    description: str
    x: float
    y: float


@dataclass(frozen=True)
class Area:
    """A bar or a slice: a point well inside it, and all its pixels (bool, shape (height, width))."""

    kind: str
    point: tuple[float, float]
    mask: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Panel:
    """A sub-plot: its title, the names of its place, and the box of its axes without texts."""

    title: str
    places: tuple[str, ...]
    box: Box


@dataclass(frozen=True)
class Figure:
    picture: Pillow.Image = field(repr=False)
    style: str
    written: tuple[Written, ...] = ()
    targets: tuple[Target, ...] = ()
    areas: tuple[Area, ...] = ()
    panels: tuple[Panel, ...] = ()


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ROWS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COLUMNS = {1: ("",), 2: ("left", "right"), 3: ("left", "center", "right")}


def places(row: int, column: int, rows: int, columns: int, rng: random.Random) -> tuple[str, ...]:
    """Ways to name the place of a panel in a grid: by words, by order, by letter or by row and column."""
    vertical, horizontal = _ROWS[rows][row], _COLUMNS[columns][column]
    words = " ".join(word for word in (vertical, horizontal) if word)
    words = "center" if words == "middle center" else words
    number = row * columns + column
    other = (
        f"{_ORDINALS[number]} subplot",
        f"subplot {number + 1}",
        f"panel ({'abcdefghi'[number]})",
        f"row {row + 1}, column {column + 1}",
    )
    return f"the {words} panel", rng.choice(other)
