"""Pictures to look at."""

import numpy as np
from PIL import Image as Pillow

from thinkimg.image import Image


def picture(width: int, height: int, seed: int = 0) -> Image:
    """Coloured rectangles on white, a different picture per seed."""
    random = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    for _ in range(6):
        x, y = random.integers(0, width), random.integers(0, height)
        pixels[y : y + max(1, height // 3), x : x + max(1, width // 3)] = random.integers(0, 255, 3)
    return Image.from_pixels(Pillow.fromarray(pixels))
