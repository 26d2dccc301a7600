"""The sub-plots of a figure and their titles, from its pixels and strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise, takewhile
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.tools.vision.colors import most_frequent_color
from thinkimg.tools.vision.geometry import Box
from thinkimg.tools.vision.layout import (
    Block,
    area_of,
    background,
    centre,
    contains,
    rows_of,
    shared_area,
    union,
)
from thinkimg.tools.vision.text import TextItem


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
    """The sub-plots in reading order, by the first of these that shows at least two: axes (their filled grounds, frames
    or corners, whichever are most), a grid of empty bands, white space; else the whole picture."""
    pixels = np.asarray(picture)
    ground = background(pixels)
    ink = _ink(pixels, ground)
    kinds = (_filled_grounds(pixels, ground), find_frames(ink), _axes_corners(ink))
    frames, found = max(((_whole_grid(boxes, ink), boxes) for boxes in kinds), key=lambda pair: len(pair[0]))
    if len(frames) >= 2:
        own = _texts_of(frames, found, items, picture.size)
        grown = [_grown(frame, texts, picture.size) for frame, texts in zip(frames, own, strict=True)]
        titles = [_first_row(box, texts) for box, texts in zip(grown, own, strict=True)]
        return _in_reading_order([Panel(*each) for each in zip(_apart(grown, frames), titles, strict=True)])
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    drawing = _without_texts(ink, items)
    boxes = _cells(whole, ink, drawing, items) or _split_at_gaps(whole, ink, drawing, items)
    return _in_reading_order([Panel(box, title_of(box, items)) for box in boxes])


def _whole_grid(frames: list[Box], ink: np.ndarray) -> list[Box]:
    """Where frames stand in rows and columns: with the cells that were missed, if something is drawn there."""
    columns, rows = _lanes(frames, 0), _lanes(frames, 1)
    if not len(frames) < len(columns) * len(rows) <= 2 * len(frames):
        return frames
    cells = [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]
    if any(sum(shared_area(cell, frame) > 0.5 * area_of(frame) for frame in frames) > 1 for cell in cells):
        return frames
    taken = [next((f for f in frames if contains(cell, centre(f))), None) for cell in cells]
    if sum(frame is not None for frame in taken) < len(frames):
        return frames
    drawn = [bool(ink[int(y1) : int(y2), int(x1) : int(x2)].mean() > 0.01) for x1, y1, x2, y2 in cells]
    return [frame or cell for cell, frame, drawn_on in zip(cells, taken, drawn, strict=True) if frame or drawn_on]


def _lanes(frames: Sequence[Box], axis: int) -> list[tuple[float, float]]:
    """The columns (axis 0) or rows (1) in which frames stand: their medians' ends."""
    lanes: list[list[Box]] = []
    for frame in sorted(frames, key=lambda f: centre(f)[axis]):
        if lanes and centre(frame)[axis] < np.median([f[axis + 2] for f in lanes[-1]]):
            lanes[-1].append(frame)
        else:
            lanes.append([frame])
    return [
        (float(np.median([f[axis] for f in lane])), float(np.median([f[axis + 2] for f in lane]))) for lane in lanes
    ]


