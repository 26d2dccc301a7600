"""Programs that draw a page of PDF: ggplot2 and LibreOffice (a deck of slides, each a chart). PDFium makes the pixels
and says where each string is."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from .charts import Chart
from .truth import Box, Drawn, drawn, own_colors

_PROGRAMS = Path(__file__).parent / "programs"
_ENVIRONMENT = Path.home() / ".cache" / "thinkimg" / "pictures-python"


def lacking(program: str) -> str:
    """What must be installed before `program` can draw, "" for nothing."""
    if not _packages():
        return "python-pptx and pypdfium2 (hack/pictures.sh)"
    if program == "libreoffice":
        return "" if shutil.which("soffice") else "LibreOffice (on Debian: apt-get install libreoffice-impress)"
    if shutil.which("Rscript"):
        asked = ["Rscript", "-e", 'for (name in c("ggplot2", "jsonlite")) library(name, character.only = TRUE)']
        if subprocess.run(asked, capture_output=True).returncode == 0:
            return ""
    return "ggplot2 (on Debian: apt-get install r-cran-ggplot2 r-cran-jsonlite)"


def _packages() -> str:
    """The folder of python-pptx and pypdfium2, "" without them."""
    return next((str(folder) for folder in _ENVIRONMENT.glob("lib/*/site-packages")), "")


def draw(program: str, charts: Sequence[Chart]) -> Iterator[Drawn]:
    if (packages := _packages()) not in sys.path:
        sys.path.append(packages)  # behind our own
    jobs = [{"chart": chart.as_json(), "fills": _fills(chart, False), "own": _fills(chart, True)} for chart in charts]
    with tempfile.TemporaryDirectory() as folder:
        pages = _ggplot2(jobs, Path(folder)) if program == "ggplot2" else _libreoffice(charts, jobs, Path(folder))
        for chart, (seen, alone) in zip(charts, pages, strict=True):
            picture, texts = _render(*seen, chart)
            yield drawn(picture, _render(*alone, chart)[0], chart.marks(), texts)


def _fills(chart: Chart, alone: bool) -> list[list[str]]:
    own = own_colors(chart.marks())
    return [
        [
            own[s, 0 if chart.kind == "areas" else c] if alone else chart.colors[c if chart.kind == "slices" else s]
            for c in range(len(chart.categories))
        ]
        for s in range(len(chart.series))
    ]


_Page = tuple[Path, int]


def _ggplot2(jobs: list[dict[str, Any]], folder: Path) -> list[tuple[_Page, _Page]]:
    (folder / "charts.json").write_text(json.dumps(jobs))
    subprocess.run(["Rscript", str(_PROGRAMS / "ggplot2.R"), "charts.json", "."], cwd=folder, check=True)
    return [((folder / f"{n}-0.pdf", 0), (folder / f"{n}-1.pdf", 0)) for n in range(len(jobs))]


def _libreoffice(charts: Sequence[Chart], jobs: list[dict[str, Any]], folder: Path) -> list[tuple[_Page, _Page]]:
    from .slides import write_deck

    write_deck(
        [
            (chart, job[fills], fills == "own")
            for chart, job in zip(charts, jobs, strict=True)
            for fills in ("fills", "own")
        ],
        folder / "deck.pptx",
    )
    command = [
        "soffice",
        f"-env:UserInstallation=file://{folder}/profile",
        "--headless",
        "--convert-to",
        "pdf",
        "deck.pptx",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    deck = folder / "deck.pdf"
    return [((deck, 2 * n), (deck, 2 * n + 1)) for n in range(len(charts))]


def _render(file: Path, number: int, chart: Chart) -> tuple[Pillow.Image, dict[str, Box]]:
    """The page in the chart's size, and where the chart's strings are."""
    import pypdfium2

    document = pypdfium2.PdfDocument(file)
    page = document[number]
    scale = chart.size[0] / page.get_width()
    picture = page.render(scale=scale).to_pil().convert("RGB")
    text = page.get_textpage()
    found = {}
    for string in (chart.title, chart.category_axis, chart.value_axis, *chart.categories, *chart.series):
        box = _box_of(string, text)
        if box:
            left, bottom, right, top = box
            height = page.get_height()
            found[string] = (left * scale, (height - top) * scale, right * scale, (height - bottom) * scale)
    document.close()
    return picture.crop((0, 0, *chart.size)), found


def _box_of(string: str, text: Any) -> Box | None:
    """The box of the letters of a string that is there just once, y upwards."""
    search = text.search(string, match_case=True, match_whole_word=True)
    first, second = search.get_next(), search.get_next()
    if first is None or second is not None:
        return None
    boxes = [text.get_charbox(first[0] + n) for n in range(first[1]) if string[n : n + 1].strip()]
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)
