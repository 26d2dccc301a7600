"""The layout of a chart from its pixels and strings: reading order, background, places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinkimg.tools.vision.colors import most_frequent_color
from thinkimg.tools.vision.geometry import Box
from thinkimg.tools.vision.text import TextItem

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


def area_of(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def shared_area(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def contains(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def reading_order(items: Sequence[TextItem]) -> list[list[Block]]:
    """Rows from top to bottom, each with its blocks from left to right."""
    return rows_of(_blocks(items))


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


def rows_of(blocks: Sequence[Block]) -> list[list[Block]]:
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


def background(pixels: np.ndarray) -> np.ndarray:
    """The most frequent colour of the border, or, where that is only a frame's line, of the picture; shape (3,)."""
    color = most_frequent_color(_ring(pixels, 0))
    step = max(1, min(pixels.shape[:2]) // 256)
    everywhere = pixels[::step, ::step].reshape(-1, 3)
    share = float((np.abs(everywhere.astype(np.int16) - color).max(axis=1) <= 16).mean())
    if share > 0.15:
        return color
    inner = most_frequent_color(_ring(pixels, min(6, min(pixels.shape[:2]) // 4)))
    return color if np.abs(inner - color).max() <= 16 else most_frequent_color(everywhere)


def _ring(pixels: np.ndarray, depth: int) -> np.ndarray:
    """The colours along the border, two pixels wide, `depth` pixels inside it; shape (n, 3)."""
    part = pixels[depth : pixels.shape[0] - depth, depth : pixels.shape[1] - depth]
    sides = (part[:2], part[-2:], part[:, :2], part[:, -2:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def describe_position(box: Box, boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """Where `box` stands among `boxes`: `top left`, `bottom`, `right`, `whole image` …"""
    if len(boxes) == 1:
        return "whole image" if area_of(box) > 0.8 * size[0] * size[1] else "a part of the image"
    spread: Any = [max(centre(b)[axis] for b in boxes) - min(centre(b)[axis] for b in boxes) for axis in (0, 1)]
    x, y = (centre(box)[axis] / size[axis] for axis in (0, 1))
    vertical = ("top" if y < 0.4 else "bottom" if y > 0.6 else "middle") if spread[1] > 0.2 * size[1] else ""
    horizontal = ("left" if x < 0.4 else "right" if x > 0.6 else "middle") if spread[0] > 0.2 * size[0] else ""
    return " ".join(dict.fromkeys(word for word in (vertical, horizontal) if word))
