"""What is known of a drawn chart. Where each mark is comes from a second drawing, in which every mark has a colour of
its own and all else stays as it is; where texts are, from what the program itself wrote."""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from PIL import Image as Pillow

from .charts import Chart, Question

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Mark = tuple[int, int]  # series, category

_STEPS = (0, 85, 170, 255)
_ALONE = [rgb for rgb in product(_STEPS, repeat=3) if len(set(rgb)) > 1]


@dataclass(frozen=True)
class Drawn:
    """Attributes:
    marks: all pixels of each mark, bool, shape (height, width); marks that are hidden are left out.
    texts: where each string is written; strings that the program left out, or wrote twice, are not among them.
    """

    picture: Pillow.Image = field(repr=False)
    marks: dict[Mark, np.ndarray] = field(repr=False)
    texts: dict[str, Box]


def own_colors(marks: list[Mark]) -> dict[Mark, str]:
    """A colour for each mark, none of them grey, each at least 85 apart from all others in some channel."""
    chosen = _ALONE[:: max(1, len(_ALONE) // len(marks))][: len(marks)]
    return {mark: "#{:02x}{:02x}{:02x}".format(*rgb) for mark, rgb in zip(marks, chosen, strict=True)}


def drawn(picture: Pillow.Image, alone: Pillow.Image, marks: list[Mark], texts: dict[str, Box]) -> Drawn:
    """Args:
    picture: as a viewer sees it.
    alone: the same in `own_colors`.
    """
    assert picture.size == alone.size, f"the two drawings differ in size: {picture.size}, {alone.size}"
    pixels = np.asarray(alone.convert("RGB")).astype(np.int16)
    found = {}
    for mark, color in own_colors(marks).items():
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        mask = _largest(np.abs(pixels - rgb).max(axis=2) <= 3)
        if mask.sum() >= 4:
            found[mark] = mask
    return Drawn(picture.convert("RGB"), found, texts)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Without pixels of borders that happen to be of that colour, and with what is drawn upon it, such as a grid."""
    import cv2

    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = [index + 1 for index, area in enumerate(areas) if area >= 0.25 * areas.max()]
    return np.isin(labels, kept)


def can_be_asked(question: Question, drawn: Drawn) -> bool:
    """Not about a text that the program left out, or a mark that another hides."""
    if question.absent:
        return True
    return question.text in drawn.texts if question.mark is None else question.mark in drawn.marks


def is_there(point: tuple[float, float], question: Question, chart: Chart, drawn: Drawn) -> bool:
    """Whether `point`, in pixels, is where the question means: on the mark or at most 2 pixels beside it; within 2 % of
    width and height of the point of a line; in the box of a text or half a line beside it. Never for what is absent."""
    if question.absent:
        return False
    x, y = point
    if question.mark is None:
        x1, y1, x2, y2 = drawn.texts[question.text]
        room = chart.font / 2
        return x1 - room <= x <= x2 + room and y1 - room <= y <= y2 + room
    rows, columns = np.nonzero(drawn.marks[question.mark])
    if chart.kind == "lines":
        width, height = chart.size
        return bool(abs(columns.mean() - x) <= 0.02 * width and abs(rows.mean() - y) <= 0.02 * height)
    return bool((np.abs(columns + 0.5 - x).clip(0.5) + np.abs(rows + 0.5 - y).clip(0.5)).min() <= 3)


def inside(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) farthest from the border."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(column) - 1, int(row) - 1
