"""SAM: the exact outline of what boxes or points show."""

from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Boxes, Points
from thinkimg.tools.backends.loading import load_segmenter
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmentation import Mask, Prompt
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.tool import ToolResult, only_result, tool
from thinkimg.tools.vision.geometry import box_from_percent, point_from_percent
from thinkimg.tools.vision.masks import encode_rle, mask_box, overlay


class SAM:
    """Promptable segmentation (Kirillov et al., https://arxiv.org/abs/2304.02643; SAM 2: 2408.00714)."""

    def __init__(self, backend: str, options: SegmenterOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        self.segmenter = load_segmenter(self.backend, self.options)
        self.details = self.segmenter.model.details

    def run(self, image: Image, boxes: Boxes | None = None, points: Points | None = None) -> ToolResult:
        """Segment objects. Returns their masks and areas, and the image with the masks in colour.

        Args:
            image: The image to segment.
            boxes: A box around each object.
            points: A point on each object; give either boxes or points.
        """
        return only_result(self.run_batch([{"image": image, "boxes": boxes, "points": points}]))

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        asked = [prompts_of(call["image"], call["boxes"], call["points"]) for call in calls]
        good = [
            (call["image"], prompts) for call, prompts in zip(calls, asked, strict=True) if isinstance(prompts, list)
        ]
        segmented = iter(self.segmenter.segment(good))
        return [
            prompts if isinstance(prompts, ModelError) else _result(call["image"], next(segmented))
            for call, prompts in zip(calls, asked, strict=True)
        ]


def _read_param(param: str) -> dict[str, Any]:
    numbers = markup.bare_numbers(param)
    if len(numbers) == 4:
        return {"boxes": [numbers]}
    return {"points": markup.points(param) or param}


sam = tool(
    name="SAM",
    version="2",
    backends=("segment-anything", "transformers", "onnx"),
    options=SegmenterOptions,
    read_param=_read_param,
    image_affinity=True,
)(SAM)


def prompts_of(
    image: Image,
    boxes: Sequence[tuple[float, float, float, float]] | None,
    points: Sequence[tuple[float, float]] | None,
) -> list[Prompt] | ModelError:
    """One prompt per box or point (percent); a `ModelError` unless exactly one of the two is given."""
    if (boxes is None) == (points is None):
        given = "neither" if boxes is None else "both"
        return ModelError(f'SAM: give either "boxes" or "points", not {given}.')
    if boxes is not None:
        return [Prompt(box=box_from_percent(box, image.width, image.height)) for box in boxes]
    return [Prompt(points=(point_from_percent(point, image.width, image.height),)) for point in points or ()]


def masks_data(masks: Sequence[Mask], image: Image) -> dict[str, Any]:
    """Run lengths, areas in percent of the picture, boxes around the masks in percent (None: nothing), scores."""
    boxes = [mask_box(mask.pixels) for mask in masks]
    return {
        "masks": [encode_rle(mask.pixels) for mask in masks],
        "areas": [round(100 * float(mask.pixels.mean()), 2) for mask in masks],
        "boxes": [box and box_to_percent(box, image.width, image.height) for box in boxes],
        "scores": [mask.score for mask in masks],
    }


def _result(image: Image, masks: Sequence[Mask]) -> ToolResult:
    data = masks_data(masks, image)
    lines = [
        f"{number}: {area:g}% of the image, box {_format(box)}" if box else f"{number}: nothing"
        for number, (area, box) in enumerate(zip(data["areas"], data["boxes"], strict=True), 1)
    ]
    noun = "object" if len(masks) == 1 else "objects"
    text = "\n".join([f"Segmented {len(masks)} {noun}:", *lines])
    return ToolResult(text, data, (overlay(image.pixels(), [mask.pixels for mask in masks]),))


def _format(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
