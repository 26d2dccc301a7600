"""Colours of a picture's pixels."""

import numpy as np
from PIL import Image as Pillow


def most_frequent_color(colors: np.ndarray) -> np.ndarray:
    """The median of the most frequent colours, which are counted coarsely; (n, 3) -> (3,)."""
    coarse, where = np.unique(colors // 16, axis=0, return_inverse=True)
    most = int(np.bincount(where.ravel(), minlength=len(coarse)).argmax())
    return np.asarray(np.median(colors[where.ravel() == most], axis=0))


def border_color(picture: Pillow.Image) -> tuple[int, int, int]:
    """Median of the outermost pixels, so that the pasted picture has no edge."""
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue
