"""Point: where in an image is what a description names?"""

from dataclasses import dataclass

from PIL import Image as Pillow
from pydantic import Field

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Text
from thinkimg.tools.backends.layout import centre, reading_order
from thinkimg.tools.backends.matching import best_texts, by_position, words
from thinkimg.tools.backends.rapidocr import TextItem, TextReader, legible, shared_reader
from thinkimg.tools.backends.regions import Region, color_in, colored_regions
from thinkimg.tools.tool import ToolOptions, ToolResult, tool

_MARKS = frozenset({"bar", "column", "slice", "wedge", "marker", "dot", "point", "area", "segment"})
_MARKS |= {word + "s" for word in _MARKS}
_EDGES = frozenset({"top", "tip", "end"})
_TITLE = frozenset({"title", "heading", "caption"})


class PointOptions(ToolOptions):
    """Options of Point.

    Attributes:
        min_confidence: strings below are left out.
        threads: of onnxruntime.
    """

    min_confidence: float = Field(default=0.5, ge=0, le=1)
    threads: int = Field(default=1, ge=1, le=64)


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


class Point:
    """Text is found by OCR, bars, slices and markers by their colour or by the label next to them."""

    def __init__(self, backend: str, options: PointOptions) -> None:
        self.options = options

    def load(self) -> None:
        self.reader: TextReader = shared_reader(self.options.threads)

    def run(self, image: Image, description: Text) -> ToolResult:
        """Point to something in a chart: a text, a bar by its label or color, the title. Returns points in percent.

        Args:
            image: The image to look at.
            description: What to point to, e.g. "Mango", "the blue bar", "the bar of Mango", "title".
        """
        picture = image.pixels()
        scene = self._look(image, picture)
        points = _find(description, scene)
        if not points:
            raise ModelError(f'Nothing matches "{description}". {_listing(scene)}', kind="refused")
        described = [
            {"x": round(100 * p.x / image.width, 1), "y": round(100 * p.y / image.height, 1), "label": p.label}
            for p in points
        ]
        text = "\n".join(f"{p['label']}: x={p['x']}, y={p['y']}" for p in described)
        return ToolResult(text, {"points": described})

    def _look(self, image: Image, picture: Pillow.Image) -> _Scene:
        items = legible(self.reader.read(image), self.options.min_confidence)
        ordered = [item for row in reading_order(items) for block in row for item in block.items]
        return _Scene(ordered, colored_regions(picture, items), picture.size)


point = tool(
    name="Point",
    version="1",
    backends=("layout",),
    options=PointOptions,
    read_param=lambda param: {"description": param},
)(Point)


def _find(description: str, scene: _Scene) -> list[_Point]:
    said = words(description)
    subject = " ".join(word for word in said if word not in _MARKS | _EDGES) or description
    texts = [scene.items[index] for index in best_texts(subject, [item.text for item in scene.items])]
    if _MARKS & set(said):
        marks = [(mark, item) for item in texts if (mark := _mark_of(item, scene)) is not None]
        if marks:
            return [_point_at(mark, item.text, said) for mark, item in marks]
    if texts:
        return [_Point(*centre(item.box), item.text) for item in texts]
    if color := color_in(said):
        return _colored(color, said, scene)
    if _TITLE & set(said) and scene.items:
        return [_Point(*centre(scene.items[0].box), scene.items[0].text)]
    return _placed(description, said, scene)


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


def _mark_of(item: TextItem, scene: _Scene) -> Region | None:
    """The bar that a category label belongs to: straight above it, or to the right in its row; the nearer one."""
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
