"""The layout of a chart from its pixels and strings: reading order, sub-plots, their titles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.tools.backends.reading import TextItem, most_frequent_color

Box = tuple[float, float, float, float]  # pixels: left, top, right, bottom

LONGEST_STACK = 3  # a category with a line break and its value; more lines than that are a column of a table
_STACK_GAP = 1.35  # of the mean height of the letters: strings closer than this beneath each other belong together
_ROW_TOLERANCE = 0.4  # of the line height, between centres of one row


@dataclass(frozen=True)
class Block:
    """Strings that are read in one go, such as a category's label with its value beneath."""

    items: tuple[TextItem, ...]

    @property
    def text(self) -> str:
        return " ".join(item.text for item in self.items)

    @property
    def box(self) -> Box:
        return union(item.box for item in self.items)


def union(boxes: Iterable[Box]) -> Box:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def contains(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def reading_order(items: Sequence[TextItem]) -> list[list[Block]]:
    """Rows from top to bottom, each with its blocks from left to right."""
    return _rows(_blocks(items))


def _blocks(items: Sequence[TextItem]) -> list[Block]:
    """Join each string with its nearest one beneath, where that is close and has no closer one above."""
    below = {index: _nearest(item, items, _gap_beneath) for index, item in enumerate(items)}
    above = {index: _nearest(item, items, lambda a, b: _gap_beneath(b, a)) for index, item in enumerate(items)}
    mutual = {i: j for i, j in below.items() if j is not None and above[j] == i}
    blocks = []
    for start in set(range(len(items))) - set(mutual.values()):
        chain = [start]
        while chain[-1] in mutual:
            chain.append(mutual[chain[-1]])
        if len(chain) > LONGEST_STACK:
            blocks += [Block((items[index],)) for index in chain]
        else:
            blocks.append(Block(tuple(items[index] for index in chain)))
    return blocks


def _nearest(
    item: TextItem, items: Sequence[TextItem], gap: Callable[[TextItem, TextItem], float | None]
) -> int | None:
    gaps = [(distance, index) for index, other in enumerate(items) if (distance := gap(item, other)) is not None]
    return min(gaps)[1] if gaps else None


def _gap_beneath(upper: TextItem, lower: TextItem) -> float | None:
    """Distance from `upper` down to `lower` in pixels; None unless they are stacked closely."""
    a, b = upper.box, lower.box
    overlap = min(a[2], b[2]) - max(a[0], b[0])
    line = min(a[3] - a[1], b[3] - b[1])
    gap = b[1] - a[3]
    stacked = centre(b)[1] - centre(a)[1] > 0.6 * line and overlap >= 0.5 * min(a[2] - a[0], b[2] - b[0])
    centred = abs(centre(a)[0] - centre(b)[0]) < line or abs(a[0] - b[0]) < 0.5 * line
    letters = (a[3] - a[1] + b[3] - b[1]) / 2
    return gap if stacked and centred and gap < _STACK_GAP * letters else None


def _rows(blocks: Sequence[Block]) -> list[list[Block]]:
    rows: list[list[Block]] = []
    for block in sorted(blocks, key=lambda b: centre(b.box)[1]):
        if rows and _same_row(rows[-1][-1], block):
            rows[-1].append(block)
        else:
            rows.append([block])
    return [sorted(row, key=lambda b: b.box[0]) for row in rows]


def _same_row(one: Block, other: Block) -> bool:
    line = min(item.box[3] - item.box[1] for item in (*one.items, *other.items))
    return abs(centre(one.box)[1] - centre(other.box)[1]) < _ROW_TOLERANCE * line


# Sub-plots


@dataclass(frozen=True)
class Panel:
    """A sub-plot.

    Attributes:
        box: what to cut out, pixels, frame excluded.
        title: the strings of its first row, "" if there are none.
    """

    box: Box
    title: str


def find_panels(picture: Pillow.Image, items: Sequence[TextItem]) -> list[Panel]:
    """The sub-plots in reading order, by the first of these that shows at least two: filled grounds, frames, corners of
    axes, white space between them; else the whole picture."""
    ink = _ink(picture)
    for frames in (_filled_grounds(picture), find_frames(ink), _axes_corners(ink)):
        if len(frames) >= 2:
            grown = _with_outer_texts(frames, items, picture.size)
            return _in_reading_order(
                [Panel(box, title_of(whole, items)) for box, whole in zip(_apart(grown, frames), grown, strict=True)]
            )
    boxes = _split_at_gaps((0, 0, picture.width, picture.height), ink, items)
    return _in_reading_order([Panel(box, title_of(box, items)) for box in boxes])


def _filled_grounds(picture: Pillow.Image) -> list[Box]:
    """Large rectangles a little off the ground between them, with something drawn on them: axes of many styles."""
    import cv2

    pixels = np.asarray(picture)
    ground = background(pixels)
    mask: Any = _ink(picture, contrast=7).astype(np.uint8)
    height, width = mask.shape
    # A grid in the colour of the ground is closed; what is thinner than axes are, such as ticks and words, is cut off.
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones([max(9, min(height, width) // 16)] * 2, np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    found = []
    for x, y, w, h, area in stats[1:count].tolist():
        large = w > 0.12 * width and h > 0.12 * height and w * h < 0.85 * width * height
        if large and area > 0.93 * w * h and _is_ground(pixels[y : y + h, x : x + w], ground):
            found.append((float(x), float(y), float(x + w), float(y + h)))
    return _of_one_size(found)


def _is_ground(part: np.ndarray, around: np.ndarray) -> bool:
    """Axes differ a little from what is around them, and bars or lines stand on them; a bar is strong and plain."""
    step = max(1, min(part.shape[:2]) // 128)
    colors = part[::step, ::step].reshape(-1, 3)
    color = most_frequent_color(colors)
    drawn = float((np.abs(colors.astype(np.int16) - color).max(axis=1) > 24).mean())
    return bool(np.abs(color - around).max() <= 70) and drawn > 0.01


def _axes_corners(ink: np.ndarray) -> list[Box]:
    """Where a long upright line ends at the left end of a long lying one: the axes of plots without frames."""
    import cv2

    height, width = ink.shape
    mask = ink.astype(np.uint8)
    upright = _long_lines(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((max(9, height // 8), 1), np.uint8)), 0)
    lying = _long_lines(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, max(9, width // 8)), np.uint8)), 1)
    near = max(4.0, 0.012 * max(height, width))
    found = []
    for x1, top, _, bottom in upright:
        floors = [line for line in lying if abs(line[0] - x1) < near and abs((line[1] + line[3]) / 2 - bottom) < near]
        if floors:
            longest = max(floors, key=lambda line: line[2] - line[0])
            found.append((x1, top, longest[2], bottom))
    return _of_one_size(found)


def _long_lines(mask: np.ndarray, across: int) -> list[Box]:
    """Components that are at most 6 pixels thick; `across` is the axis of the thickness, 0 for x."""
    import cv2

    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return [
        (float(x), float(y), float(x + w), float(y + h))
        for x, y, w, h, _ in stats[1:count].tolist()
        if (w, h)[across] <= 6
    ]


def _of_one_size(boxes: Sequence[Box]) -> list[Box]:
    """Those with at least a quarter of the largest one's area, without those that lie in another."""
    ordered = sorted(boxes, key=_area, reverse=True)
    kept: list[Box] = []
    for box in ordered:
        if _area(box) > 0.25 * _area(ordered[0]) and not any(contains(other, centre(box)) for other in kept):
            kept.append(box)
    return kept


def _apart(grown: list[Box], frames: list[Box]) -> list[Box]:
    """The boxes with their texts, or those without where texts make them overlap."""
    overlap = any(_overlap(a, b) > 0.02 * _area(a) for i, a in enumerate(grown) for b in grown[i + 1 :])
    return frames if overlap else grown


def title_of(box: Box, items: Sequence[TextItem]) -> str:
    """The first row of strings inside `box`, if it is in its upper third."""
    inside = [item for item in items if contains(box, centre(item.box))]
    rows = _rows([Block((item,)) for item in inside])
    if not rows or centre(rows[0][0].box)[1] > box[1] + (box[3] - box[1]) / 3:
        return ""
    return " ".join(block.text for block in rows[0])


def background(pixels: np.ndarray) -> np.ndarray:
    """The most frequent colour of the border, or, where that is only a frame's line, of the picture; shape (3,)."""
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    border = np.concatenate([border, pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3)])
    step = max(1, min(pixels.shape[:2]) // 256)
    everywhere = pixels[::step, ::step].reshape(-1, 3)
    color = most_frequent_color(border)
    share = float((np.abs(everywhere.astype(np.int16) - color).max(axis=1) <= 16).mean())
    return color if share > 0.15 else most_frequent_color(everywhere)


def _ink(picture: Pillow.Image, contrast: int = 24) -> np.ndarray:
    """Where the picture differs from its background; bool, shape (height, width)."""
    pixels = np.asarray(picture)
    return np.asarray(np.abs(pixels.astype(np.int16) - background(pixels)).max(axis=2) > contrast)


def find_frames(ink: np.ndarray) -> list[Box]:
    """Hollow rectangles that are large, and neither inside another nor around all others. Pixels, lines excluded."""
    import cv2

    height, width = ink.shape
    contours, _ = cv2.findContours(ink.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        if w > 0.12 * width and h > 0.12 * height and w * h < 0.85 * width * height and _is_frame(ink, x, y, w, h):
            found.append((float(x), float(y), float(x + w), float(y + h)))
    return [_inset(box, ink) for box in _of_one_size(found)]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_frame(ink: np.ndarray, x: int, y: int, w: int, h: int) -> bool:
    """All four sides drawn, mostly empty inside, and nothing solid just outside (between two bars there is)."""
    part = ink[y : y + h, x : x + w]
    sides = (part[:3].any(axis=0), part[-3:].any(axis=0), part[:, :3].any(axis=1), part[:, -3:].any(axis=1))
    outside = [ink[y + h + 3 : y + h + 5, x : x + w], ink[y : y + h, x + w + 3 : x + w + 5]]
    outside += [ink[max(y - 5, 0) : max(y - 3, 0), x : x + w], ink[y : y + h, max(x - 5, 0) : max(x - 3, 0)]]
    solid = max((float(strip.mean()) for strip in outside if strip.size), default=0.0) > 0.5
    drawn = min(float(side.mean()) for side in sides) > 0.9
    return drawn and not solid and float(part[3:-3, 3:-3].mean()) < 0.7


def _inset(box: Box, ink: np.ndarray) -> Box:
    """Move each side inwards past the frame's line (at most 6 pixels)."""
    x1, y1, x2, y2 = (int(value) for value in box)
    for _ in range(6):
        x1 += bool(ink[y1:y2, x1].mean() > 0.8)
        x2 -= bool(ink[y1:y2, x2 - 1].mean() > 0.8)
        y1 += bool(ink[y1, x1:x2].mean() > 0.8)
        y2 -= bool(ink[y2 - 1, x1:x2].mean() > 0.8)
    return float(x1), float(y1), float(x2), float(y2)


def _with_outer_texts(frames: list[Box], items: Sequence[TextItem], size: tuple[int, int]) -> list[Box]:
    """Frames of axes have their titles and tick labels outside: give each string to the nearest frame."""
    members: list[list[Box]] = [[frame] for frame in frames]
    for item in items:
        distances = [_distance(frame, item.box) for frame in frames]
        nearest = int(np.argmin(distances))
        if 0 < distances[nearest] < 0.25 * min(size):
            members[nearest].append(item.box)
    return [
        _with_margin(union(boxes), size) if len(boxes) > 1 else frame
        for frame, boxes in zip(frames, members, strict=True)
    ]


def _with_margin(box: Box, size: tuple[int, int]) -> Box:
    """A little room around texts, so that none touches the edge of what is cut out."""
    room = 0.01 * max(size)
    x1, y1, x2, y2 = box
    return max(0.0, x1 - room), max(0.0, y1 - room), min(float(size[0]), x2 + room), min(float(size[1]), y2 + room)


def _distance(frame: Box, box: Box) -> float:
    x, y = centre(box)
    return float(np.hypot(max(frame[0] - x, 0, x - frame[2]), max(frame[1] - y, 0, y - frame[3])))


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _split_at_gaps(box: Box, ink: np.ndarray, items: Sequence[TextItem], depth: int = 0) -> list[Box]:
    """Cut recursively through empty bands (XY-cut), where every part looks like a chart of its own."""
    if depth < 4:
        for axis in (0, 1):
            parts = _cut(box, ink, axis)
            if len(parts) > 1 and all(_looks_like_chart(part, ink, items) for part in parts) and _similar(parts):
                return [sub for part in parts for sub in _split_at_gaps(part, ink, items, depth + 1)]
    return [box]


def _cut(box: Box, ink: np.ndarray, axis: int) -> list[Box]:
    """Cut at empty bands at least 2 % wide; axis 0 cuts columns apart, 1 rows. Bands that leave slivers are no cuts."""
    x1, y1, x2, y2 = (int(value) for value in box)
    filled = np.asarray(ink[y1:y2, x1:x2].any(axis=axis))
    marked = np.flatnonzero(filled)
    if not len(marked):
        return [box]
    least = max(3.0, 0.02 * ink.shape[1 - axis])
    jumps = [(int(a), int(b)) for a, b in pairwise(marked) if b - a > least]
    edges = [0, *((a + b) // 2 for a, b in jumps), len(filled)]
    starts = [edges[0]]
    for edge in edges[1:]:
        if edge - starts[-1] >= 0.2 * len(filled):
            starts.append(edge)
    starts[-1] = len(filled)
    spans = list(pairwise(starts))
    if axis == 0:
        return [(float(x1 + a), float(y1), float(x1 + b), float(y2)) for a, b in spans]
    return [(float(x1), float(y1 + a), float(x2), float(y1 + b)) for a, b in spans]


def _looks_like_chart(box: Box, ink: np.ndarray, items: Sequence[TextItem]) -> bool:
    """At least three strings, the topmost of them near the upper edge, and drawing besides."""
    inside = [item for item in items if contains(box, centre(item.box))]
    if len(inside) < 3 or not title_of(box, items):
        return False
    x1, y1, x2, y2 = (int(value) for value in box)
    drawing = ink[y1:y2, x1:x2].copy()
    for item in inside:
        a, b, c, d = (int(value) for value in item.box)
        drawing[max(b - y1, 0) : d - y1 + 1, max(a - x1, 0) : c - x1 + 1] = False
    rows, columns = np.flatnonzero(drawing.any(axis=1)), np.flatnonzero(drawing.any(axis=0))
    return len(rows) > 0.25 * (y2 - y1) and len(columns) > 0.25 * (x2 - x1)


def _similar(boxes: Sequence[Box]) -> bool:
    areas = [_area(box) for box in boxes]
    return max(areas) < 3 * min(areas)


def _in_reading_order(panels: list[Panel]) -> list[Panel]:
    rows: list[list[Panel]] = []
    for panel in sorted(panels, key=lambda p: centre(p.box)[1]):
        if rows and abs(centre(rows[-1][0].box)[1] - centre(panel.box)[1]) < 0.3 * (panel.box[3] - panel.box[1]):
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return [panel for row in rows for panel in sorted(row, key=lambda p: p.box[0])]


def describe_position(box: Box, boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """Where `box` stands among `boxes`: `top left`, `bottom`, `right`, `whole image` …"""
    if len(boxes) == 1:
        return "whole image" if _area(box) > 0.8 * size[0] * size[1] else "a part of the image"
    spread: Any = [max(centre(b)[axis] for b in boxes) - min(centre(b)[axis] for b in boxes) for axis in (0, 1)]
    x, y = (centre(box)[axis] / size[axis] for axis in (0, 1))
    vertical = ("top" if y < 0.4 else "bottom" if y > 0.6 else "middle") if spread[1] > 0.2 * size[1] else ""
    horizontal = ("left" if x < 0.4 else "right" if x > 0.6 else "middle") if spread[0] > 0.2 * size[0] else ""
    return " ".join(dict.fromkeys(word for word in (vertical, horizontal) if word))
