"""ZoominSubplot: one sub-plot of a figure, really cut out and enlarged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import ImageDraw
from pydantic import Field

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Text
from thinkimg.tools.backends.options import EndpointOptions
from thinkimg.tools.backends.rapidocr import shared_reader
from thinkimg.tools.backends.text_reader import TextReader
from thinkimg.tools.backends.vlm import VisionLanguageModel
from thinkimg.tools.crop import box_to_percent, box_to_pixels
from thinkimg.tools.tool import ToolResult, tool
from thinkimg.tools.vision.layout import describe_position
from thinkimg.tools.vision.matching import best_texts, by_position
from thinkimg.tools.vision.subplots import Panel, find_panels, title_of
from thinkimg.tools.vision.text import TextItem, legible

_WHICH = """The sub-plots of this figure are numbered, each in its upper left corner. Which of them is meant by: {}
Answer with its number, or several separated by commas. If none is meant, answer "none"."""
_WHERE = """Which part of this figure is meant by: {}
Answer with its box [x1, y1, x2, y2]: left, top, right and bottom in percent of the figure's width and height, from \
the top left. If there is no such part, answer "none"."""


class ZoomOptions(EndpointOptions):
    """Options of ZoominSubplot; those of an endpoint belong to the backend `vlm`.

    Attributes:
        longer_side: least length of a result's longer side in pixels; 0 means the source's.
        most_enlarged: largest factor of enlargement.
        threads: of onnxruntime.
    """

    longer_side: int = Field(default=0, ge=0, le=4096)
    most_enlarged: float = Field(default=8, ge=1, le=32)
    threads: int = Field(default=1, ge=1, le=64)


@dataclass(frozen=True)
class _Found:
    panel: Panel
    position: str

    def __str__(self) -> str:
        return f'"{self.panel.title}" ({self.position})' if self.panel.title else f"untitled ({self.position})"


class ZoominSubplot:
    """Sub-plots are found by the grounds, frames or corners of their axes, else by titles between empty bands; titles
    by OCR. Which of them is meant is decided by title and position (`layout`), or by a vision-language model that sees
    them numbered (`vlm`)."""

    def __init__(self, backend: str, options: ZoomOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        self.reader: TextReader = shared_reader(self.options.threads)
        if self.backend == "vlm":
            self.model = VisionLanguageModel(self.options)
            self.details = self.model.details

    def run(self, image: Image, description: Text) -> ToolResult:
        """Cut one sub-plot out of a figure and enlarge it. Returns the sub-plot as a new image.

        Args:
            image: The figure.
            description: Title or position of the sub-plot, e.g. "North", "top left", "second".
        """
        picture = image.pixels()
        panels, chosen = self._find(description, image, picture)
        boxes = [panel.box for panel in panels]
        found = [_Found(panel, describe_position(panel.box, boxes, picture.size)) for panel in panels]
        if not chosen:
            listed = ", ".join(map(str, found))
            raise ModelError(f'No sub-plot matches "{description}". Found: {listed}.', kind="refused")
        images = tuple(self._enlarge(picture, panels[index]) for index in chosen)
        described = [_describe(found[index], image) for index in chosen]
        text = "Zoomed into " + ", ".join(str(found[index]) for index in chosen) + "."
        data = {"subplots": described, "found": [_describe(each, image) for each in found]}
        return ToolResult(text, data, images)

    def _find(self, description: str, image: Image, picture: Pillow.Image) -> tuple[list[Panel], list[int]]:
        """The sub-plots, and which of them are meant."""
        items = legible(self.reader.read(image))
        panels = find_panels(picture, items)
        if self.backend == "layout":
            boxes = [panel.box for panel in panels]
            named = best_texts(description, [panel.title for panel in panels])
            return panels, named or by_position(description, boxes, picture.size)
        if len(panels) > 1:
            answer = self.model.ask(_numbered(picture, panels), _WHICH.format(description))
            return panels, [n - 1 for n in _integers(answer) if 1 <= n <= len(panels)]
        answer = self.model.ask(image, _WHERE.format(description))
        self.model.refuse_other_units(_boxes_in(answer)[-1:])
        outlined = _outlined(answer, image, items)
        return ([outlined], [0]) if outlined else (panels, [])

    def _enlarge(self, picture: Pillow.Image, panel: Panel) -> Image:
        x1, y1, x2, y2 = (round(value) for value in panel.box)
        part = picture.crop((x1, y1, x2, y2))
        wanted = self.options.longer_side or max(picture.size)
        factor = min(self.options.most_enlarged, max(1.0, wanted / max(part.size)))
        size = round(part.width * factor), round(part.height * factor)
        return Image.from_pixels(part.resize(size, Pillow.Resampling.LANCZOS))


zoom_in_subplot = tool(
    name="ZoominSubplot",
    version="2",
    aliases=("SelectSubplot",),
    backends=("layout", "vlm"),
    options=ZoomOptions,
    read_param=lambda param: {"description": param},
)(ZoominSubplot)


def _describe(found: _Found, image: Image) -> dict[str, object]:
    box = box_to_percent(found.panel.box, image.width, image.height)
    return {"title": found.panel.title, "position": found.position, "box": box}


def _numbered(picture: Pillow.Image, panels: Sequence[Panel]) -> Image:
    """The picture with each sub-plot's number, from 1, in its upper left corner."""
    marked = picture.copy()
    pen = ImageDraw.Draw(marked)
    size = max(14, round(min(picture.size) * 0.05))
    for number, panel in enumerate(panels, 1):
        x, y = panel.box[:2]
        box = pen.textbbox((x + size / 3, y + size / 3), str(number), font_size=size)
        pen.rectangle((x, y, box[2] + size / 3, box[3] + size / 3), fill="black")
        pen.text((x + size / 3, y + size / 3), str(number), fill="white", font_size=size)
    return Image.from_pixels(marked)


def _integers(answer: str) -> list[int]:
    """Whole numbers in order, each once."""
    return list(dict.fromkeys(int(number) for number in re.findall(r"\d{1,4}", answer)))


def _outlined(answer: str, image: Image, items: Sequence[TextItem]) -> Panel | None:
    """The last box [x1, y1, x2, y2] in percent that an answer names."""
    for x1, y1, x2, y2 in reversed(_boxes_in(answer)):
        if 0 <= x1 < x2 <= 100 and 0 <= y1 < y2 <= 100:
            left, top, right, bottom = box_to_pixels((x1, y1, x2, y2), image.width, image.height)
            box = (float(left), float(top), float(right), float(bottom))
            return Panel(box, title_of(box, items))
    return None


def _boxes_in(answer: str) -> list[list[float]]:
    """Every [x1, y1, x2, y2] of an answer, whatever its unit."""
    lists = [markup.bare_numbers(written) for written in re.findall(r"\[[^\[\]]*\]", answer)]
    return [numbers for numbers in lists if len(numbers) == 4]
