"""Point: where in an image is what a description names?"""

from collections.abc import Mapping, Sequence

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
from thinkimg.tools.vision.layout import reading_order
from thinkimg.tools.vision.marks import Scene
from thinkimg.tools.vision.pointing import find, listing
from thinkimg.tools.vision.regions import Region, colored_regions
from thinkimg.tools.vision.subplots import Panel, find_panels
from thinkimg.tools.vision.text import legible

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
            self.panels: BoundedCache[tuple[str, str], tuple[Panel, ...]] = BoundedCache(
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
        points = find(description, scene, lambda: self._panels(image, picture, scene))
        if not points:
            raise ModelError(f'Nothing matches "{description}". {listing(scene)}', kind="refused")
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

    def _panels(self, image: Image, picture: Pillow.Image, scene: Scene) -> tuple[Panel, ...]:
        """Once per picture, as the regions."""
        return self.panels.get_or_make(
            image.kept_as,
            lambda: tuple(find_panels(picture, scene.items)),
            lambda found: _REGION_BYTES * (1 + len(found)),
            image.holder,
        )

    def _look(self, image: Image, picture: Pillow.Image) -> Scene:
        items = legible(self.reader.read(image), self.options.min_confidence)
        ordered = [item for row in reading_order(items) for block in row for item in block.items]
        least = _LEAST_SHARE if max(picture.size) > SMALL else _LEAST_SHARE_OF_SMALL
        regions = self.regions.get_or_make(
            image.kept_as,
            lambda: tuple(colored_regions(picture, items, least)),
            lambda found: _REGION_BYTES * (1 + len(found)),
            image.holder,
        )
        return Scene(ordered, list(regions), picture.size, np.asarray(picture))


point = tool(
    name="Point",
    version="2",
    backends=("layout", "vlm"),
    options=PointOptions,
    read_param=lambda param: {"description": param},
)(Point)


def _result(points: Sequence[tuple[float, float, str]]) -> ToolResult:
    """Points in percent, each with its label."""
    described = [{"x": round(x, 1), "y": round(y, 1), "label": label} for x, y, label in points]
    return ToolResult("\n".join(f"{p['label']}: x={p['x']}, y={p['y']}" for p in described), {"points": described})
