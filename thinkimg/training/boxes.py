"""Boxes in answers, and how well two sets of them overlap."""

import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in whatever unit both sides use (percent of the picture with our tools)."""

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")


def read_boxes(text: str) -> list[Box]:
    """Every `[x1, y1, x2, y2]` or `(x1, y1, x2, y2)` in a text, corners put in order."""
    boxes = []
    for found in _BOX.finditer(text):
        x1, y1, x2, y2 = map(float, found.groups())
        boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
    return boxes


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, between 0 and 1; 0 for two boxes without area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def mean_iou(found: Sequence[Box], wanted: Sequence[Box]) -> float:
    """Pairs are formed greedily, best overlap first; the sum of their overlaps is divided by the larger number of
    boxes, so that missing and surplus ones both cost."""
    pairs = sorted(
        ((overlap(one, other), i, j) for i, one in enumerate(found) for j, other in enumerate(wanted)),
        key=lambda pair: (-pair[0], pair[1:]),
    )
    taken_found: set[int] = set()
    taken_wanted: set[int] = set()
    together = 0.0
    for value, i, j in pairs:
        if i not in taken_found and j not in taken_wanted:
            taken_found.add(i)
            taken_wanted.add(j)
            together += value
    return together / max(len(found), len(wanted), 1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