def _filled_grounds(pixels: np.ndarray, ground: np.ndarray) -> list[Box]:
    """Large rectangles a little off the ground between them, with something drawn on them: axes of many styles."""
    import cv2

    mask: Any = _ink(pixels, ground, contrast=7).astype(np.uint8)
    height, width = mask.shape
    # A grid in the colour of the ground is closed; what is thinner than axes are, such as ticks and words, is cut off.
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones([max(9, min(height, width) // 16)] * 2, np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    found = []
    for number, (x, y, w, h, _) in enumerate(stats[1:count].tolist(), 1):
        part = labels[y : y + h, x : x + w] == number
        # A title that touches the axes sticks out.
        rows, columns = (np.flatnonzero(part.mean(axis=axis) > 0.5) for axis in (1, 0))
        if not len(rows) or not len(columns):
            continue
        left, top, right, bottom = x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1
        w, h = right - left, bottom - top
        large = w > 0.12 * width and h > 0.12 * height and w * h < 0.85 * width * height
        filled = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.93
        if large and filled and _is_ground(pixels[top:bottom, left:right], ground):
            found.append((float(left), float(top), float(right), float(bottom)))
    return _of_one_size(found)


def _is_ground(part: np.ndarray, around: np.ndarray) -> bool:
    """Axes differ a little from what is around them, and bars or lines stand on them; a bar is strong and plain."""
    step = max(1, min(part.shape[:2]) // 128)
    edge = max(2, min(part.shape[:2]) // 40)
    # Bars may cover more than they leave free, but not along the edges.
    color = most_frequent_color(np.concatenate([part[edge], part[:, edge], part[:, -edge - 1]]))
    inner = part[edge:-edge:step, edge:-edge:step].astype(np.int16)
    drawn = float((np.abs(inner - color).max(axis=2) > 24).mean())
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
    ordered = sorted(boxes, key=area_of, reverse=True)
    kept: list[Box] = []
    for box in ordered:
        if area_of(box) > 0.25 * area_of(ordered[0]) and not any(contains(other, centre(box)) for other in kept):
            kept.append(box)
    return kept


def _apart(grown: list[Box], frames: list[Box]) -> list[Box]:
    """The boxes with their texts; where two overlap, both end in the middle of that, between their frames."""
    apart = list(grown)
    for i, j in combinations(range(len(frames)), 2):
        if shared_area(apart[i], apart[j]) > 0.02 * min(area_of(apart[i]), area_of(apart[j])):
            apart[i], apart[j] = _cut_between(apart[i], apart[j], frames[i], frames[j])
    return apart


def _cut_between(one: Box, other: Box, frame: Box, other_frame: Box) -> tuple[Box, Box]:
    """The two boxes without what they share, cut along the axis on which their frames are apart; as they are where the
    frames overlap themselves."""
    for axis in (0, 1):
        if frame[axis + 2] <= other_frame[axis]:
            middle = min(max((one[axis + 2] + other[axis]) / 2, frame[axis + 2]), other_frame[axis])
            return _with_side(one, axis + 2, middle), _with_side(other, axis, middle)
        if other_frame[axis + 2] <= frame[axis]:
            second, first = _cut_between(other, one, other_frame, frame)
            return first, second
    return one, other


def _with_side(box: Box, side: int, at: float) -> Box:
    left, top, right, bottom = (at if number == side else value for number, value in enumerate(box))
    return left, top, right, bottom


def title_of(box: Box, items: Sequence[TextItem]) -> str:
    """The first row of strings inside `box`, if it is in its upper third."""
    return _first_row(box, [item for item in items if contains(box, centre(item.box))])


def _first_row(box: Box, items: Sequence[TextItem]) -> str:
    rows = rows_of([Block((item,)) for item in items])
    if not rows or centre(rows[0][0].box)[1] > box[1] + (box[3] - box[1]) / 3:
        return ""
    return " ".join(block.text for block in rows[0])


def _ink(pixels: np.ndarray, ground: np.ndarray, contrast: int = 24) -> np.ndarray:
    """Where the picture differs from its background; bool, shape (height, width)."""
    return np.asarray(np.abs(pixels.astype(np.int16) - ground).max(axis=2) > contrast)


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
    kept = _of_one_size(found)
    near = 0.01 * max(width, height)
    if any(shared_area(_widened(a, near), b) > 0 for a, b in combinations(kept, 2)):
        return []  # cells of a grid of lines within one chart
    return [_inset(box, ink) for box in kept]


def _widened(box: Box, by: float) -> Box:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


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


def _texts_of(
    frames: list[Box], found: Sequence[Box], items: Sequence[TextItem], size: tuple[int, int]
) -> list[list[TextItem]]:
    """Frames of axes have their titles and tick labels outside: each string belongs to the nearest frame.

    A cell that was only concluded from the grid is taken for a little farther away: a pie in it does not reach its
    edges, and labels of the axes beside it may be nearer to them.
    """
    members: list[list[TextItem]] = [[] for _ in frames]
    farther = [0.0 if frame in found else 0.02 * min(size) for frame in frames]
    for item in items:
        distances = [_distance(frame, item.box) + more for frame, more in zip(frames, farther, strict=True)]
        nearest = int(np.argmin(distances))
        if distances[nearest] < 0.25 * min(size):
            members[nearest].append(item)
    return members


def _grown(frame: Box, texts: Sequence[TextItem], size: tuple[int, int]) -> Box:
    """A frame with its texts, and a little room around those outside of it."""
    outside = [item.box for item in texts if _distance(frame, item.box) > 0]
    return _with_margin(union([frame, *outside]), size) if outside else frame


def _with_margin(box: Box, size: tuple[int, int]) -> Box:
    """A little room around texts, so that none touches the edge of what is cut out."""
    room = 0.01 * max(size)
    x1, y1, x2, y2 = box
    return max(0.0, x1 - room), max(0.0, y1 - room), min(float(size[0]), x2 + room), min(float(size[1]), y2 + room)


def _distance(frame: Box, box: Box) -> float:
    x, y = centre(box)
    return float(np.hypot(max(frame[0] - x, 0, x - frame[2]), max(frame[1] - y, 0, y - frame[3])))


_MOST_LANES = 4  # columns or rows of a grid that nothing but empty bands shows
_MOST_GAPS = (24, 12)  # widest empty bands that are tried as cuts between columns, rows


def _cells(box: Box, ink: np.ndarray, drawing: np.ndarray, items: Sequence[TextItem]) -> list[Box]:
    """A grid of charts without frames: rows and columns of about one size, between empty bands, each cell with a title
    above its drawing. Of several such grids, the one with most cells; none: an empty list."""
    solid = ink.copy()
    for item in items:  # no band runs between the letters of a string
        x1, y1, x2, y2 = (int(value) for value in item.box)
        solid[y1 : y2 + 1, x1 : x2 + 1] = True
    known: dict[tuple[float, float], list[list[Box]]] = {}
    found: list[list[Box]] = []
    for cuts in _cuts(box, solid, 1):
        bands = list(pairwise((box[1], *cuts, box[3])))
        for band in bands:
            if band not in known:
                row = (box[0], band[0], box[2], band[1])
                known[band] = _rows_of_charts(row, solid, drawing, items)
        for count in range(1, _MOST_LANES + 1):
            rows = [next((row for row in known[band] if len(row) == count), None) for band in bands]
            if all(rows) and len(bands) * count > 1:
                found.append([cell for row in rows for cell in row or ()])
    return max(found, key=len, default=[])


def _rows_of_charts(row: Box, solid: np.ndarray, drawing: np.ndarray, items: Sequence[TextItem]) -> list[list[Box]]:
    """Ways to cut a row into cells whose titles stand at one height."""
    title_of_span = cache(lambda x1, x2: _title_above((x1, row[1], x2, row[3]), drawing, items))
    found = []
    for cuts in _cuts(row, solid, 0):
        spans = list(pairwise((row[0], *cuts, row[2])))
        titles = [title for title in takewhile(bool, (title_of_span(*span) for span in spans)) if title]
        heights = [centre(title)[1] for title in titles]
        if len(titles) == len(spans) and max(heights) - min(heights) < 0.7 * min(t[3] - t[1] for t in titles):
            found.append([(x1, row[1], x2, row[3]) for x1, x2 in spans])
    return found


def _cuts(box: Box, solid: np.ndarray, axis: int) -> Iterator[tuple[float, ...]]:
    """Places of cuts, none of them first, through empty bands of a box; the parts are of about one size."""
    x1, y1, x2, y2 = (int(value) for value in box)
    marked = np.flatnonzero(solid[y1:y2, x1:x2].any(axis=axis))
    first = box[axis]
    least = max(2.0, 0.004 * solid.shape[1 - axis])
    gaps = [(int(a), int(b)) for a, b in pairwise(marked) if b - a > least]
    places = [
        first + (a + b + 1) / 2 for a, b in sorted(sorted(gaps, key=lambda gap: gap[0] - gap[1])[: _MOST_GAPS[axis]])
    ]
    yield ()
    for count in range(1, _MOST_LANES):
        for cuts in combinations(places, count):
            sizes = [b - a for a, b in pairwise((first, *cuts, box[axis + 2]))]
            if max(sizes) < 1.6 * min(sizes):
                yield cuts


def _title_above(cell: Box, drawing: np.ndarray, items: Sequence[TextItem]) -> Box | None:
    """The box of a chart's title: the only strings of the first row, above all that is drawn and amidst it."""
    inside = [item for item in items if contains(cell, centre(item.box))]
    if len(inside) < 3:
        return None
    x1, y1, x2, y2 = (int(value) for value in cell)
    part = drawing[y1:y2, x1:x2]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if len(rows) < 0.2 * (y2 - y1) or len(columns) < 0.2 * (x2 - x1):
        return None
    first = rows_of([Block((item,)) for item in inside])[0]
    title = union(block.box for block in first)
    if any(b.box[0] - a.box[2] > 1.5 * (title[3] - title[1]) for a, b in pairwise(first)):
        return None  # tick labels, names of categories, a legend
    amidst = x1 + columns[0] < centre(title)[0] < x1 + columns[-1]
    return title if amidst and title[3] < y1 + rows[0] + 0.5 * (title[3] - title[1]) else None


def _without_texts(ink: np.ndarray, items: Sequence[TextItem]) -> np.ndarray:
    drawing = ink.copy()
    for item in items:
        room = 1 + 0.5 * min(item.box[2] - item.box[0], item.box[3] - item.box[1])  # boxes may cut letters off
        x1, y1, x2, y2 = item.box
        drawing[max(0, int(y1 - room)) : int(y2 + room) + 2, max(0, int(x1 - room)) : int(x2 + room) + 2] = False
    return drawing


def _split_at_gaps(
    box: Box, ink: np.ndarray, drawing: np.ndarray, items: Sequence[TextItem], depth: int = 0
) -> list[Box]:
    """Cut recursively through empty bands (XY-cut), where every part looks like a chart of its own."""
    if depth < 4:
        for axis in (0, 1):
            parts = _cut(box, ink, axis)
            if len(parts) > 1 and all(_title_above(part, drawing, items) for part in parts) and _similar(parts):
                return [sub for part in parts for sub in _split_at_gaps(part, ink, drawing, items, depth + 1)]
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


def _similar(boxes: Sequence[Box]) -> bool:
    areas = [area_of(box) for box in boxes]
    return max(areas) < 2 * min(areas)


def _in_reading_order(panels: list[Panel]) -> list[Panel]:
    rows: list[list[Panel]] = []
    for panel in sorted(panels, key=lambda p: centre(p.box)[1]):
        if rows and abs(centre(rows[-1][0].box)[1] - centre(panel.box)[1]) < 0.3 * (panel.box[3] - panel.box[1]):
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return [panel for row in rows for panel in sorted(row, key=lambda p: p.box[0])]
