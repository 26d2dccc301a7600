"""Record README's moving picture, docs/images/play.webp: `thinkimg play` in a real browser, with the real tools.

python hack/record_play.py [FILE]      # needs Chromium (`make chromium`)
"""

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.support.browser.chromium import ARGUMENTS, find_chromium  # noqa: E402

OUT = ROOT / "docs" / "images" / "play.webp"
WIDTH, HEIGHT = 1180, 760


def main(out: Path = OUT) -> None:
    command = [sys.executable, "-m", "thinkimg.cli", "play", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            frames = record(server.stdout.readline().strip())
        finally:
            server.terminate()
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data, _ in frames]
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=[ms for _, ms in frames], loop=0, quality=72, method=6
    )
    print(f"{out}: {len(frames)} frames, {out.stat().st_size / 1024:.0f} KiB")


def record(url: str) -> list[tuple[bytes, int]]:
    """Screenshots, and for how many milliseconds each is shown."""
    frames: list[tuple[bytes, int]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")

        def keep(milliseconds: int) -> None:
            frames.append((page.screenshot(), milliseconds))

        page.goto(url)
        page.wait_for_selector("text=Take the example")
        keep(900)
        page.click("text=Take the example")
        page.wait_for_selector(".canvas img")
        keep(900)
        ask(page, "ZoominSubplot", description="Rating")
        keep(700)
        run(page, 1)
        keep(1800)
        page.get_by_role("button", name="img_2", exact=True).click()
        choose(page, "OCR")
        run(page, 2)
        keep(2200)
        page.get_by_role("button", name="img_1", exact=True).click()
        choose(page, "SegmentRegionAroundPoint")
        click(page, 13, 30)
        click(page, 33, 75)
        keep(900)
        run(page, 3)
        keep(1800)
        choose(page, "Crop")
        draw_box(page, keep)
        run(page, 4)
        keep(2200)
        browser.close()
    return frames


def choose(page: Page, tool: str) -> None:
    page.locator("select[name=tool]").select_option(tool)


def ask(page: Page, tool: str, **values: str) -> None:
    choose(page, tool)
    for name, value in values.items():
        page.fill(f"[name={name}]", value)


def run(page: Page, number: int) -> None:
    page.locator(".form .main").click()
    page.locator(".turn.tool").nth(number - 1).wait_for(timeout=120_000)
    page.wait_for_load_state("networkidle")
    page.locator(".left").evaluate("element => element.scrollTop = 0")
    page.locator(".turn.assistant").last.evaluate("element => element.scrollIntoView({block: 'start'})")
    time.sleep(0.2)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    box = page.locator(".canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100


def click(page: Page, x: float, y: float) -> None:
    page.mouse.click(*place(page, x, y))


def draw_box(page: Page, keep: Callable[[int], None]) -> None:
    page.mouse.move(*place(page, 52, 2))
    page.mouse.down()
    for x, y in ((70, 20), (86, 38), (99, 52)):
        page.mouse.move(*place(page, x, y))
        keep(180)
    page.mouse.up()
    keep(700)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
