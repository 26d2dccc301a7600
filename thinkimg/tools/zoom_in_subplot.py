"""ZoominSubplot: one sub-plot of a figure, really cut out and enlarged."""

from dataclasses import dataclass

from PIL import Image as Pillow
from pydantic import Field

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Text
from thinkimg.tools.backends.layout import Panel, describe_position, find_panels
from thinkimg.tools.backends.matching import best_texts, by_position
from thinkimg.tools.backends.rapidocr import TextReader, legible, shared_reader
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.tool import ToolOptions, ToolResult, tool


class ZoomOptions(ToolOptions):
    """Options of ZoominSubplot.

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
    """Sub-plots are found by their frames or the white space between them, titles by OCR."""

    def __init__(self, backend: str, options: ZoomOptions) -> None:
        self.options = options

    def load(self) -> None:
        self.reader: TextReader = shared_reader(self.options.threads)

    def run(self, image: Image, description: Text) -> ToolResult:
        """Cut one sub-plot out of a figure and enlarge it. Returns the sub-plot as a new image.

        Args:
            image: The figure.
            description: Title or position of the sub-plot, e.g. "North", "top left", "second".
        """
        picture = image.pixels()
        panels = find_panels(picture, legible(self.reader.read(image)))
        boxes = [panel.box for panel in panels]
        found = [_Found(panel, describe_position(panel.box, boxes, picture.size)) for panel in panels]
        chosen = best_texts(description, [panel.title for panel in panels])
        chosen = chosen or by_position(description, boxes, picture.size)
        if not chosen:
            listed = ", ".join(map(str, found))
            raise ModelError(f'No sub-plot matches "{description}". Found: {listed}.', kind="refused")
        images = tuple(self._enlarge(picture, panels[index]) for index in chosen)
        described = [_describe(found[index], image) for index in chosen]
        text = "Zoomed into " + ", ".join(str(found[index]) for index in chosen) + "."
        data = {"subplots": described, "found": [_describe(each, image) for each in found]}
        return ToolResult(text, data, images)

    def _enlarge(self, picture: Pillow.Image, panel: Panel) -> Image:
        x1, y1, x2, y2 = (round(value) for value in panel.box)
        part = picture.crop((x1, y1, x2, y2))
        wanted = self.options.longer_side or max(picture.size)
        factor = min(self.options.most_enlarged, max(1.0, wanted / max(part.size)))
        size = round(part.width * factor), round(part.height * factor)
        return Image.from_pixels(part.resize(size, Pillow.Resampling.LANCZOS))


zoom_in_subplot = tool(
    name="ZoominSubplot",
    version="1",
    aliases=("SelectSubplot",),
    backends=("layout",),
    options=ZoomOptions,
    read_param=lambda param: {"description": param},
)(ZoominSubplot)


def _describe(found: _Found, image: Image) -> dict[str, object]:
    box = box_to_percent(found.panel.box, image.width, image.height)
    return {"title": found.panel.title, "position": found.position, "box": box}
