"""Synthetic charts and questions about them, with exact answers.

A chart prints every value, so a tool that reads text can answer any question about values, while a model that sees only
a small version of the picture can answer those about counts, colours and sizes. A group of panels repeats its labels
with other values: reading the whole picture is not enough there, the right panel must be found.

Every chart belongs to one split by the digest of its content, so splits are disjoint whatever the seeds.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from thinkimg.data.chart import Chart, ChartItem, Panel, Split, Style
from thinkimg.data.chart_drawing import BACKGROUNDS, FONT_NAMES, INKS, PALETTES

# Words that OCR reads without doubt at 12 pixels: no capital I or O, no l at the start, no pairs like "rn". The short
# ones are narrow too, so that OCR does not read neighbours in a row of labels as one line.
SHORT_LABELS = (
    "Ant", "Bat", "Bee", "Bun", "Cat", "Egg", "Fig", "Hen", "Jam", "Fox", "Nut", "Pea", "Rat", "Tea", "Yak",
)  # fmt: skip
LONG_LABELS = (
    "Bean", "Beef", "Cake", "Cow", "Crab", "Date", "Deer", "Dog", "Duck", "Fish", "Frog", "Goat", "Ham", "Hawk", "Kale",
    "Mint", "Moth", "Pear", "Rice", "Soup", "Swan", "Toad", "Tuna", "Bread", "Grape", "Mango", "Peach", "Zebra",
)  # fmt: skip
TITLES = (
    "North", "South", "East", "West", "March", "April", "June", "August", "Monday", "Friday", "Sunday", "Paris",
    "Tokyo", "Cairo", "Rome", "Berlin", "Madrid", "Texas", "Spring", "Summer", "Autumn", "Winter",
)  # fmt: skip

SINGLE_KINDS = ("bar", "barh", "line", "pie")
PANEL_KINDS = ("bar", "barh", "line")
COLUMN_KINDS = ("bar", "line")  # labels side by side under an axis
MARKS = {"bar": "bars", "barh": "bars", "line": "points", "pie": "slices"}
COMPARATIVES = {"bar": ("taller", "bar"), "barh": ("longer", "bar"), "pie": ("larger", "slice")}
CLEAR_DIFFERENCE = 25  # of two values whose bars or slices a question compares
ITEMS_PER_PANEL = 3

# Boxes in percent of the picture. The gaps between panels are white space as well as frames.
LAYOUTS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "single": ((0, 0, 100, 100),),
    "side": ((1.5, 1.5, 48.5, 98.5), (51.5, 1.5, 98.5, 98.5)),
    "stack": ((1.5, 1.5, 98.5, 48.5), (1.5, 51.5, 98.5, 98.5)),
    "grid": ((1.5, 1.5, 48.5, 48.5), (51.5, 1.5, 98.5, 48.5), (1.5, 51.5, 48.5, 98.5), (51.5, 51.5, 98.5, 98.5)),
}

DEFAULT_MIX: Mapping[str, float] = MappingProxyType(
    {"value": 0.42, "panel-value": 0.30, "count": 0.12, "compare": 0.12, "panels": 0.04}
)


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answer: str
    kind: str
    chart: Chart
    panel: str | None  # title of the panel asked about, where there are several
    label: str | None  # of the item asked for


@dataclass(frozen=True)
class Difficulty:
    items: tuple[int, int]  # in a single panel; at most 6 in columns, whose labels would touch
    fonts: tuple[int, int]  # pixels
    colors: int
    layouts: tuple[str, ...]  # of several panels
    words: int | None = None  # of titles, short labels and long labels, the first so many of each; None for all


DIFFICULTIES = {
    1: Difficulty(items=(2, 5), fonts=(13, 15), colors=5, layouts=("side", "stack"), words=8),
    2: Difficulty(items=(2, 6), fonts=(12, 14), colors=7, layouts=("side", "stack", "grid")),
    3: Difficulty(items=(3, 8), fonts=(12, 13), colors=9, layouts=("side", "grid", "grid")),
}


def make_charts(split: Split, count: int | None, seed: int, difficulty: int = 1) -> Iterator[Chart]:
    """`count` different charts of one split (None: without end), the same for the same arguments. About two in five
    have several panels."""
    return itertools.islice(_charts_of(split, seed, difficulty), count)


def make_questions(
    split: Split,
    count: int,
    seed: int,
    difficulty: int = 1,
    mix: Mapping[str, float] = DEFAULT_MIX,
    per_chart: int = 3,
) -> list[Question]:
    """`count` questions whose kinds follow `mix` exactly (rounded) and whose answers are balanced within a kind.

    At most `per_chart` questions share a chart. Raises ValueError for a kind of question that does not exist.
    """
    if unknown := set(mix) - set(DEFAULT_MIX):
        raise ValueError(f"unknown kinds of question {sorted(unknown)}; there are {sorted(DEFAULT_MIX)}")
    if per_chart < 1:
        raise ValueError(f"per_chart must be at least 1, not {per_chart}")
    rng = _rng("questions", split, seed, difficulty)
    demand = _demand(count, mix, _difficulty(difficulty))
    questions: list[Question] = []
    charts = make_charts(split, None, seed, difficulty)
    while demand.total():
        questions += _ask_about_best(list(itertools.islice(charts, 12)), demand, per_chart, rng)
    rng.shuffle(questions)
    return questions


def _rng(*parts: object) -> random.Random:
    """A generator of its own for every purpose, so that nothing here depends on what else was drawn."""
    return random.Random(hashlib.sha256("/".join(map(str, parts)).encode()).digest())


def _difficulty(level: int) -> Difficulty:
    if level not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {sorted(DIFFICULTIES)}, not {level}")
    return DIFFICULTIES[level]


def _charts_of(split: Split, seed: int, difficulty: int) -> Iterator[Chart]:
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)}, not {split!r}")
    level = _difficulty(difficulty)
    seen: set[str] = set()
    for index in itertools.count():
        chart = _make_chart(f"{split}/{seed}/{difficulty}/{index}", level)
        if chart.split == split and chart.digest not in seen:
            seen.add(chart.digest)
            yield chart


def _labels(level: Difficulty, crowded: bool) -> tuple[str, ...]:
    short = SHORT_LABELS[: level.words]
    return short if crowded else short + LONG_LABELS[: level.words]


def _make_chart(seed: str, level: Difficulty) -> Chart:
    rng = _rng("chart", seed)
    layout = rng.choice(level.layouts) if rng.random() < 0.4 else "single"
    boxes = LAYOUTS[layout]
    kinds = [rng.choice(SINGLE_KINDS if layout == "single" else PANEL_KINDS) for _ in boxes]
    count = _count_items(rng, kinds, level)
    crowded = _is_crowded(kinds, layout, count)
    labels = rng.sample(_labels(level, crowded), count)
    titles = rng.sample(TITLES[: level.words], len(boxes))
    # All values of a chart differ: the right value of the wrong panel is then a wrong answer.
    values = iter(rng.sample(range(10, 100), len(boxes) * len(labels)))
    colors = tuple(PALETTES["plain"])[: level.colors]
    panels = []
    for kind, title, box in zip(kinds, titles, boxes, strict=True):
        order = rng.sample(labels, len(labels))
        paint = rng.sample(colors, len(labels))
        items = tuple(ChartItem(label, next(values), color) for label, color in zip(order, paint, strict=True))
        panels.append(Panel(kind, title, items, box))
    small = crowded or layout != "single"
    return Chart(tuple(panels), _make_style(rng, level, small), seed)


def _count_items(rng: random.Random, kinds: list[str], level: Difficulty) -> int:
    if len(kinds) > 1:
        return ITEMS_PER_PANEL
    low, high = level.items
    return rng.randint(low, min(high, 6) if kinds[0] in COLUMN_KINDS else high)


def _is_crowded(kinds: list[str], layout: str, count: int) -> bool:
    """Whether a row of labels needs short words in small letters to keep its neighbours apart."""
    columns = any(kind in COLUMN_KINDS for kind in kinds)
    return columns and (count > 4 if layout == "single" else layout != "stack")


def _make_style(rng: random.Random, level: Difficulty, small: bool) -> Style:
    low, high = level.fonts
    return Style(
        font=rng.choice(FONT_NAMES),
        font_size=low if small else rng.randint(low, high),
        palette=rng.choice(tuple(PALETTES)),
        background=rng.choice(BACKGROUNDS),
        ink=rng.choice(INKS),
        grid=rng.random() < 0.5,
        frame=rng.random() < 0.5,
        title_left=rng.random() < 0.3,
        headroom=rng.uniform(1.03, 1.3),
        thickness=rng.uniform(0.5, 0.75),
        turn=rng.uniform(0, 360),
    )


# What is still to be asked: (kind, answer) where answers are balanced by quota, (kind, "") where values are free.
Demand = Counter[tuple[str, str]]


def _demand(count: int, mix: Mapping[str, float], level: Difficulty) -> Demand:
    demand: Demand = Counter()
    for kind, number in _apportion(count, mix).items():
        answers = _answers(kind, level)
        for index in range(number):
            demand[kind, answers[index % len(answers)]] += 1
    return demand


def _apportion(count: int, mix: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in the proportions of `mix` that add up to `count` (largest remainder)."""
    total = sum(mix.values())
    if total <= 0 or min(mix.values()) < 0:
        raise ValueError(f"the mix needs shares that are not negative and at least one above zero: {dict(mix)}")
    exact = {kind: count * share / total for kind, share in mix.items()}
    whole = {kind: int(number) for kind, number in exact.items()}
    by_remainder = sorted(exact, key=lambda kind: (whole[kind] - exact[kind], kind))
    for kind in by_remainder[: count - sum(whole.values())]:
        whole[kind] += 1
    return whole


