"""Bars, slices and areas of a chart, by the texts that name them: their category, their series' key."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from thinkimg.tools.vision.geometry import Box
from thinkimg.tools.vision.layout import centre, contains, union
from thinkimg.tools.vision.matching import explained, words
from thinkimg.tools.vision.regions import Region, color_in, key_color
from thinkimg.tools.vision.text import TextItem

MARKS = frozenset({"bar", "column", "slice", "wedge", "marker", "dot", "point", "area", "segment"})
MARKS |= {word + "s" for word in MARKS}
_COLORED = frozenset({"slice", "slices", "wedge", "wedges", "area", "areas", "segment", "segments"})
LINES = frozenset({"line", "lines", "curve", "curves"})
_ROLES = frozenset(
    words(
        """title heading caption legend entry label axis text tick category series value data x y by from as s please
        corresponding representing represents showing shows shown reading says"""
    )
)
EDGES = frozenset({"top", "tip", "end"})


@dataclass(frozen=True)
class Scene:
    """What was found in a picture.

    Attributes:
        items: strings in reading order.
        regions: plain areas, largest first.
        size: width and height in pixels.
        pixels: uint8, shape (height, width, 3).
    """

    items: list[TextItem]
    regions: list[Region]
    size: tuple[int, int]
    pixels: np.ndarray = field(repr=False)

    def within(self, box: Box) -> "Scene":
        """What of it is in a part of the picture, at the same places."""
        items = [item for item in self.items if contains(box, centre(item.box))]
        regions = [region for region in self.regions if contains(box, region.inside)]
        return replace(self, items=items, regions=regions)


def named_words(said: Sequence[str]) -> list[str]:
    """The words that something in the picture must explain."""
    return [word for word in said if word not in MARKS | EDGES | _ROLES and color_in([word]) is None]


def mark_of_series(said: Sequence[str], scene: Scene) -> tuple[Region, TextItem, TextItem] | None:
    """`the Online bar of 2021`: of the regions in the colour of one text's legend key, the one at another text.

    Gives region, series, category.
    """
    named = [item for item in scene.items if (own := words(item.text)) and set(own) <= set(said)]
    for series in named:
        color = key_color(scene.pixels, series)
        categories = [item for item in named if item is not series]
        if color is None or not categories:
            continue
        same = [region for region in scene.regions if np.abs(np.subtract(region.rgb, color)).max() <= 40]
        same = [region for region in same if not _beside(region, series)]
        category = categories[-1]
        if same and explained(named_words(said), [series.text, category.text]):
            large = [region for region in same if region.area > 0.1 * same[0].area]
            along = 0 if _spread(large, 3) <= _spread(large, 0) else 1  # bars that stand have one floor
            room = 0.55 * _step(category, along, scene)
            near = [r for r in same if abs(centre(r.box)[along] - centre(category.box)[along]) <= room]
            if near:
                nearest = min(near, key=lambda r: abs(centre(r.box)[along] - centre(category.box)[along]))
                return _whole(nearest, near, along), series, category
    return None


def _step(category: TextItem, along: int, scene: Scene) -> float:
    """Pixels from a category's label to the nearest other one in its row (`along` 0) or column (1)."""
    line = min(category.box[3] - category.box[1], category.box[2] - category.box[0])
    here = centre(category.box)
    gaps = []
    for item in scene.items:
        place = centre(item.box)
        if abs(place[1 - along] - here[1 - along]) < (0.6 if along == 0 else 4) * line:
            gaps.append(abs(place[along] - here[along]))
    return min((gap for gap in gaps if gap > line / 2), default=scene.size[along] / 2)


def _whole(part: Region, same: Sequence[Region], along: int) -> Region:
    """The bar that `part` is of: a text on it may have cut it in two."""
    low, high = part.box[along], part.box[along + 2]
    box = union(r.box for r in same if low <= centre(r.box)[along] <= high)
    return replace(part, box=box, inside=centre(box))


def _spread(regions: Sequence[Region], side: int) -> float:
    places = [region.box[side] for region in regions]
    return max(places) - min(places)


def _beside(region: Region, item: TextItem) -> bool:
    """Whether the region is the legend's key at the left of the text."""
    line = min(item.box[3] - item.box[1], item.box[2] - item.box[0])
    x, y = centre(region.box)
    in_row = item.box[1] - line / 2 <= y <= item.box[3] + line / 2
    return in_row and item.box[0] - 9 * line <= region.box[0] and x <= item.box[0]


def mark_of(item: TextItem, said: Sequence[str], scene: Scene) -> Region | None:
    """The bar that a category label belongs to: straight above it, or to the right in its row; the nearer one. A slice
    or an area is the largest region in the colour of the label's key, where it has one."""
    if _COLORED & set(said) and (color := key_color(scene.pixels, item)) is not None:
        alike = [(float(np.abs(np.subtract(region.rgb, color)).max()), region) for region in scene.regions]
        same = [region for off, region in alike if off <= 24 and not _beside(region, item)]
        return same[0] if same else None
    if {"area", "areas"} & set(said):
        return None  # of no known colour
    x, y = centre(item.box)
    line = item.box[3] - item.box[1]
    candidates = []
    for region in scene.regions:
        x1, y1, x2, y2 = region.box
        if x1 - line / 2 <= x <= x2 + line / 2 and y2 <= y:
            candidates.append((item.box[1] - y2, region))
        elif y1 - line / 2 <= y <= y2 + line / 2 and x1 >= x:
            candidates.append((x1 - item.box[2], region))
        elif y1 - line / 2 <= y <= y2 + line / 2 and x2 <= x and x2 - x1 < 2.5 * line and item.box[0] - x2 < 2.5 * line:
            candidates.append((item.box[0] - x2, region))  # a legend key
    return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None
