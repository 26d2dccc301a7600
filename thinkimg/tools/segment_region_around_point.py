"""SegmentRegionAroundPoint: the region of one colour that holds a point, such as a bar or a slice."""

from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from pydantic import Field

from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Points
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.draw_line import percent_to_pixel
from thinkimg.tools.tool import ToolOptions, ToolResult, tool

_FILL, _CONTOUR, _CROSS = (30, 110, 255), (255, 255, 255), (255, 235, 0)
_OPACITY = 0.6


class SegmentOptions(ToolOptions):
    """Options of the `opencv` backend.

    Attributes:
        tolerance: how far, in each of red, green and blue (0-255), a pixel may be from the point's colour.
    """

    tolerance: int = Field(default=24, ge=0, le=255)


class SegmentRegionAroundPoint:
    """Flood fill from each point, stopped by colour and by edges; several points give one mask."""

    def __init__(self, backend: str, options: SegmentOptions) -> None:
        self.options = options

    def load(self) -> None:
        import cv2

        cv2.setNumThreads(1)

    def run(self, image: Image, points: Points) -> ToolResult:
        """Mark the region around a point, e.g. a bar or a slice. Returns the image with the region in blue.

        Args:
            image: The image to look at.
            points: A point inside the region, or several.
        """
        picture = image.pixels()
        seeds = [(percent_to_pixel(x, image.width), percent_to_pixel(y, image.height)) for x, y in points]
        mask = region_around(np.asarray(picture), seeds, self.options.tolerance)
        ys, xs = np.nonzero(mask)
        pixel_box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        box = box_to_percent(pixel_box, image.width, image.height)
        area = round(100 * float(mask.mean()), 2)
        color = np.median(np.asarray(picture)[mask], axis=0).astype(int).tolist()
        data = {"mask": encode_rle(mask), "area": area, "box": box, "points": [list(p) for p in points], "color": color}
        text = f"Segmented a region: {area:g}% of the image, box [{', '.join(f'{value:g}' for value in box)}]."
        return ToolResult(text, data, (_overlay(picture, mask, seeds),))


segment_region_around_point = tool(
    name="SegmentRegionAroundPoint",
    version="1",
    backends=("opencv",),
    options=SegmentOptions,
    read_param=lambda param: {"points": markup.points(param) or param},
)(SegmentRegionAroundPoint)


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


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, alternating from zeros; `size` is [height, width]."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode_rle`; bool, shape `size`."""
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


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
