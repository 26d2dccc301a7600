"""How good are OCR, ZoominSubplot, Point and SegmentRegionAroundPoint? Generated figures with known truth.

    python -P bench/tools_quality.py [--count 40] [--seed 20261]

Figures come from matplotlib in ten of its styles and from Pillow (`figures/`); the tools get the encoded picture only.
What counts:

- OCR: edits (Levenshtein, spaces left out) against the length of all that is written, read strings that nothing was
  written at included; and the share of strings whose box overlaps the ink's with IoU >= 0.7.
- ZoominSubplot: exactly one sub-plot comes back, it holds at least 90 % of the right axes and at most 15 % of any
  other's; asked by title and by place (`the top left panel`, `fourth subplot`, `row 2, column 1`).
- Point: a point within 2 % of width and height of the true centre, and not more than one point.
- SegmentRegionAroundPoint: IoU of the mask with all pixels of the bar or slice, texts on it included.

The tools were tuned on other seeds than the default one. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolResult
from thinkimg.tools.vision.masks import decode_rle

sys.path.append(str(Path(__file__).parent))  # behind the standard library: this folder has an operator.py

from figures import KINDS, make_figures
from figures.truth import Box, Figure, Written

TUNED_ON = (1, 2, 3)
WANTED = {
    "ocr_character_accuracy": 0.97, "ocr_boxes": 0.9, "zoom_by_title": 0.95, "zoom_by_place": 0.95, "point_bar": 0.9,
    "point_legend": 0.9, "point_axis": 0.9, "segment_bar": 0.85, "segment_slice": 0.85,
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One measured thing: `value` out of `weight` (1, or a string's length)."""

    name: str
    style: str
    value: float
    weight: float
    what: str


class Bench:
    def __init__(self) -> None:
        names = ("OCR", "ZoominSubplot", "Point", "SegmentRegionAroundPoint")
        self.tools: dict[str, Tool] = {name: load_tool(name) for name in names}

    def call(self, name: str, image: Image, **arguments: object) -> ToolResult | None:
        """None where the tool answers that it cannot."""
        try:
            return self.tools[name].run({"image": "img_1", **arguments}, {"img_1": image})
        except ModelError:
            return None

    def measure(self, figure: Figure) -> Iterator[Score]:
        image = Image.from_pixels(figure.picture)
        yield from self._read(figure, image)
        yield from self._zoom(figure, image)
        yield from self._point(figure, image)
        yield from self._segment(figure, image)

    def _read(self, figure: Figure, image: Image) -> Iterator[Score]:
        result = self.call("OCR", image)
        assert result is not None
        boxes = [_to_pixels(box, image) for box in result.data["boxes"]]
        read = [Written(text, box) for text, box in zip(result.data["strings"], boxes, strict=True)]
        owners = [_owner(each, figure.written) for each in read]
        for number, truth in enumerate(figure.written):
            mine = sorted(
                (each for each, owner in zip(read, owners, strict=True) if owner == number), key=lambda e: e.box[0]
            )
            text, expected = "".join(e.text for e in mine).replace(" ", ""), truth.text.replace(" ", "")
            right = len(expected) - edits(text, expected)
            said = f"{truth.text!r} read as {text!r}"
            yield Score("ocr_character_accuracy", figure.style, right, len(expected), said)
            best = max((overlap(e.box, truth.box) for e in mine), default=0.0)
            yield Score("ocr_boxes", figure.style, best >= 0.7, 1, f"{truth.text!r}: IoU {best:.2f}")
        for each, owner in zip(read, owners, strict=True):
            if owner is None:
                said = f"{each.text!r} is written nowhere"
                yield Score("ocr_character_accuracy", figure.style, -len(each.text.replace(" ", "")), 0, said)

    def _zoom(self, figure: Figure, image: Image) -> Iterator[Score]:
        for number, panel in enumerate(figure.panels):
            asked = [("title", panel.title), *(("place", place) for place in panel.places)]
            for kind, description in asked:
                result = self.call("ZoominSubplot", image, description=description)
                found = [_to_pixels(each["box"], image) for each in result.data["subplots"]] if result else []
                shares = [[_share(other.box, box) for other in figure.panels] for box in found]
                right = len(found) == 1 and shares[0][number] >= 0.9
                right = right and all(share <= 0.15 for n, share in enumerate(shares[0]) if n != number)
                said = f"{description}: {[[round(x, 2) for x in row] for row in shares]}, wanted {number}"
                yield Score(f"zoom_by_{kind}", figure.style, right, 1, said)

    def _point(self, figure: Figure, image: Image) -> Iterator[Score]:
        for target in figure.targets:
            result = self.call("Point", image, description=target.description)
            found = [(p["x"], p["y"]) for p in result.data["points"]] if result else []
            x, y = 100 * target.x / image.width, 100 * target.y / image.height
            right = len(found) == 1 and abs(found[0][0] - x) <= 2 and abs(found[0][1] - y) <= 2
            said = f"{target.description}: {found}, truth {x:.1f} {y:.1f}"
            yield Score(f"point_{target.kind}", figure.style, right, 1, said)

    def _segment(self, figure: Figure, image: Image) -> Iterator[Score]:
        for area in figure.areas:
            x, y = 100 * area.point[0] / image.width, 100 * area.point[1] / image.height
            result = self.call("SegmentRegionAroundPoint", image, points=[[x, y]])
            mask = decode_rle(result.data["mask"]) if result else np.zeros_like(area.mask)
            value = float((mask & area.mask).sum() / max(1, (mask | area.mask).sum()))
            yield Score(f"segment_{area.kind}", figure.style, value, 1, f"IoU {value:.2f} at {x:.1f} {y:.1f}")


