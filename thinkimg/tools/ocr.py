"""OCR: the strings of an image in reading order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from thinkimg.image import Image
from thinkimg.tools.arguments import Box
from thinkimg.tools.backends.extras import needs_extra
from thinkimg.tools.backends.rapidocr import shared_reader
from thinkimg.tools.backends.text_reader import TextReader
from thinkimg.tools.crop import box_to_percent, box_to_pixels
from thinkimg.tools.tool import ToolOptions, ToolResult, tool
from thinkimg.tools.vision.layout import reading_order
from thinkimg.tools.vision.text import TextItem, ink_box, legible


class OCROptions(ToolOptions):
    """Options of OCR; those from `detection` on belong to the backend `paddleocr`.

    Attributes:
        text: what the model reads: `boxes` (each string with its box and confidence) or `plain` (only strings, one row
            of the picture per line).
        min_confidence: strings below are left out.
        threads: of the engine on a CPU.
        detection: folder of a detector in Paddle's format, or the name of one of PaddleOCR's, which it fetches.
            Empty: PP-OCRv6_small_det.
        recognition: the same of the recogniser, which decides the languages. Empty: PP-OCRv6_small_rec.
        engine: what runs the two: `onnxruntime`, `paddle` (needs paddlepaddle) or `transformers`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    text: Literal["plain", "boxes"] = "boxes"
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    threads: int = Field(default=1, ge=1, le=64)
    detection: str = ""
    recognition: str = ""
    engine: Literal["onnxruntime", "paddle", "transformers"] = "onnxruntime"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")


class OCR:
    """Reads text. The text of a picture is returned verbatim and never interpreted."""

    def __init__(self, backend: str, options: OCROptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        self.reader: TextReader
        if self.backend == "rapidocr":
            self.reader = shared_reader(self.options.threads)
            return
        with needs_extra(self.backend):
            from thinkimg.tools.backends.paddleocr import PaddleReader

            wanted = self.options
            self.reader = paddle = PaddleReader(
                wanted.detection, wanted.recognition, wanted.engine, wanted.device, wanted.threads
            )
        self.details = paddle.details

    def run(self, image: Image, region: Box | None = None) -> ToolResult:
        """Read all text in an image. Returns the strings in reading order with their boxes in percent.

        Args:
            image: The image to read.
            region: Only read this part of the image.
        """
        items = self._read(image, region)
        rows = reading_order(legible(items, self.options.min_confidence))
        ordered = [item for row in rows for block in row for item in block.items]
        lines = [" ".join(block.text for block in row) for row in rows]
        pixels = np.asarray(image.pixels())
        boxes = [box_to_percent(ink_box(pixels, item), image.width, image.height) for item in ordered]
        data = {
            "strings": [item.text for item in ordered],
            "boxes": boxes,
            "confidences": [round(item.confidence, 3) for item in ordered],
            "lines": lines,
        }
        if self.options.text == "boxes":
            lines = [_with_box(item, box) for item, box in zip(ordered, boxes, strict=True)]
        return ToolResult("\n".join(lines) or "No text found.", data)

    def _read(self, image: Image, region: Box | None) -> tuple[TextItem, ...]:
        """The strings with boxes in pixels of the whole image."""
        if region is None:
            return self.reader.read(image)
        left, top, right, bottom = box_to_pixels(region, image.width, image.height)
        part = Image.from_pixels(image.pixels().crop((left, top, right, bottom)))
        return tuple(
            replace(item, box=(item.box[0] + left, item.box[1] + top, item.box[2] + left, item.box[3] + top))
            for item in self.reader.read(part)
        )


ocr = tool(
    name="OCR", version="2", backends=("rapidocr", "paddleocr"), options=OCROptions, read_param=lambda param: {}
)(OCR)


def _with_box(item: TextItem, box: list[float]) -> str:
    numbers = ", ".join(f"{value:.1f}" for value in box)
    return f"{item.text} [{numbers}] {item.confidence:.2f}"
