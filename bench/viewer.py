"""The viewer over a run of 100,000 trajectories: how soon something is seen, how much is loaded.

    python bench/viewer.py [--trajectories 100000] [--repeats 5]

The trajectories are a few that were really executed (the agent loop with real tools on generated charts, 26 kB a line),
copied under new ids and questions: two evaluated models and the steps of a training stage. Chromium opens the page of
`thinkimg view` first while there is no index yet, then when there is one. The last line is one JSON object:

- `first_paint_cold_s`, `first_paint_s` (median), `first_paint_max_s`: from asking for the page to a painted row of the
  list; cold is while the index is being made from nothing.
- `command_to_paint_s`: the same from starting the command, index at hand.
- `index_s`, `index_mb`, `run_mb`: time and size of the index, size of the run.
- `filter_s`, `search_s`: from choosing a tool, from the last key of a word, to the right number in the list.
- `requests_to_the_end`, `rows_in_the_page`: lists asked for when the scroll bar is dragged to the end, and rows drawn.
- `server_mb`: peak memory of the server.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from thinkimg import jsonl

sys.path.append(str(Path(__file__).parents[1]))

STEPS = 100
ROW = ".rows li a"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinkimg-viewer-") as folder:
        place = Path(folder)
        run = write_many(place, arguments.trajectories)
        print(json.dumps(measure(place, run, arguments.trajectories, arguments.repeats)))


def write_many(place: Path, count: int) -> Path:
    """A run with `count` trajectories: a quarter each of two evaluated models, and half of a training stage."""
    from tests.support.viewer.executed_run import write_executed_run

    source, run = write_executed_run(place / "source", questions=8), place / "run"
    lines = {
        name: [line.text for line in jsonl.lines(source / f"stages/table/{name}/greedy.jsonl")]
        for name in ("sft", "v-toolrl")
    }
    number = 0
    for name in lines:
        folder = run / "stages" / "table" / name
        shutil.copytree(source / f"stages/table/{name}/images", folder / "images")
        number = write_copies(folder / "greedy.jsonl", lines[name], number, count // 4)
    folder = run / "stages" / "v-toolrl" / "trajectories"
    shutil.copytree(source / "stages/table/v-toolrl/images", folder / "images")
    for step in range(1, STEPS + 1):
        share = (count - number) // (STEPS + 1 - step)
        number = write_copies(folder / f"step-{step:06d}.jsonl", lines["v-toolrl"], number, share)
    return run


def write_copies(path: Path, lines: list[str], start: int, count: int) -> int:
    patterns = []
    for line in lines:
        record = jsonl.parse(line)
        patterns.append((line, json.dumps(record["id"]), json.dumps(record["question"])))
    with path.open("w") as file:
        for number in range(start, start + count):
            line, key, question = patterns[number % len(patterns)]
            line = line.replace(key, f'"t{number:07d}"', 1)
            file.write(line.replace(question, f'{question[:-1]} ({number % 12500})"', 1) + "\n")
    return start + count


class Viewer:
    """`thinkimg view` as a process, with a cache of its own."""

    def __init__(self, place: Path, run: Path) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "thinkimg.cli", "view", str(run), "--port", "0"],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"XDG_CACHE_HOME": str(place / "cache")},
        )  # fmt: skip
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        self.url = found[0]

    def peak_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return round(int(found[1]) / 1024, 1) if found else psutil.Process(self.process.pid).memory_info().rss / 2**20

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def measure(place: Path, run: Path, count: int, repeats: int) -> dict[str, Any]:
    from tests.support.browser.chromium import ARGUMENTS, find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        with Viewer(place, run) as viewer:
            cold, page = first_paint(browser, viewer.url)
            page.wait_for_function(
                "(n) => document.querySelector('.count').innerText.startsWith(n)", arg=f"{count:,}", timeout=600_000
            )
            page.wait_for_selector(".progress", state="detached", timeout=600_000)
            index_s = time.monotonic() - viewer.began
            indexing_mb = viewer.peak_mb()
            page.context.close()
        with Viewer(place, run) as viewer:
            warm = [first_paint(browser, viewer.url)]
            command = time.monotonic() - viewer.began
            for _ in range(repeats - 1):
                warm[-1][1].context.close()
                warm.append(first_paint(browser, viewer.url))
            page = warm[-1][1]
            requests, rows = drag_to_the_end(page, count)
            filter_s = until_count_changes(page, lambda: page.select_option("[name=tool]", "Crop"))
            page.get_by_role("button", name="Clear").click()
            page.wait_for_function("(n) => document.querySelector('.count').innerText.startsWith(n)", arg=f"{count:,}")
            search_s = until_count_changes(page, lambda: page.locator("[name=q]").fill("segmented region value"))
            server_mb = viewer.peak_mb()
        browser.close()
    paints = [seconds for seconds, _ in warm]
    return {
        "trajectories": count,
        "run_mb": round(sum(path.stat().st_size for path in run.rglob("*.jsonl")) / 1e6, 1),
        "first_paint_cold_s": round(cold, 3),
        "first_paint_s": round(statistics.median(paints), 3),
        "first_paint_max_s": round(max(paints), 3),
        "command_to_paint_s": round(command, 3),
        "target_s": 2.0,
        "met": max(*paints, cold) < 2.0,
        "index_s": round(index_s, 1),
        "index_mb": round(sum(path.stat().st_size for path in (place / "cache").rglob("*.sqlite*")) / 1e6, 1),
        "filter_s": round(filter_s, 3),
        "search_s": round(search_s, 3),
        "requests_to_the_end": requests,
        "rows_in_the_page": rows,
        "indexing_server_mb": indexing_mb,
        "server_mb": server_mb,
    }


def first_paint(browser: Browser, url: str) -> tuple[float, Page]:
    """Seconds until a row of the list is painted, and the page."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.add_init_script("""
      new MutationObserver((_, observer) => {
        if (!document.querySelector(".rows li a")) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }));
      }).observe(document, { childList: true, subtree: true });
    """)
    page.goto(url)
    page.wait_for_function("() => window.painted", timeout=60_000)
    return page.evaluate("window.painted") / 1000, page


def drag_to_the_end(page: Page, count: int) -> tuple[int, int]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "api/trajectories?" in request.url else None)
    page.locator(".rows").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    page.wait_for_function(
        "(n) => [...document.querySelectorAll('.rows li')].at(-1)?.ariaPosInSet === n", arg=str(count)
    )
    page.wait_for_selector(".rows li:last-child a")
    return len(asked), page.locator(".rows li").count()


def until_count_changes(page: Page, act: Any) -> float:
    before = page.locator(".count").inner_text()
    began = time.monotonic()
    act()
    page.wait_for_function(
        "(before) => document.querySelector('.count').innerText !== before && document.querySelector('.rows li a')",
        arg=before,
    )
    return time.monotonic() - began


if __name__ == "__main__":
    main()
