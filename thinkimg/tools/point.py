"""Point: where in an image is what a description names?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image as Pillow
from pydantic import Field, field_validator

from thinkimg.cache import BoundedCache
from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Text
from thinkimg.tools.backends.options import EndpointOptions
from thinkimg.tools.backends.rapidocr import shared_reader
from thinkimg.tools.backends.text_reader import TextReader, kept_pictures
from thinkimg.tools.backends.vlm import VisionLanguageModel
from thinkimg.tools.tool import ToolResult, tool
from thinkimg.tools.vision.geometry import SMALL
from thinkimg.tools.vision.layout import centre, reading_order, union
from thinkimg.tools.vision.matching import best_texts, by_position, explained, words
from thinkimg.tools.vision.regions import Region, color_in, colored_regions, key_color
from thinkimg.tools.vision.text import TextItem, legible

_MARKS = frozenset({"bar", "column", "slice", "wedge", "marker", "dot", "point", "area", "segment"})
_MARKS |= {word + "s" for word in _MARKS}
_COLORED = frozenset({"slice", "slices", "wedge", "wedges", "area", "areas", "segment", "segments"})
_LINES = frozenset({"line", "lines", "curve", "curves"})
_ROLES = frozenset(
    words(
        """title heading caption legend entry label axis text tick category series value data x y by from as s please
        corresponding representing represents showing shows shown reading says"""
    )
)
_EDGES = frozenset({"top", "tip", "end"})
_TITLE = frozenset({"title", "heading", "caption"})
_LEAST_SHARE, _LEAST_SHARE_OF_SMALL = 0.0002, 0.0008  # of a picture's area, that a mark has
_REGION_BYTES = 500  # that a region takes, roughly
_REGIONS_BYTES = 32 * 1024 * 1024
_DESCRIPTION = "{description}"
_QUESTION = f"""Point to: {_DESCRIPTION}
Answer with <point x="X" y="Y" alt="what it is">what it is</point> for one point, or \
<points x1="X" y1="Y" x2="X" y2="Y" alt="what they are">what they are</points> for several. X is percent of the \
picture's width from the left, Y percent of its height from the top, with one decimal. If there is no such thing, \
answer "none"."""


class PointOptions(EndpointOptions):
    """Options of Point: `min_confidence` and `threads` of the `layout` backend, the others of `vlm`.

    Attributes:
        min_confidence: strings below are left out.
        threads: of onnxruntime.
        question: what the model is asked; `{description}` stands for what the caller wants pointed to. Molmo was
            trained to point at `Point to {description}`.
    """

    min_confidence: float = Field(default=0.5, ge=0, le=1)
    threads: int = Field(default=1, ge=1, le=64)
    question: str = _QUESTION

    @field_validator("question")
    @classmethod
    def _names_the_description(cls, value: str) -> str:
        if _DESCRIPTION not in value:
            raise ValueError(f"must hold {_DESCRIPTION}")
        return value


@dataclass(frozen=True)
class _Point:
    x: float  # pixels
    y: float
    label: str


@dataclass(frozen=True)
class _Scene:
    """What was found in a picture, strings in reading order."""

    items: list[TextItem]
    regions: list[Region]
    size: tuple[int, int]
    pixels: np.ndarray = field(repr=False)  # (height, width, 3)


