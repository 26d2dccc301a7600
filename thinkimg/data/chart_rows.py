"""Synthetic charts as rows: `charts://?questions=1200&difficulty=1`; the split and the seed decide which are made."""

import io
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from PIL import Image

from thinkimg.data.chart import Chart, Split
from thinkimg.data.chart_drawing import draw_chart
from thinkimg.data.charts import Question, make_questions
from thinkimg.data.uris import parse_query, positive


def chart_rows(uri: str, split: str, seed: int) -> Iterator[dict[str, Any]]:
    """`id`, `question`, `answer`, `image` (PNG; questions about a chart share the object), `kind`, and `meta`: what is
    known of the chart, which evaluation groups by and models never see.

    Raises:
        ValueError: the URI is wrong.
    """
    wanted = chart_options(uri)
    try:
        questions = make_questions(
            cast(Split, split), wanted["questions"], seed, wanted["difficulty"], per_chart=wanted["per_chart"]
        )
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from None
    images: dict[str, bytes] = {}
    return (_row(question, images) for question in questions)


def chart_options(uri: str) -> dict[str, int]:
    """How many `questions`, of which `difficulty`, and how many `per_chart`. Raises `ValueError`: the URI is wrong."""
    parts = urlsplit(uri)
    if parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{uri}: charts are made, not found: nothing may stand between charts:// and the ?")
    wanted = {"questions": 1200, "difficulty": 1, "per_chart": 3}
    return wanted | parse_query(uri, dict.fromkeys(wanted, positive))


def _row(question: Question, images: dict[str, bytes]) -> dict[str, Any]:
    chart = question.chart
    if chart.digest not in images:
        images[chart.digest] = _png(draw_chart(chart).image)
    meta = {
        "chart": chart.digest,
        "chart_kinds": [panel.kind for panel in chart.panels],
        "panel": question.panel,
        "label": question.label,
        "record": _record(chart),
    }
    return {
        "id": question.id,
        "question": question.text,
        "answer": question.answer,
        "image": images[chart.digest],
        "kind": question.kind,
        "meta": meta,
    }


def _record(chart: Chart) -> list[dict[str, Any]]:
    return [
        {
            "kind": panel.kind,
            "title": panel.title,
            "box": list(panel.box),
            "items": [[item.label, item.value, item.color] for item in panel.items],
        }
        for panel in chart.panels
    ]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
