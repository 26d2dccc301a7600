"""Generated figures with known truth, for measuring the tools that look at pixels.

Nothing here shares code, fonts' sizes, words or layouts with the charts that the demo trains on: one half is drawn by
matplotlib in its own styles, the other by Pillow as an office program would.
"""

import random
from collections.abc import Callable, Iterator

from figures.drawn import draw_with_pillow
from figures.plotted import bars, panels, pie
from figures.truth import Figure

KINDS: dict[str, Callable[[random.Random], Figure]] = {
    "bars": bars,
    "pie": pie,
    "panels": panels,
    "drawn": draw_with_pillow,
}


def make_figures(kind: str, count: int, seed: int) -> Iterator[Figure]:
    """`count` figures of one of `KINDS`; the same for the same arguments."""
    for number in range(count):
        yield KINDS[kind](random.Random(f"{seed}/{kind}/{number}"))