def _answers(kind: str, level: Difficulty) -> tuple[str, ...]:
    if kind == "count":
        return tuple(str(number) for number in range(level.items[0], level.items[1] + 1))
    if kind == "compare":
        return tuple(PALETTES["plain"])[: level.colors]
    if kind == "panels":
        return tuple(sorted({str(len(LAYOUTS[name])) for name in ("single", *level.layouts)}))
    return ("",)


def _ask_about_best(charts: list[Chart], demand: Demand, per_chart: int, rng: random.Random) -> list[Question]:
    """Of some charts take the one that serves the demand best, and ask about it. Few charts are then needed."""
    chosen = max(([_choose(chart, demand, per_chart, rng)] for chart in charts), key=lambda c: len(c[0]))[0]
    for question in chosen:
        demand[_key(question)] -= 1
    return chosen


def _choose(chart: Chart, demand: Demand, limit: int, rng: random.Random) -> list[Question]:
    """Up to `limit` questions about one chart, the most wanted kinds first, no kind twice but those about values."""
    left = Counter(demand)
    chosen: list[Question] = []
    candidates = _questions_about(chart, rng)
    rng.shuffle(candidates)
    candidates.sort(key=lambda question: question.kind in ("value", "panel-value"))  # the choosy ones first
    for question in candidates:
        if len(chosen) < limit and left[_key(question)] > 0 and not _repeats(question, chosen):
            left[_key(question)] -= 1
            chosen.append(question)
    return chosen