class Point:
    """The `layout` backend finds text by OCR, and bars, slices and markers by their colour or by the label next to
    them; `vlm` asks a vision-language model and reads Molmo's markup."""

    def __init__(self, backend: str, options: PointOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        if self.backend == "vlm":
            self.model = VisionLanguageModel(self.options)
            self.details = self.model.details
        else:
            self.reader: TextReader = shared_reader(self.options.threads)
            self.regions: BoundedCache[tuple[str, str], tuple[Region, ...]] = BoundedCache(
                _REGIONS_BYTES, max_entries=kept_pictures(), fair=True
            )

    def run(self, image: Image, description: Text) -> ToolResult:
        """Point to something in a chart: a text, a bar by its label or color, the title. Returns points in percent.

        Args:
            image: The image to look at.
            description: What to point to, e.g. "Mango", "the blue bar", "the bar of Mango", "title".
        """
        if self.backend == "vlm":
            return self._ask(image, description)
        picture = image.pixels()
        scene = self._look(image, picture)
        points = _find(description, scene)
        if not points:
            raise ModelError(f'Nothing matches "{description}". {_listing(scene)}', kind="refused")
        return _result([(100 * p.x / image.width, 100 * p.y / image.height, p.label) for p in points])

    def _ask(self, image: Image, description: str) -> ToolResult:
        answer = self.model.ask(image, self.options.question.replace(_DESCRIPTION, description))
        label = markup.alternative_text(answer) or description
        named = markup.points(answer)
        points = [(x, y, label) for x, y in named if 0 <= x <= 100 and 0 <= y <= 100]
        self.model.refuse_other_units(named)
        if not points:
            raise ModelError(f'Nothing matches "{description}".', kind="refused")
        return _result(points)

    def _look(self, image: Image, picture: Pillow.Image) -> _Scene:
        items = legible(self.reader.read(image), self.options.min_confidence)
        ordered = [item for row in reading_order(items) for block in row for item in block.items]
        least = _LEAST_SHARE if max(picture.size) > SMALL else _LEAST_SHARE_OF_SMALL
        regions = self.regions.get_or_make(
            image.kept_as,
            lambda: tuple(colored_regions(picture, items, least)),
            lambda found: _REGION_BYTES * (1 + len(found)),
            image.holder,
        )
        return _Scene(ordered, list(regions), picture.size, np.asarray(picture))


point = tool(
    name="Point",
    version="1",
    backends=("layout", "vlm"),
    options=PointOptions,
    read_param=lambda param: {"description": param},
)(Point)


def _result(points: Sequence[tuple[float, float, str]]) -> ToolResult:
    """Points in percent, each with its label."""
    described = [{"x": round(x, 1), "y": round(y, 1), "label": label} for x, y, label in points]
    return ToolResult("\n".join(f"{p['label']}: x={p['x']}, y={p['y']}" for p in described), {"points": described})


def _find(description: str, scene: _Scene) -> list[_Point]:
    said = words(description)
    quoted = re.findall(r"[\"“']([^\"”']+)[\"”']", description)
    if not quoted and (axis := _axis_label(said, scene)):
        return [axis]
    exact = [item for item in scene.items if words(item.text) == said]
    if exact:  # also where it speaks of an area or of points
        return [_Point(*centre(item.box), item.text) for item in exact]
    asked = set(said) - set(words(quoted[0])) if quoted else set(said)
    subject = quoted[0] if quoted else " ".join(w for w in said if w not in _MARKS | _EDGES) or description
    if _MARKS & asked and (pair := _mark_of_series(said, scene)):
        return [_point_at(pair[0], f"{pair[1].text}, {pair[2].text}", said)]
    meant = _names(words(subject))
    texts = [scene.items[index] for index in best_texts(subject, [item.text for item in scene.items])]
    texts = [item for item in texts if explained(meant, [item.text])]
    if texts and _MARKS & asked:
        marks = [(mark, item) for item in texts if (mark := _mark_of(item, said, scene)) is not None]
        return [_point_at(mark, item.text, said) for mark, item in marks]
    if texts and not _LINES & asked:
        return [_Point(*centre(item.box), item.text) for item in texts]
    if not explained(meant, []):
        return []
    if color := color_in(said):
        return _colored(color, said, scene)
    if _TITLE & asked and not quoted and scene.items:
        return [_Point(*centre(scene.items[0].box), scene.items[0].text)]
    return _placed(description, said, scene)


def _names(said: Sequence[str]) -> list[str]:
    """The words that something in the picture must explain."""
    return [word for word in said if word not in _MARKS | _EDGES | _ROLES and color_in([word]) is None]


def _axis_label(said: Sequence[str], scene: _Scene) -> _Point | None:
    """`the x-axis label`: the lowest text; `the y-axis label`: the leftmost of those that are written upwards."""
    if "axis" not in said or not {"label", "title", "name"} & set(said):
        return None
    if {"x", "horizontal"} & set(said):
        lowest = max(scene.items, key=lambda item: centre(item.box)[1], default=None)
        return _Point(*centre(lowest.box), lowest.text) if lowest else None
    if not {"y", "vertical"} & set(said):
        return None
    upwards = [item for item in scene.items if item.box[3] - item.box[1] > 1.5 * (item.box[2] - item.box[0])]
    leftmost = min(upwards, key=lambda item: item.box[0], default=None)
    return _Point(*centre(leftmost.box), leftmost.text) if leftmost else None


def _mark_of_series(said: Sequence[str], scene: _Scene) -> tuple[Region, TextItem, TextItem] | None:
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
        if same and explained(_names(said), [series.text, category.text]):
            large = [region for region in same if region.area > 0.1 * same[0].area]
            along = 0 if _spread(large, 3) <= _spread(large, 0) else 1  # bars that stand have one floor
            room = 0.55 * _step(category, along, scene)
            near = [r for r in same if abs(centre(r.box)[along] - centre(category.box)[along]) <= room]
            if near:
                nearest = min(near, key=lambda r: abs(centre(r.box)[along] - centre(category.box)[along]))
                return _whole(nearest, near, along), series, category
    return None


def _step(category: TextItem, along: int, scene: _Scene) -> float:
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


def _colored(color: str, said: list[str], scene: _Scene) -> list[_Point]:
    """Regions of that colour; where a large one exists, the much smaller ones (legend keys, crumbs) are left out."""
    regions = [region for region in scene.regions if region.color == color]
    return [_point_at(r, color, said) for r in regions if r.area > 0.2 * regions[0].area]


def _placed(description: str, said: list[str], scene: _Scene) -> list[_Point]:
    """`second bar`, `leftmost bar`: marks by their order."""
    if not _MARKS & set(said):
        return []
    marks = sorted(
        (region for region in scene.regions if region.area > 0.1 * scene.regions[0].area), key=_reading_place
    )
    chosen = by_position(description, [mark.box for mark in marks], scene.size)
    return [_point_at(marks[index], marks[index].color, said) for index in chosen]


def _reading_place(region: Region) -> tuple[float, float]:
    return region.box[0], region.box[1]


def _mark_of(item: TextItem, said: Sequence[str], scene: _Scene) -> Region | None:
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


def _point_at(region: Region, label: str, said: list[str]) -> _Point:
    """The middle of a mark, or its end where the description says top, tip or end."""
    x1, y1, x2, y2 = region.box
    if not _EDGES & set(said):
        return _Point(*region.inside, label)
    sideways = "top" not in said and x2 - x1 > y2 - y1
    return _Point(x2, (y1 + y2) / 2, label) if sideways else _Point((x1 + x2) / 2, y1, label)


def _listing(scene: _Scene) -> str:
    texts = ", ".join(f'"{item.text}"' for item in scene.items[:30]) or "none"
    colors = ", ".join(dict.fromkeys(region.color for region in scene.regions)) or "none"
    return f"Texts found: {texts}. Colors found: {colors}."
