"""The page's HTML, and a selection of trajectories as one file that opens without a server: the same page, with its
data and pictures inside."""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Callable
from typing import Any

from thinkimg.errors import UserError
from thinkimg.trajectory.files import own_file
from thinkimg.viewer.page import embed_json
from thinkimg.viewer.pictures import data_uri
from thinkimg.viewer.queries import Queries
from thinkimg.viewer.selection import Selection

MOST_TRAJECTORIES = 2000
MOST_BYTES = 100_000_000

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
{style}
</head>
<body>
<div id="app"></div>
<noscript>This page needs JavaScript.</noscript>
{scripts}
</body>
</html>
"""


def read_static(name: str) -> str:
    """A file of the built front end, which the wheel carries."""
    return (importlib.resources.files("thinkimg.viewer") / "static" / name).read_text(encoding="utf-8")


def example_picture() -> bytes:
    """A PNG: a figure of four panels, to try tools on."""
    return (importlib.resources.files("thinkimg.viewer") / "static" / "example.png").read_bytes()


def page_html(title: str = "ThinkIMG", style: str = "static/viewer.css", script: str = "static/viewer.js") -> str:
    """Of a served page, with the addresses of what it is made of. Its policy is a header."""
    return _PAGE.format(
        policy="",
        title=html.escape(title),
        style=f'<link rel="stylesheet" href="{style}">',
        scripts=f'<script src="{script}"></script>',
    )


def export_page(queries: Queries, selection: Selection, trajectory: Callable[[str], dict[str, Any] | None]) -> str:
    """One HTML file with everything that matches.

    Args:
        trajectory: what the page is answered for a key: `{"row", "record", "related"}`.

    Raises:
        UserError: nothing matches, or more than a page can hold.
    """
    matching = queries.matching(selection)
    if not matching:
        raise UserError("nothing matches, there is nothing to export", "selection")
    if len(matching) > MOST_TRAJECTORIES:
        raise UserError(
            f"{len(matching):,} trajectories match; one file holds at most {MOST_TRAJECTORIES:,}: narrow it",
            "selection",
        )
    rows, records = queries.rows_of(matching), {}
    pictures: dict[str, str | None] = {}
    size = 0
    for row in rows:
        found = trajectory(row["key"])
        if found is None:
            continue
        records[row["key"]] = found["record"]
        size += sum(len(str(turn)) for turn in found["record"]["turns"])
        for image in found["record"]["images"].values():
            if image["sha"] not in pictures:
                pictures[image["sha"]] = _embedded(queries, image["src"])
                size += len(pictures[image["sha"]] or "")
        if size > MOST_BYTES:
            raise UserError(
                f"the file would have more than {MOST_BYTES // 1_000_000} MB, after {len(records):,} of "
                f"{len(rows):,} trajectories: narrow it",
                "selection",
            )
    runs = [run.name for run in queries.index.runs]
    data = {
        "runs": runs,
        "selection": selection.model_dump(exclude_defaults=True),
        "rows": rows,
        "records": records,
        "pictures": pictures,
        "curves": queries.curves(),
    }
    script, style = read_static("viewer.js"), read_static("viewer.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        title=html.escape(f"{', '.join(runs)} · ThinkIMG"),
        style=f"<style>{style}</style>",
        scripts=f'<script type="application/json" id="data">{embed_json(data)}</script>\n<script>{script}</script>',
    )


def _embedded(queries: Queries, src: str | None) -> str | None:
    """The picture that a record asks for as `images/FILE/NAME`, as data."""
    if src is None:
        return None
    _, file, name = src.split("/")
    folder = queries.index.folder_of_pictures(int(file))
    path = own_file(folder, name) if folder else None
    return data_uri(path) if path else None


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
