"""Do Point and SegmentRegionAroundPoint hold on charts that other programs drew?

    python -P bench/pictures_quality.py [--count 8] [--seed 1] [--families d3,ggplot2]

Charts, questions and truth: `pictures/`. A point is right where it is the only one and is on the mark, at most 2 pixels
beside it; on the point of a line within 2 % of width and height; in the box of a text or half a line beside it. What is
not there must be refused. `misled` is the share of all questions that are answered with a wrong place.

The tools may be tuned on some families, and are judged by the others, on which nothing is tuned. A family whose program
is not installed is named as left out. The last line is one JSON object.
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
from thinkimg.tools.tool import Tool
from thinkimg.tools.vision.masks import decode_rle

sys.path.append(str(Path(__file__).parent))  # behind the standard library: this folder has an operator.py

from pictures import JUDGING, KINDS_OF, TUNING, draw, lacking
from pictures.charts import KINDS, Chart, Question, make_charts, questions
from pictures.truth import Drawn, can_be_asked, inside, is_there

WANTED = {
    "bars": 0.95, "lying bars": 0.93, "slices": 0.9, "lines": 0.9, "areas": 0.85, "texts": 0.97, "legend": 0.97,
    "absent": 0.97, "segment": 0.93,
}  # fmt: skip
MOST_MISLED = 0.01


@dataclass(frozen=True)
class Answer:
    """`value`: 1 for right, 0 for wrong; of the segmenter an IoU. `misled`: a wrong place, given as if right."""

    family: str
    kind: str
    value: float
    misled: bool
    what: str


class Bench:
    def __init__(self) -> None:
        self.point: Tool = load_tool("Point")
        self.segment: Tool = load_tool("SegmentRegionAroundPoint")

    def measure(self, family: str, chart: Chart, drawn: Drawn, seed: int) -> Iterator[Answer]:
        image = Image.from_pixels(drawn.picture)
        for question in questions(chart, seed):
            if can_be_asked(question, drawn):
                yield self._point(family, question, chart, drawn, image)
            if question.mark in drawn.marks and chart.kind not in ("lines", "areas"):
                yield self._segment(family, question, drawn, image)

    def _point(self, family: str, question: Question, chart: Chart, drawn: Drawn, image: Image) -> Answer:
        try:
            result = self.point.run({"image": "img_1", "description": question.description}, {"img_1": image})
        except ModelError as error:
            what = f"{question.description}: refused: {str(error)[:200]}"
            return Answer(family, question.kind, float(question.absent), False, what)
        found = [(p["x"] * image.width / 100, p["y"] * image.height / 100) for p in result.data["points"]]
        right = len(found) == 1 and is_there(found[0], question, chart, drawn)
        return Answer(family, question.kind, float(right), not right, f"{question.description}: {result.text}")

    def _segment(self, family: str, question: Question, drawn: Drawn, image: Image) -> Answer:
        assert question.mark is not None
        truth = drawn.marks[question.mark]
        x, y = inside(truth)
        point = [100 * (x + 0.5) / image.width, 100 * (y + 0.5) / image.height]
        try:
            result = self.segment.run({"image": "img_1", "points": [point]}, {"img_1": image})
            mask = decode_rle(result.data["mask"])
        except ModelError:
            mask = np.zeros_like(truth)
        value = float((mask & truth).sum() / (mask | truth).sum())
        return Answer(family, "segment", value, False, f"{question.description}: IoU {value:.2f}")


def totals(answers: list[Answer]) -> dict[str, float]:
    """Means by kind, and `misled`: the share of all questions to Point."""
    values: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        values[answer.kind].append(answer.value)
    asked = [answer for answer in answers if answer.kind != "segment"]
    misled = sum(answer.misled for answer in asked) / max(1, len(asked))
    return {kind: float(np.mean(values[kind])) for kind in WANTED if kind in values} | {"misled": misled}


def show(answers: list[Answer], side: str) -> None:
    families = list(dict.fromkeys(answer.family for answer in answers))
    table = Table(title=f"{side} families")
    for name in ("kind", "all", "wanted", "of", *families):
        table.add_column(name)
    by_family = {family: totals([a for a in answers if a.family == family]) for family in families}
    for kind, value in totals(answers).items():
        wanted = WANTED.get(kind, MOST_MISLED)
        asked = sum(a.kind == kind if kind in WANTED else a.kind != "segment" for a in answers)
        each = [f"{by_family[f][kind]:.2f}" if kind in by_family[f] else "" for f in families]
        table.add_row(kind, f"{value:.3f}", f"{wanted:g}", str(asked), *each)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Point and SegmentRegionAroundPoint on charts of other programs.")
    parser.add_argument("--count", type=int, default=8, help="charts of each kind and family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", default=",".join(TUNING + JUDGING))
    parser.add_argument("--kinds", default=",".join(KINDS), help="of charts")
    parser.add_argument("--failures", action="store_true", help="name every miss on the families that may be tuned on")
    parser.add_argument("--save", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    bench = Bench()
    answers: list[Answer] = []
    left_out = {}
    for family in options.families.split(","):
        if missing := lacking(family):
            left_out[family] = missing
            continue
        kinds = tuple(k for k in options.kinds.split(",") if k in KINDS_OF.get(family, KINDS))
        charts = list(make_charts(options.count, options.seed, family, kinds))
        for number, (chart, drawn) in enumerate(zip(charts, draw(family, charts), strict=True)):
            found = list(bench.measure(family, chart, drawn, options.seed))
            answers += found
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                drawn.picture.save(options.save / f"{family}-{number}.png")
            for answer in found:
                if options.failures and family in TUNING and answer.value < WANTED[answer.kind]:
                    print(f"{family} {number} {chart.kind}, {answer.kind}: {answer.what}", flush=True)
    result: dict[str, object] = {"seed": options.seed, "count": options.count, "left_out": left_out}
    for side, families in (("tuning", TUNING), ("judging", JUDGING)):
        mine = [answer for answer in answers if answer.family in families]
        if mine:
            show(mine, side)
            result[side] = {kind: round(value, 4) for kind, value in totals(mine).items()}
            result[f"{side}_questions"] = sum(answer.kind != "segment" for answer in mine)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
