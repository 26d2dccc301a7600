"""A run as one HTML file: results, learning curves, tools, and a browser of trajectories.

The file needs no network and nothing beside it. Everything that a model, a tool or a picture wrote is data: it enters
the page as JSON and is shown as text, never as markup, and a content security policy lets no other script run.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from thinkimg import jsonl
from thinkimg.api import Control
from thinkimg.evaluation import owed
from thinkimg.evaluation.report import Report
from thinkimg.figures import accuracy, duration, interval, milliseconds, rate
from thinkimg.trajectory import Trajectory
from thinkimg.viewer.curves import learning_charts
from thinkimg.viewer.discovery import order_of
from thinkimg.viewer.pictures import data_uri
from thinkimg.viewer.sample import Candidate, Source, as_record, find_sources, interleave

MAX_BYTES = 12_000_000
MAX_TRAJECTORIES = 800
_GIVE_UP_AFTER = 20  # trajectories in a row that did not fit


_MODES = {"greedy": "greedy", "sampled": "sampled", "training": "while training", "examples": "examples"}


def mode_in_words(mode: str) -> str:
    """How answers were asked for."""
    control = Control.of(mode)
    return _MODES[mode] if control is None else f"pictures changed ({control})"


def write_page(
    run: Path,
    report: Report,
    out: Path | None = None,
    max_bytes: int = MAX_BYTES,
    max_trajectories: int = MAX_TRAJECTORIES,
    decode: Callable[[int], str] | None = None,
) -> Path:
    """Write `RUN/report.html`, or `out`.

    Args:
        run: a finished run; its trajectories are found below `stages/`.
        report: what `thinkimg.evaluation.report.collect` (or `write_report`) returned.
        max_bytes: of trajectories and pictures together; what does not fit is left out, evenly, and the page says so.
        max_trajectories: at most this many, whatever their size.
        decode: text of a token id, for the token view; without it ids are shown.

    Returns:
        the path of the page.
    """
    sources = _with_table_order(find_sources(run), report)
    content = _Content(max_bytes, max_trajectories)
    for source, candidate in interleave(sources):
        if not content.add(source, candidate):
            break
    path = out or run / "report.html"
    page = _render(report, sources, content, decode)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(page.encode("utf-8", "replace"))
    partial.replace(path)  # a reader never sees half a page
    return path


class _Content:
    """The trajectories and pictures chosen so far, within the budget."""

    def __init__(self, max_bytes: int, max_trajectories: int) -> None:
        self._left, self._most = max_bytes, max_trajectories
        self._refused = 0
        self._by_source: dict[int, list[dict[str, Any]]] = {}
        self._ids: set[str] = set()
        self.pictures: dict[str, str | None] = {}
        self.count = 0

    def add(self, source: Source, candidate: Candidate) -> bool:
        """Take the trajectory if it fits; False when there is no point in offering more."""
        if self.count >= self._most:
            return False
        trajectory = candidate.load()
        record = as_record(trajectory) | {"step": candidate.step}
        if trajectory.id in self._ids:  # the same record in two files: links must still be unique
            record["id"] = f"{trajectory.id}.{self.count}"
        pictures = self._new_pictures(trajectory, candidate)
        size = len(json.dumps(record)) + sum(len(uri or "") + 80 for uri in pictures.values())
        if size > self._left:
            self._refused += 1
            return self._refused < _GIVE_UP_AFTER
        self._refused = 0
        self._left -= size
        self.pictures.update(pictures)
        self._ids.add(record["id"])
        self._by_source.setdefault(id(source), []).append(record)
        self.count += 1
        return True

    def _new_pictures(self, trajectory: Trajectory, candidate: Candidate) -> dict[str, str | None]:
        return {
            image.sha256: data_uri(path) if (path := candidate.picture_path(image)) else None
            for image in trajectory.images.values()
            if image.sha256 not in self.pictures
        }

    def of(self, source: Source) -> list[dict[str, Any]]:
        return self._by_source.get(id(source), [])


def _with_table_order(sources: list[Source], report: Report) -> list[Source]:
    """The last row of the table first: it is what a reader came to see."""
    order = [row.model for row in report.rows][::-1]
    return sorted(
        sources,
        key=lambda source: (
            order_of(source.mode),
            order.index(source.model) if source.model in order else len(order),
            source.model,
        ),
    )


def _render(report: Report, sources: list[Source], content: _Content, decode: Callable[[int], str] | None) -> str:
    labels = {row.model: row.label for row in report.rows} | {curve.stage: curve.label for curve in report.curves}
    described = [
        {
            "label": f"{labels.get(source.model, source.model)} · {mode_in_words(source.mode)}",
            "model": labels.get(source.model, source.model),
            "mode": source.mode,
            "changed": mode_in_words(source.mode) if Control.of(source.mode) else "",
            "stage": source.stage,
            "shown": len(content.of(source)),
            "total": source.total,
        }
        for source in sources
    ]
    trajectories = [
        record | {"source": number} for number, source in enumerate(sources) for record in content.of(source)
    ]
    used = {token for record in trajectories for turn in record["turns"] for token in turn.get("tokens", ())}
    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {one.__name__: one for one in (accuracy, interval, rate, milliseconds, duration)}
    return environment.get_template("report.html.j2").render(
        report=report,
        control_head=owed.HEAD,
        charts=learning_charts(report.curves),
        shown=content.count,
        total=sum(source.total for source in sources),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        data=embed_json(
            {
                "sources": described,
                "trajectories": trajectories,
                "pieces": {token: decode(token) for token in sorted(used)} if decode else {},
            }
        ),
        pictures=embed_json(content.pictures),
    )


def embed_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no `<`, `>` or `&`, so that no text in it can end the element."""
    text = jsonl.text_of(value, separators=(",", ":"))  # ASCII: odd code points are escaped too
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
