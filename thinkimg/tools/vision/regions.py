"""Regions of one colour in a picture, and the names of colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.tools.vision.colors import most_frequent_color
from thinkimg.tools.vision.geometry import SMALL, Box
from thinkimg.tools.vision.layout import background
from thinkimg.tools.vision.text import TextItem

_NAMED: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((214, 39, 40), (240, 20, 30), (225, 80, 75), (170, 20, 30)),
    "blue": ((31, 92, 200), (20, 60, 245), (75, 125, 215), (15, 50, 140), (31, 119, 180), (100, 150, 240)),
    "green": ((44, 150, 44), (10, 180, 60), (90, 175, 95), (15, 110, 50), (150, 210, 130)),
    "orange": ((250, 140, 20), (255, 127, 14), (245, 165, 75), (225, 115, 0)),
    "purple": ((140, 60, 190), (160, 30, 220), (155, 100, 195), (95, 25, 140), (148, 103, 189)),
    "yellow": ((240, 210, 30), (250, 225, 0), (238, 215, 90), (225, 190, 10), (255, 255, 80)),
    "pink": ((245, 130, 190), (255, 110, 180), (240, 155, 200), (225, 90, 150), (227, 119, 194)),
    "brown": ((130, 80, 45), (150, 85, 30), (155, 110, 80), (100, 60, 30), (140, 86, 75)),
    "gray": ((128, 128, 128), (150, 150, 150), (105, 105, 105), (190, 190, 190)),
    "cyan": ((23, 190, 207), (0, 220, 220), (120, 210, 220)),
    "black": ((0, 0, 0), (35, 35, 35)),
    "white": ((255, 255, 255), (245, 245, 245)),
}
_SYNONYMS = {
    "grey": "gray",
    "violet": "purple",
    "teal": "cyan",
    "turquoise": "cyan",
    "magenta": "pink",
    "lilac": "purple",
}


@dataclass(frozen=True)
class Region:
    """Connected pixels of about one colour.

    Attributes:
        box: left, top, right, bottom in pixels.
        area: in pixels.
        inside: a pixel (x, y) well inside the region, near its centroid.
        color: its name.
        rgb: the colour itself, 0 to 255.
    """

    box: Box
    area: int
    inside: tuple[float, float]
    color: str
    rgb: tuple[int, int, int]


def color_in(words: Sequence[str]) -> str | None:
    """The first colour name among `words`, in our spelling."""
    spelled = [_SYNONYMS.get(word, word) for word in words]
    return next((word for word in spelled if word in _NAMED), None)


def color_name(color: Sequence[float] | np.ndarray) -> str:
    """The name of the nearest of some well-known shades, compared in CIE Lab."""
    import cv2

    names = [name for name, shades in _NAMED.items() for _ in shades]
    shades = [tuple(color), *(shade for shades in _NAMED.values() for shade in shades)]
    lab = cv2.cvtColor(np.array([shades], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return names[int(np.argmin(np.linalg.norm(lab[1:] - lab[0], axis=1)))]


def colored_regions(picture: Pillow.Image, items: Sequence[TextItem], least_share: float = 0.0008) -> list[Region]:
    """Plain areas that are neither background nor text, largest first: bars, slices, markers, legend keys.

    Args:
        picture: mode RGB.
        items: its strings, which are left out.
        least_share: of the picture's area; smaller regions are left out.
    """
    import cv2

    pixels = np.asarray(picture)
    ink = np.abs(pixels.astype(np.int16) - background(pixels)).max(axis=2) > 24
    apart = ~ink
    for item in items:
        x1, y1, x2, y2 = (int(value) for value in item.box)
        ink[y1 + 1 : y2, x1 + 1 : x2] = False
    regions = []
    for color in _plain_colors(pixels, ink):
        near: Any = ((np.abs(pixels.astype(np.int16) - color).max(axis=2) <= 20) & ink).astype(np.uint8)
        if max(picture.size) > SMALL:  # a grid over bars cuts them in pieces; where the ground shows, they are two
            closed = cv2.morphologyEx(near, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
            near = near | (closed & ~apart)
        opened = cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        name = color_name(color)
        for index in range(1, count):
            x, y, w, h, area = (int(value) for value in stats[index])
            if min(w, h) >= 3 and area >= max(9.0, least_share * ink.size):
                part = (labels[y : y + h, x : x + w] == index).astype(np.uint8)
                dx, dy = _inner_point(part)
                box = (float(x), float(y), float(x + w), float(y + h))
                regions.append(Region(box, area, (x + dx, y + dy), name, (int(color[0]), int(color[1]), int(color[2]))))
    return sorted(regions, key=lambda region: -region.area)


def key_color(pixels: np.ndarray, item: TextItem) -> np.ndarray | None:
    """The colour of the legend's key at the left of a string, None if nothing coloured is there; shape (3,).

    Args:
        pixels: the picture, uint8, shape (height, width, 3).
    """
    x1, y1, x2, y2 = item.box
    line = min(y2 - y1, x2 - x1)
    left = max(0, int(x1 - 5 * line))
    beside = pixels[int(y1 + line / 4) : int(y2 - line / 4) + 1, left : max(left, int(x1 - line / 5))]
    if not beside.size:
        return None
    ground = most_frequent_color(pixels[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].reshape(-1, 3))
    colors = beside.reshape(-1, 3)
    other = colors[np.abs(colors.astype(np.int16) - ground).max(axis=1) > 24]
    if len(other) < 9:
        return None
    color = most_frequent_color(other)
    share = float((np.abs(other.astype(np.int16) - color).max(axis=1) <= 24).mean())
    return color if share > 0.4 else None


def _plain_colors(pixels: np.ndarray, ink: np.ndarray, most: int = 24) -> list[np.ndarray]:
    """The frequent colours under `ink`, most frequent first, each at least 20 apart from the others in some channel."""
    colors, counts = np.unique(pixels[ink].reshape(-1, 3), axis=0, return_counts=True)
    chosen: list[np.ndarray] = []
    for index in np.argsort(-counts)[:400]:
        color = colors[index].astype(np.int16)
        if counts[index] < 9 or len(chosen) == most:
            break
        if all(np.abs(color - other).max() > 20 for other in chosen):
            chosen.append(color)
    return chosen


def _inner_point(part: np.ndarray) -> tuple[float, float]:
    """The centroid if the region holds it, else the pixel farthest from its border; (x, y) at pixel centres."""
    import cv2

    ys, xs = np.nonzero(part)
    x, y = float(xs.mean()), float(ys.mean())
    if part[round(y), round(x)]:
        return x + 0.5, y + 0.5
    depth = cv2.distanceTransform(np.pad(part, 1), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column) - 0.5, float(row) - 0.5