def edits(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    common = _common(a, b)
    return common / (_area(a) + _area(b) - common)


def _owner(read: Written, written: tuple[Written, ...]) -> int | None:
    """The string that covers most of what was read."""
    shares = [_share(read.box, truth.box) for truth in written]
    best = int(np.argmax(shares)) if shares else 0
    return best if shares and shares[best] > 0.2 else None


def _share(of: Box, within: Box) -> float:
    return _common(of, within) / _area(of)


def _common(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _area(box: Box) -> float:
    return max(1e-9, (box[2] - box[0]) * (box[3] - box[1]))


def _to_pixels(box: list[float], image: Image) -> Box:
    x1, y1, x2, y2 = box
    return x1 * image.width / 100, y1 * image.height / 100, x2 * image.width / 100, y2 * image.height / 100


def totals(scores: list[Score]) -> dict[str, float]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for score in scores:
        sums[score.name][0] += score.value
        sums[score.name][1] += score.weight
    return {name: value / weight for name, (value, weight) in sums.items()}


def show(scores: list[Score]) -> None:
    table = Table(title="Quality of the tools that need no weights of ours")
    for name in ("measure", "result", "wanted", "of", "worst styles"):
        table.add_column(name)
    for name, value in totals(scores).items():
        mine = [score for score in scores if score.name == name]
        styles = sorted({s.style.split(",")[0] for s in mine})
        by_style = {s: totals([m for m in mine if m.style.startswith(s)])[name] for s in styles}
        worst = ", ".join(f"{s} {v:.3f}" for s, v in sorted(by_style.items(), key=lambda pair: pair[1])[:2])
        enough = "" if value >= WANTED[name] else " (short)"
        table.add_row(name, f"{value:.4f}{enough}", f"{WANTED[name]:g}", f"{sum(m.weight for m in mine):g}", worst)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality of OCR, ZoominSubplot, Point and SegmentRegionAroundPoint.")
    parser.add_argument("--count", type=int, default=40, help="figures of each kind")
    parser.add_argument("--seed", type=int, default=20261, help=f"the tools were tuned on {TUNED_ON}")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of figures")
    parser.add_argument("--failures", action="store_true", help="name every miss")
    options = parser.parse_args()
    bench = Bench()
    scores: list[Score] = []
    for kind in options.kinds.split(","):
        for number, figure in enumerate(make_figures(kind, options.count, options.seed)):
            found = list(bench.measure(figure))
            scores += found
            for score in found:
                if options.failures and score.value < WANTED[score.name] * score.weight:
                    print(f"{kind} {number} ({figure.style}) {score.name}: {score.what}", flush=True)
    show(scores)
    result: dict[str, object] = {name: round(value, 4) for name, value in totals(scores).items()}
    result |= {"figures": options.count * len(options.kinds.split(",")), "seed": options.seed}
    print(json.dumps(result | {"met": all(value >= WANTED[name] for name, value in totals(scores).items())}))


if __name__ == "__main__":
    main()
