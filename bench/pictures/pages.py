"""Programs that draw in a browser: Chart.js, bokeh, D3 and a table of HTML, in headless Chromium."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image as Pillow

from .charts import Chart
from .truth import Drawn, drawn, own_colors

PROGRAMS = Path(__file__).parent / "programs"
MODULES = Path.home() / ".cache" / "thinkimg" / "pictures-node" / "node_modules"
_LIBRARIES = {
    "chartjs": ("chart.js/dist/chart.umd.js",),
    "d3": ("d3/dist/d3.min.js",),
    "bokeh": ("@bokeh/bokehjs/build/js/bokeh.min.js", "@bokeh/bokehjs/build/js/bokeh-api.min.js"),
    "table": (),
}
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def chromium() -> str | None:
    named = os.environ.get("THINKIMG_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def lacking(program: str) -> str:
    """What must be installed before `program` can draw, "" for nothing."""
    if chromium() is None:
        return "Chromium (make chromium)"
    return next(
        (
            f"{path.split('/dist')[0]} (hack/pictures.sh)"
            for path in _LIBRARIES[program]
            if not (MODULES / path).exists()
        ),
        "",
    )


def draw(program: str, charts: Sequence[Chart]) -> Iterator[Drawn]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=list(_ARGUMENTS))
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.set_content('<body style="margin:0"><div id="stage" style="overflow:hidden"></div></body>')
        for script in (
            PROGRAMS / "canvas.js",
            *(MODULES / path for path in _LIBRARIES[program]),
            PROGRAMS / f"{program}.js",
        ):
            page.add_script_tag(path=script)
        for chart in charts:
            marks = chart.marks()
            own = own_colors(marks)
            pictures = []
            texts = {}
            for alone in (True, False):
                fills = [
                    [
                        own[s, c] if alone and (s, c) in own else _color(chart, s, c)
                        for c in range(len(chart.categories))
                    ]
                    for s in range(len(chart.series))
                ]
                page.eval_on_selector(
                    "#stage",
                    "(node, size) => { node.style.width = size[0] + 'px'; node.style.height = size[1] + 'px'; }",
                    chart.size,
                )
                texts = page.evaluate(
                    "([chart, fills, alone]) => window.draw(chart, fills, alone)", [chart.as_json(), fills, alone]
                )
                shot = page.locator("#stage").screenshot()
                pictures.append(Pillow.open(io.BytesIO(shot)))
            yield drawn(pictures[1], pictures[0], marks, {text: tuple(box) for text, box in texts.items()})
        browser.close()


def _color(chart: Chart, series: int, category: int) -> str:
    return chart.colors[category if chart.kind == "slices" else series]
