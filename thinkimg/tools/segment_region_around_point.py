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
from thinkimg.tools.backends.loading import load_segmenter
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmentation import Prompt
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.draw_line import percent_to_pixel
from thinkimg.tools.tool import BatchFunction, ToolResult, only_result, tool
from thinkimg.tools.vision.colors import most_frequent_color
from thinkimg.tools.vision.geometry import SMALL, point_from_percent
from thinkimg.tools.vision.layout import background
from thinkimg.tools.vision.masks import encode_rle, mask_box

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
    version="2",
    backends=("opencv", "segment-anything", "transformers", "onnx"),
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
    """The connected pixels that resemble a seed's colour, edges not crossed but for lines that are drawn over them.

    Args:
        pixels: uint8, shape (height, width, 3).
        seeds: pixels (x, y); one on a thin line stands for what the line is drawn over.
        tolerance: per channel, against the seed's own colour.

    Returns:
        bool, shape (height, width); holds every seed.
    """
    import cv2

    edges = cv2.Canny(pixels, 60, 160) > 0
    mask = np.zeros(pixels.shape[:2], bool)
    for seed in seeds:
        start = _off_line(pixels, seed, tolerance)
        filled = _fill(pixels, edges, start, tolerance)
        if max(pixels.shape) > SMALL:
            filled = _across_lines(filled, pixels, edges, start, tolerance)
        mask |= filled
        mask[seed[1], seed[0]] = True
    return mask


def _fill(pixels: np.ndarray, edges: np.ndarray, seed: tuple[int, int], tolerance: int) -> np.ndarray:
    import cv2

    # OpenCV wants a frame of one pixel around the mask; what is not zero there stops the fill.
    barrier = np.pad(edges.astype(np.uint8), 1)
    barrier[seed[1] : seed[1] + 3, seed[0] : seed[0] + 3] = 0
    flags = 4 | (2 << 8) | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
    limits = (tolerance,) * 3
    cv2.floodFill(pixels.copy(), barrier, seed, 0, limits, limits, flags)
    return _with_rim(barrier[1:-1, 1:-1] == 2, pixels, seed, tolerance)


def _off_line(pixels: np.ndarray, seed: tuple[int, int], tolerance: int) -> tuple[int, int]:
    """The seed, or the nearest pixel of what surrounds it where the seed is on a thin line."""
    if max(pixels.shape) <= SMALL:
        return seed
    x, y = seed
    reach = 6
    left, top = max(0, x - reach), max(0, y - reach)
    part = pixels[top : y + reach + 1, left : x + reach + 1]
    own = np.abs(part.astype(np.int16) - pixels[y, x].astype(np.int16)).max(axis=2) <= tolerance
    if own.mean() > 0.3:
        return seed
    around = most_frequent_color(part.reshape(-1, 3))
    rows, columns = np.nonzero(np.abs(part.astype(np.int16) - around).max(axis=2) <= tolerance / 2)
    if len(rows) < 0.5 * own.size:
        return seed
    nearest = int(np.hypot(rows + top - y, columns + left - x).argmin())
    return int(columns[nearest] + left), int(rows[nearest] + top)


def _across_lines(
    filled: np.ndarray, pixels: np.ndarray, edges: np.ndarray, seed: tuple[int, int], tolerance: int
) -> np.ndarray:
    """Goes on behind thin lines that are drawn over the region and run on beyond it, such as a grid.

    A line in the colour of the ground is none of these: it keeps bars of a histogram or slices apart.
    """
    import cv2

    ground = background(pixels)
    color = pixels[seed[1], seed[0]].astype(np.int16)
    if np.abs(color - ground).max() <= tolerance:
        return filled
    alike = np.abs(pixels.astype(np.int16) - color).max(axis=2) <= tolerance
    closed: Any = cv2.morphologyEx(alike.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)).astype(bool)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((closed & ~alike).astype(np.uint8), connectivity=8)
    for _ in range(20):
        grown = cv2.dilate(filled.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        bridges = [
            index
            for index in np.unique(labels[grown & ~filled]).tolist()
            if index and _is_line(stats[index].tolist(), labels == index, pixels, ground)
        ]
        if not bridges:
            return filled
        bridge = np.isin(labels, bridges)
        behind = cv2.dilate(bridge.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & alike & ~filled
        filled = filled | bridge
        rows, columns = np.nonzero(behind)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if not filled[row, column]:
                filled = filled | _fill(pixels, edges, (column, row), tolerance)
    return filled


def _is_line(stats: list[int], line: np.ndarray, pixels: np.ndarray, ground: np.ndarray) -> bool:
    """Thin, long, not in the colour of the ground, and going on in that colour beyond an end."""
    x, y, w, h, _ = stats
    if min(w, h) > 6 or max(w, h) < 8:
        return False
    color = np.median(pixels[line], axis=0)
    if np.abs(color - ground).max() <= 24:
        return False
    height, width = line.shape
    ends = ((x - 4, y + h // 2), (x + w + 3, y + h // 2)) if w > h else ((x + w // 2, y - 4), (x + w // 2, y + h + 3))
    for column, row in ends:
        if 1 <= column < width - 1 and 1 <= row < height - 1:
            beyond = pixels[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).astype(np.int16)
            if (np.abs(beyond - color).max(axis=1) <= 60).any() and (np.abs(beyond - ground).max(axis=1) > 24).any():
                return True
    return False


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
