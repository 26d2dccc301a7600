"""Where in a picture is what a description names? Words, colours and places, without a language model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinkimg.tools.vision.layout import centre
from thinkimg.tools.vision.marks import EDGES, LINES, MARKS, Scene, mark_of, mark_of_series, named_words
from thinkimg.tools.vision.matching import PLACES, best_texts, by_position, explained, key_words, words
from thinkimg.tools.vision.regions import Region, color_in
from thinkimg.tools.vision.subplots import Panel

_TITLE = frozenset({"title", "heading", "caption"})
_NOUNS = "panel|sub-?plot|plot|chart|figure|graph"
_LEADING = frozenset({*_NOUNS.replace("-?", "").split("|"), "in", "of", "from", "on", "at"})
"""Words that lead to a sub-plot's name."""
_PLACED_PANEL = re.compile(
    rf"(?:\b(?:in|of|from|on|at)\s+)?(?:\bthe\s+)?\b(?:(?:{'|'.join(sorted(PLACES))})[\s-]+)+(?:{_NOUNS})\b",
    re.IGNORECASE,
)
"""`in the top left panel`."""


@dataclass(frozen=True)
class Place:
    x: float  # pixels
    y: float
    label: str


def find(description: str, scene: Scene, panels: Callable[[], Sequence[Panel]]) -> list[Place]:
    """The places that are meant, each with what is there; none where nothing is that the description names. What a
    sub-plot is named with (`the East bar of Revenue`, `East in the top left panel`) is looked for in there.

    Args:
        panels: finds the sub-plots, which takes a while and is not always needed.
    """
    if placed := _PLACED_PANEL.search(description):
        return _find_in_placed_panel(description, placed, scene, panels())
    return _find(description, scene) or _find_in_titled_panel(description, scene, panels())


def _find_in_placed_panel(
    description: str, placed: re.Match[str], scene: Scene, panels: Sequence[Panel]
) -> list[Place]:
    """Of the sub-plot at a place; of the whole picture where it has none."""
    rest = description[: placed.start()] + description[placed.end() :]
    if len(panels) < 2 or not key_words(rest):
        return _find(description, scene)
    chosen = by_position(placed[0], [panel.box for panel in panels], scene.size)
    return _find(rest, scene.within(panels[chosen[0]].box)) if len(chosen) == 1 else []


def _find_in_titled_panel(description: str, scene: Scene, panels: Sequence[Panel]) -> list[Place]:
    """Of exactly one sub-plot, named by a word of its title that no other title has."""
    if len(panels) < 2:
        return []
    named = [(panel, rest) for panel in panels if (rest := _without_title(description, panel, panels))]
    return _find(named[0][1], scene.within(named[0][0].box)) if len(named) == 1 else []


def _without_title(description: str, panel: Panel, panels: Sequence[Panel]) -> str:
    """What the description says beside words of this sub-plot's title; nothing if it has none that are this title's
    own."""
    others = {word for other in panels if other is not panel for word in words(other.title)}
    own = set(key_words(panel.title)) - others
    said = words(description)
    if not own & set(said):
        return ""
    return " ".join(word for word in said if word not in words(panel.title) and word not in _LEADING)


def _find(description: str, scene: Scene) -> list[Place]:
    said = words(description)
    quoted = re.findall(r"[\"“']([^\"”']+)[\"”']", description)
    if not quoted and (axis := _axis_label(said, scene)):
        return [axis]
    exact = [item for item in scene.items if words(item.text) == said]
    if exact:  # also where it speaks of an area or of points
        return [Place(*centre(item.box), item.text) for item in exact]
    asked = set(said) - set(words(quoted[0])) if quoted else set(said)
    subject = quoted[0] if quoted else " ".join(w for w in said if w not in MARKS | EDGES) or description
    if MARKS & asked and (pair := mark_of_series(said, scene)):
        return [_point_at(pair[0], f"{pair[1].text}, {pair[2].text}", said)]
    meant = named_words(words(subject))
    texts = [scene.items[index] for index in best_texts(subject, [item.text for item in scene.items])]
    texts = [item for item in texts if explained(meant, [item.text])]
    if texts and MARKS & asked:
        marks = [(mark, item) for item in texts if (mark := mark_of(item, said, scene)) is not None]
        return [_point_at(mark, item.text, said) for mark, item in marks]
    if texts and not LINES & asked:
        return [Place(*centre(item.box), item.text) for item in texts]
    if not explained(meant, []):
        return []
    if color := color_in(said):
        return _colored(color, said, scene)
    if _TITLE & asked and not quoted and scene.items:
        return [Place(*centre(scene.items[0].box), scene.items[0].text)]
    return _placed(description, said, scene)


def _axis_label(said: Sequence[str], scene: Scene) -> Place | None:
    """`the x-axis label`: the lowest text; `the y-axis label`: the leftmost of those that are written upwards."""
    if "axis" not in said or not {"label", "title", "name"} & set(said):
        return None
    if {"x", "horizontal"} & set(said):
        lowest = max(scene.items, key=lambda item: centre(item.box)[1], default=None)
        return Place(*centre(lowest.box), lowest.text) if lowest else None
    if not {"y", "vertical"} & set(said):
        return None
    upwards = [item for item in scene.items if item.box[3] - item.box[1] > 1.5 * (item.box[2] - item.box[0])]
    leftmost = min(upwards, key=lambda item: item.box[0], default=None)
    return Place(*centre(leftmost.box), leftmost.text) if leftmost else None


def _colored(color: str, said: list[str], scene: Scene) -> list[Place]:
    """Regions of that colour; where a large one exists, the much smaller ones (legend keys, crumbs) are left out."""
    regions = [region for region in scene.regions if region.color == color]
    return [_point_at(r, color, said) for r in regions if r.area > 0.2 * regions[0].area]


def _placed(description: str, said: list[str], scene: Scene) -> list[Place]:
    """`second bar`, `leftmost bar`: marks by their order."""
    if not MARKS & set(said):
        return []
    marks = sorted(
        (region for region in scene.regions if region.area > 0.1 * scene.regions[0].area), key=_reading_place
    )
    chosen = by_position(description, [mark.box for mark in marks], scene.size)
    return [_point_at(marks[index], marks[index].color, said) for index in chosen]


def _reading_place(region: Region) -> tuple[float, float]:
    return region.box[0], region.box[1]


def _point_at(region: Region, label: str, said: list[str]) -> Place:
    """The middle of a mark, or its end where the description says top, tip or end."""
    x1, y1, x2, y2 = region.box
    if not EDGES & set(said):
        return Place(*region.inside, label)
    sideways = "top" not in said and x2 - x1 > y2 - y1
    return Place(x2, (y1 + y2) / 2, label) if sideways else Place((x1 + x2) / 2, y1, label)


def listing(scene: Scene) -> str:
    """What there is to point to."""
    texts = ", ".join(f'"{item.text}"' for item in scene.items[:30]) or "none"
    colors = ", ".join(dict.fromkeys(region.color for region in scene.regions)) or "none"
    return f"Texts found: {texts}. Colors found: {colors}."
