"""SegmentRegionAroundPoint: the region that holds a point, such as a bar or a slice."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from pydantic import Field

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Points
from thinkimg.tools.backends.geometry import point_from_percent
from thinkimg.tools.backends.masks import encode_rle, mask_box
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmenting import Prompt, load_segmenter
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.draw_line import percent_to_pixel
from thinkimg.tools.tool import BatchFunction, ToolResult, only_result, tool

_FILL, _CONTOUR, _CROSS = (30, 110, 255), (255, 255, 255), (255, 235, 0)
_OPACITY = 0.6


class SegmentOptions(SegmenterOptions):
    """Options of SegmentRegionAroundPoint: `tolerance` of the `opencv` backend, the others of those with weights.

    Attributes:
        tolerance: how far, in each of red, green and blue (0-255), a pixel may be from the point's colour.
    """

    tolerance: int = Field(default=24, ge=0, le=255)


class SegmentRegionAroundPoint:
    """Several points give one mask.

    The `opencv` backend fills from each point, stopped by colour and by edges; the others are models of the SAM family,
    which see objects. Only those compute batches.
    """

    run_batch: BatchFunction

    def __init__(self, backend: str, options: SegmentOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        if self.backend != "opencv":
            self.segmenter = load_segmenter(self.backend, self.options)
            self.details = self.segmenter.model.details
            self.run_batch = self._segment

    def run(self, image: Image, points: Points) -> ToolResult:
        """Mark the region around a point, e.g. a bar or a slice. Returns the image with the region in blue.

        Args:
            image: The image to look at.
            points: A point inside the region, or several.
        """
        if self.backend != "opencv":
            return only_result(self.run_batch([{"image": image, "points": points}]))
        mask = region_around(np.asarray(image.pixels()), _seeds(image, points), self.options.tolerance)
        return _result(image, points, mask)

    def _segment(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        asked = []
        for call in calls:
            image: Image = call["image"]
            points = tuple(point_from_percent(point, image.width, image.height) for point in call["points"])
            asked.append((image, [Prompt(points=points)]))
        masks = [mask.pixels for (mask,) in self.segmenter.segment(asked)]
        return [_result_or_error(call, mask) for call, mask in zip(calls, masks, strict=True)]


segment_region_around_point = tool(
    name="SegmentRegionAroundPoint",
    version="1",
    backends=("opencv", "segment-anything", "transformers"),
    options=SegmentOptions,
    read_param=lambda param: {"points": markup.points(param) or param},
    image_affinity=True,
)(SegmentRegionAroundPoint)


def _seeds(image: Image, points: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    return [(percent_to_pixel(x, image.width), percent_to_pixel(y, image.height)) for x, y in points]


def _result_or_error(call: Mapping[str, Any], mask: np.ndarray) -> ToolResult | ModelError:
    try:
        return _result(call["image"], call["points"], mask)
    except ModelError as error:
        return error


def _result(image: Image, points: Sequence[tuple[float, float]], mask: np.ndarray) -> ToolResult:
    """Raises `ModelError` for an empty mask."""
    pixel_box = mask_box(mask)
    if pixel_box is None:
        raise ModelError("SegmentRegionAroundPoint: no region was found at these points.", kind="refused")
    picture = image.pixels()
    box = box_to_percent(pixel_box, image.width, image.height)
    area = round(100 * float(mask.mean()), 2)
    color = np.median(np.asarray(picture)[mask], axis=0).astype(int).tolist()
    data = {"mask": encode_rle(mask), "area": area, "box": box, "points": [list(p) for p in points], "color": color}
    text = f"Segmented a region: {area:g}% of the image, box [{', '.join(f'{value:g}' for value in box)}]."
    return ToolResult(text, data, (_overlay(picture, mask, _seeds(image, points)),))


def region_around(pixels: np.ndarray, seeds: list[tuple[int, int]], tolerance: int) -> np.ndarray:
    """The connected pixels that resemble a seed's colour, edges not crossed.

    Args:
        pixels: uint8, shape (height, width, 3).
        seeds: pixels (x, y).
        tolerance: per channel, against the seed's own colour.

    Returns:
        bool, shape (height, width); holds every seed.
    """
    import cv2

    height, width = pixels.shape[:2]
    edges = cv2.Canny(pixels, 60, 160)
    mask = np.zeros((height, width), bool)
    for seed in seeds:
        # OpenCV wants a frame of one pixel around the mask; what is not zero there stops the fill.
        barrier = np.pad((edges > 0).astype(np.uint8), 1)
        barrier[seed[1] : seed[1] + 3, seed[0] : seed[0] + 3] = 0
        flags = 4 | (2 << 8) | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
        limits = (tolerance,) * 3
        cv2.floodFill(pixels.copy(), barrier, seed, 0, limits, limits, flags)
        filled = barrier[1:-1, 1:-1] == 2
        mask |= _with_rim(filled, pixels, seed, tolerance)
    return mask


def _with_rim(filled: np.ndarray, pixels: np.ndarray, seed: tuple[int, int], tolerance: int) -> np.ndarray:
    """Edge pixels are part of a region if they have its colour."""
    import cv2

    color = pixels[seed[1], seed[0]].astype(np.int16)
    grown = cv2.dilate(filled.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    rim = grown & (np.abs(pixels.astype(np.int16) - color).max(axis=2) <= tolerance)
    return np.asarray(filled | rim)


def _overlay(picture: Pillow.Image, mask: np.ndarray, seeds: list[tuple[int, int]]) -> Image:
    """The picture with the mask in translucent blue, its contour in white and a yellow cross at each point."""
    import cv2

    drawn = np.asarray(picture).copy()
    drawn[mask] = (drawn[mask] * (1 - _OPACITY) + np.array(_FILL) * _OPACITY).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, _CONTOUR, 1)
    result = Pillow.fromarray(drawn)
    pen = ImageDraw.Draw(result)
    reach = max(5, round(min(result.size) * 0.02))
    for x, y in seeds:
        pen.line((x - reach, y, x + reach, y), fill=_CROSS, width=max(2, reach // 3))
        pen.line((x, y - reach, x, y + reach), fill=_CROSS, width=max(2, reach // 3))
    return Image.from_pixels(result)
