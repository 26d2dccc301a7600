"""Charts that any program can draw, and what is asked about them. No program, no pixels.

One quarter of the questions are about things that are not there.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("bars", "lying bars", "grouped", "stacked", "slices", "lines", "areas")
_NAMES = (
    ("Tank A", "Tank B", "Tank C", "Tank D", "Tank E", "Tank F", "Tank G"),
    ("Lisbon", "Oslo", "Vienna", "Prague", "Athens", "Dublin", "Zagreb"),
    ("Cherry", "Walnut", "Maple", "Birch", "Cedar", "Hazel", "Willow"),
    ("Group 11", "Group 12", "Group 13", "Group 14", "Group 15", "Group 16", "Group 17"),
    ("2011", "2012", "2013", "2014", "2015", "2016", "2017"),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
)
_SERIES = (
    ("Plan", "Result", "Last year", "Target"),
    ("Import", "Export", "Transit", "Storage"),
    ("Model X1", "Model X2", "Model X3", "Model X4"),
)
_TITLES = (
    "Water drawn per month", "Orders by region", "Noise levels", "Repairs and their cost", "Staff on duty",
    "Parcels delivered", "Heat loss", "Tickets sold", "Grain in store", "Hours of sunshine",
)  # fmt: skip
_ABSENT_TITLES = ("Fuel prices", "Library loans", "Milk yield", "Snow depth")
_VALUE_AXES = ("Litres", "Share in percent", "Euros per head", "Number of items", "Kilowatt hours")
_CATEGORY_AXES = ("Place", "Kind", "Period", "Batch")
_PALETTES = (
    ("#3a6ea5", "#d1495b", "#edae49", "#66a182", "#8d5a97", "#5f6b6d", "#b3763a"),
    ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d"),
    ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1"),
)
_MARK = {"slices": "slice", "lines": "line", "areas": "area"}
FEW_SERIES = ("grouped", "stacked", "lines", "areas")


@dataclass(frozen=True)
class Chart:
    """What a program is told to draw.

    Attributes:
        values: a row for each series, 1 to 100.
        colors: of the series, of a single series, or of each slice.
        share: of a category's room that its bars fill, 0 to 1.
        legend: `right`, `top` or `bottom`; charts with one series have none, but slices always have.
        slant: whether the categories' labels are turned by 45 degrees.
        size: width and height in pixels.
        font: size of letters in pixels.
    """

    kind: str
    title: str
    categories: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    colors: tuple[str, ...]
    category_axis: str
    value_axis: str
    size: tuple[int, int]
    font: int
    dark: bool
    share: float
    legend: str
    slant: bool

    def marks(self) -> list[tuple[int, int]]:
        """(series, category) of each mark; an area is one mark, at category 0."""
        return [
            (s, c) for s in range(len(self.series)) for c in range(1 if self.kind == "areas" else len(self.categories))
        ]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Question:
    """Attributes:
    kind: as it is reported.
    mark: that is meant, None where it is a text or nothing.
    text: that is meant, "" where it is a mark or nothing.
    """

    kind: str
    description: str
    mark: tuple[int, int] | None = None
    text: str = ""

    @property
    def absent(self) -> bool:
        return self.mark is None and not self.text


def make_charts(count: int, seed: int, family: str, kinds: tuple[str, ...] = KINDS) -> Iterator[Chart]:
    """`count` charts of each kind; the same for the same arguments."""
    for number in range(count):
        for kind in kinds:
            yield _make_chart(random.Random(f"{seed}/{family}/{kind}/{number}"), kind)


def _make_chart(rng: random.Random, kind: str) -> Chart:
    names = list(rng.choice(_NAMES))
    count = rng.randint(3, 6 if kind in ("bars", "lying bars", "slices") else 5)
    start = rng.randint(0, len(names) - count)
    categories = tuple(names[start : start + count])
    series = tuple(rng.choice(_SERIES)[: rng.randint(2, 3)]) if kind in FEW_SERIES else ("Amount",)
    values = tuple(tuple(_value(rng, kind) for _ in categories) for _ in series)
    palette = list(rng.choice(_PALETTES))
    rng.shuffle(palette)
    width = rng.choice((420, 560, 640, 800, 960, 1280))
    return Chart(
        kind, rng.choice(_TITLES), categories, series, values,
        tuple(palette[: count if kind == "slices" else len(series)]),
        rng.choice(_CATEGORY_AXES), rng.choice(_VALUE_AXES), (width, width * 3 // 4),
        max(12, round(width * rng.uniform(0.02, 0.027))), rng.random() < 0.2,
        rng.choice((0.6, 0.8, 0.95)), rng.choice(("right", "top", "bottom")),
        rng.random() < 0.25 and kind not in ("slices", "lying bars"),
    )  # fmt: skip


def _value(rng: random.Random, kind: str) -> int:
    """Every sixth bar is tiny beside the others."""
    if kind in ("slices", "areas", "lines", "stacked"):
        return rng.randint(15, 99)
    return rng.randint(2, 6) if rng.random() < 1 / 6 else rng.randint(15, 99)


def questions(chart: Chart, seed: int) -> list[Question]:
    """Up to three marks, four texts and the legend; then a third of their number about what is not there."""
    rng = random.Random(f"{seed}/{chart}")
    marks = rng.sample(chart.marks(), min(3, len(chart.marks())))
    asked = [Question(_reported(chart.kind), _named(chart, *mark), mark=mark) for mark in marks]
    texts = [("the title", chart.title), (f'"{rng.choice(chart.categories)}"', "")]
    if chart.kind != "slices":
        texts.append((rng.choice(("the y-axis label", chart.value_axis)), chart.value_axis))
        if chart.kind == "lying bars":
            texts[-1] = (rng.choice(("the x-axis label", chart.value_axis)), chart.value_axis)
    asked += [Question("texts", said, text=text or said.strip('"')) for said, text in texts]
    entries = chart.categories if chart.kind == "slices" else chart.series if len(chart.series) > 1 else ()
    if entries:
        entry = rng.choice(entries)
        asked.append(Question("legend", f'legend entry "{entry}"', text=entry))
    missing = _missing(chart, rng)
    rng.shuffle(missing)
    return asked + missing[: max(1, round(len(asked) / 3))]


def _reported(kind: str) -> str:
    return kind if kind in ("lying bars", "slices", "lines", "areas") else "bars"


def _named(chart: Chart, series: int, category: int) -> str:
    mark = _MARK.get(chart.kind, "bar")
    if chart.kind == "areas":
        return f"the {chart.series[series]} area"
    if chart.kind == "lines":
        return f"the {chart.series[series]} line at {chart.categories[category]}"
    if len(chart.series) > 1:
        return f"the {chart.series[series]} {mark} of {chart.categories[category]}"
    return f"the {mark} of {chart.categories[category]}"


def _missing(chart: Chart, rng: random.Random) -> list[Question]:
    """Names that resemble those of the chart, names of others, and titles."""
    mark = _MARK.get(chart.kind, "bar")
    others = [name for names in _NAMES for name in names if name not in chart.categories]
    near = [name for name in others if any(name in names and chart.categories[0] in names for names in _NAMES)]
    category = rng.choice(near if near and rng.random() < 0.5 else others)
    several = next(names for names in _SERIES if chart.series[0] in names) if len(chart.series) > 1 else ()
    absent_series = [name for name in several if name not in chart.series] or ["Reserve"]
    said = [f'the title "{rng.choice(_ABSENT_TITLES)}"', f'"{category}"']
    if chart.kind == "areas":
        said.append(f"the {rng.choice(absent_series)} area")
    elif len(chart.series) > 1:
        at = "at" if chart.kind == "lines" else "of"
        said.append(f"the {rng.choice(chart.series)} {mark} {at} {category}")
        said.append(f"the {rng.choice(absent_series)} {mark} {at} {rng.choice(chart.categories)}")
        said.append(f'legend entry "{rng.choice(absent_series)}"')
    else:
        said += [f"the {mark} of {category}"] * 2
    return [Question("absent", each) for each in dict.fromkeys(said)]