def _key(question: Question) -> tuple[str, str]:
    return question.kind, "" if question.kind in ("value", "panel-value") else question.answer


def _repeats(question: Question, chosen: list[Question]) -> bool:
    return question.kind not in ("value", "panel-value") and any(other.kind == question.kind for other in chosen)


def _questions_about(chart: Chart, rng: random.Random) -> list[Question]:
    panels = _question(chart, "panels", "How many panels are there?", str(len(chart.panels)))
    if len(chart.panels) > 1:
        return [panels, *(_panel_value(chart, panel, item) for panel in chart.panels for item in panel.items)]
    (panel,) = chart.panels
    count = _question(chart, "count", f"How many {MARKS[panel.kind]} are there?", str(len(panel.items)))
    return [panels, count, *_comparisons(chart, rng), *(_value(chart, item) for item in panel.items)]


def _question(
    chart: Chart, kind: str, text: str, answer: str, panel: str | None = None, label: str | None = None
) -> Question:
    name = "-".join(part for part in (chart.digest[:16], kind, panel, label) if part)
    return Question(name, text, answer, kind, chart, panel, label)


def _value(chart: Chart, item: ChartItem) -> Question:
    return _question(chart, "value", f"What is the value of {item.label}?", str(item.value), label=item.label)


def _panel_value(chart: Chart, panel: Panel, item: ChartItem) -> Question:
    text = f"What is the value of {item.label} in {panel.title}?"
    return _question(chart, "panel-value", text, str(item.value), panel.title, item.label)


def _comparisons(chart: Chart, rng: random.Random) -> list[Question]:
    (panel,) = chart.panels
    if panel.kind not in COMPARATIVES:
        return []
    adjective, mark = COMPARATIVES[panel.kind]
    questions = []
    for pair in itertools.combinations(panel.items, 2):
        if abs(pair[0].value - pair[1].value) < CLEAR_DIFFERENCE:
            continue
        one, other = rng.sample(pair, 2)  # else the order of drawing would tell
        text = f"Which is {adjective}, the {one.color} {mark} or the {other.color} {mark}?"
        questions.append(_question(chart, "compare", text, max(pair, key=lambda item: item.value).color))
    return questions
