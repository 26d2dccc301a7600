"""`thinkimg view` as a reader meets it: a real server, real files, a real browser."""

import io
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.browser.contrast import CONTRAST
from tests.support.viewer.executed_run import write_executed_run
from tests.support.viewer.fabricated_run import trajectory, write_run
from tests.support.viewer.viewed import viewed
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.tools.vision.masks import COLORS, encode_rle
from thinkimg.trajectory import Trajectory, write_trajectories

pytestmark = pytest.mark.browser

WIDE, PHONE = 1440, 390
WIDTH, HEIGHT = 640, 401
BOXES = [[10.0, 20.0, 35.5, 62.25], [71.3, 5.0, 99.9, 11.1], [0, 0, 100, 100]]
POINTS = [[50.0, 50.0], [3.2, 97.1]]
MASK = (113, 57, 402, 260)  # left, top, right, bottom in pixels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs and one file whose boxes, points and mask are known."""
    folder = tmp_path_factory.mktemp("view")
    write_run(folder / "fabricated")
    with ThreadPoolExecutor(1) as thread:  # the agent has an event loop of its own; Playwright's runs in this thread
        thread.submit(write_executed_run, folder / "executed", questions=3).result()
    write_trajectories([known()], folder / "known" / "known.jsonl")
    return folder


def known() -> Trajectory:
    one = Trajectory(id="known", question="Where is it?", answer="there", status="answered", rewards={"total": 0.25})
    white = Image.from_pixels(Pillow.new("RGB", (WIDTH, HEIGHT), "white"))
    one.add("user", ImageBlock(handle=one.add_image(white)), TextBlock(text="Where is it?"))
    asked = {"image": "img_1", "box": [5, 5, 95, 95], "points": [[25.0, 75.0]]}
    one.add("assistant", TextBlock(text="I look."), ToolCallBlock(id="c", name="Look", arguments=asked))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[MASK[1] : MASK[3], MASK[0] : MASK[2]] = True
    data = {"boxes": BOXES, "strings": ["one", "two", "all"], "points": POINTS, "mask": encode_rle(mask)}
    one.add("tool", ToolResultBlock(call_id="c", name="Look", text="found", data=data))
    return one


@pytest.fixture(scope="module")
def url(place, tmp_path_factory):
    folders = [place / name for name in ("fabricated", "executed", "known")]
    with viewed(tmp_path_factory.mktemp("index") / "i.sqlite", *folders) as address:
        yield address


def row_of(url: str, **selection: str) -> dict:
    return httpx.get(url + "api/trajectories", params=selection).json()["rows"][0]


def read(url: str, width: int = WIDE, **choices: str) -> str:
    return f"{url}#/trajectories?" + "&".join(f"{name}={quote(value)}" for name, value in choices.items())


def count(page) -> int:
    text = page.locator(".count").inner_text()
    return int(re.match(r"([\d,]+)", text)[1].replace(",", ""))


def wait_for_count(page, expected: int) -> None:
    page.wait_for_function(
        "(n) => document.querySelector('.count').innerText.replaceAll(',', '').startsWith(n + ' ')", arg=str(expected)
    )


# ---- navigation ------------------------------------------------------------------------------------------------------


def test_a_row_opens_its_trajectory_and_back_leads_to_the_list(open_page, url):
    page = open_page(read(url, run="executed", model="v-toolrl"))
    wait_for_count(page, 3)
    page.locator(".rows a").nth(1).click()
    page.wait_for_selector(".reader h2")
    shown = page.locator(".rows li.current .question").inner_text()
    assert page.locator(".reader h2").inner_text() == shown
    page.wait_for_function(
        "() => [...document.querySelectorAll('.reader img')].every((one) => one.complete && one.naturalWidth)"
    )
    text = page.locator(".reader").inner_text()
    assert "SegmentRegionAroundPoint" in text
    assert "img_3" in text
    page.go_back()
    page.wait_for_selector(".reader.empty")


def test_the_address_holds_everything(open_page, url):
    key = row_of(url, run="executed", tool="Point")["key"]
    first = open_page(
        read(url, run="executed", tool="Point", sort="-reward", t=key, turn="6", tokens="1", layers="boxes")
    )
    first.wait_for_selector(".turn.current")
    second = open_page(first.url)
    second.wait_for_selector(".turn.current")
    for page in (first, second):
        assert page.locator(".turn.current").get_attribute("data-turn") == "6"
        assert page.locator(".turn.current").bounding_box()["y"] < 300
        assert page.get_by_role("button", name="Tokens").get_attribute("aria-pressed") == "true"
        assert page.get_by_role("button", name="Masks").get_attribute("aria-pressed") == "false"
        assert page.locator("select[name=tool]").input_value() == "Point"
        assert page.locator(".rows li.current").count() == 1


def test_turns_are_stepped_through(open_page, url):
    key = row_of(url, run="executed", tool="Point")["key"]
    page = open_page(read(url, t=key))
    page.wait_for_selector(".turn")
    total = page.locator(".turn").count()
    for number in range(1, 4):
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f".turn.current[data-turn='{number}']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".turn.current[data-turn='2']")
    assert "turn=2" in page.url
    assert page.locator(".tools .at").inner_text() == f"Turn 2 of {total}"
    page.get_by_role("button", name="Next turn").click()
    page.wait_for_selector(".turn.current[data-turn='3']")
    page.locator(".turn .who a").last.click()
    page.wait_for_selector(f".turn.current[data-turn='{total}']")


def test_the_keyboard_alone_is_enough(open_page, url):
    page = open_page(read(url, run="fabricated", model="v-toolrl"))
    total = count(page)
    page.keyboard.press("j")
    page.wait_for_selector(".reader h2")
    first = page.url
    page.keyboard.press("j")
    page.wait_for_function(f"() => location.href !== {json.dumps(first)}")
    page.wait_for_selector(".rows li.current")
    page.keyboard.press("k")
    page.wait_for_function(f"() => location.href === {json.dumps(first)}")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.keyboard.press("t")
    page.wait_for_selector(".tokens .own")
    page.keyboard.press("/")
    page.keyboard.type("jjk")
    assert page.locator("input[name=q]").input_value() == "jjk"
    page.keyboard.press("Escape")
    page.locator("input[name=q]").fill("")
    page.wait_for_function("() => !location.hash.includes('q=')")
    wait_for_count(page, total)
    page.locator(".rows").focus()
    page.keyboard.press("End")
    page.wait_for_function(f"() => document.querySelector('.rows li.current')?.ariaPosInSet === '{total}'")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('.rows li.current')?.ariaPosInSet === '1'")
    page.locator("main").focus()
    page.keyboard.press("Escape")
    page.wait_for_selector(".reader.empty")


def test_everything_that_acts_is_reached_and_named(open_page, url):
    page = open_page(read(url, t=row_of(url, run="executed", tool="Point")["key"], tokens="1"))
    page.wait_for_selector(".tokens")
    nameless = page.evaluate("""
      () => [...document.querySelectorAll("button, a, select, input, [tabindex='0'], summary")].filter((one) =>
        one.checkVisibility() && !(one.labels?.length || one.textContent.trim() || one.ariaLabel))
        .map((one) => one.outerHTML)
    """)
    assert nameless == []
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className + document.activeElement.name"))
    assert {"skip", "rows"} <= {name.replace("undefined", "") for name in reached}
    assert any("frame" in name for name in reached)


# ---- filter ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "selection"),
    [
        ("run", "executed", {"run": "executed"}),
        ("stage", "v-toolrl", {"stage": "v-toolrl"}),
        ("step", "10-20", {"step": "10-20"}),
        ("tool", "Point", {"tool": "Point"}),
        ("error", "bad_arguments", {"error": "bad_arguments"}),
        ("outcome", "wrong", {"outcome": "wrong"}),
        ("min", "1", {"min": "1"}),
        ("q", "value of yak", {"q": "value of yak"}),
    ],
)
def test_a_filter_narrows_the_list_and_stands_in_the_address(open_page, url, field, value, selection):
    expected = httpx.get(url + "api/trajectories", params=selection).json()
    page = open_page(url)
    everything = count(page)
    control = page.locator(f"[name={field}]")
    if control.evaluate("(one) => one.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(value)
    wait_for_count(page, expected["total"])
    assert 0 < expected["total"] < everything
    assert f"{field}=" in page.url
    assert page.locator(".rows .question").first.inner_text() == expected["rows"][0]["question"]
    page.get_by_role("button", name="Clear").click()
    wait_for_count(page, everything)
    assert page.url.endswith("#/trajectories")


def test_what_is_no_step_is_marked_and_changes_nothing(open_page, url):
    page = open_page(url)
    everything = count(page)
    page.locator("[name=step]").fill("soon")
    page.wait_for_timeout(500)
    assert page.locator("[name=step]:invalid").count() == 1
    assert count(page) == everything
    assert "step" not in page.url


def test_nothing_found_is_said(open_page, url):
    page = open_page(read(url, q="no such words anywhere"))
    assert page.get_by_text("Nothing matches.").is_visible()


# ---- overlays --------------------------------------------------------------------------------------------------------


def corners(page, selector: str) -> list[list[float]]:
    return page.locator(selector).evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map((r) => [r.left, r.top, r.right, r.bottom])"
    )


def expected_corners(picture, box) -> list[float]:
    left, top, right, bottom = picture
    return [
        left + box[0] / 100 * (right - left), top + box[1] / 100 * (bottom - top),
        left + box[2] / 100 * (right - left), top + box[3] / 100 * (bottom - top),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("enlarged", [False, True], ids=["in place", "enlarged"])
def test_overlays_lie_where_the_tool_said_to_a_pixel(open_page, url, width, enlarged):
    page = open_page(read(url, t="known", turn="3"), width) if width == WIDE else open_known_on_a_phone(open_page, url)
    frame = ".turn.tool .frame"
    page.wait_for_selector(f"{frame} .mask")
    if enlarged:
        page.locator(frame).first.click()
        frame = "dialog .frame"
        page.wait_for_selector(f"{frame} .mask")
    page.wait_for_function(
        "(s) => [...document.querySelectorAll(s + ' img')].every((one) => one.complete && one.naturalWidth)", arg=frame
    )
    (picture,) = corners(page, f"{frame} img:not(.mask)")
    drawn = corners(page, f"{frame} rect.box:not(.asked)")
    assert len(drawn) == len(BOXES)
    for box, found in zip(BOXES, drawn, strict=True):
        assert found == pytest.approx(expected_corners(picture, box), abs=1)
    (asked,) = corners(page, f"{frame} rect.asked")
    assert asked == pytest.approx(expected_corners(picture, [5, 5, 95, 95]), abs=1)
    points = corners(page, f"{frame} .point:not(.asked)") + corners(page, f"{frame} .point.asked")
    for point, (left, top, right, bottom) in zip([*POINTS, [25.0, 75.0]], points, strict=True):
        middle = expected_corners(picture, [*point, *point])[:2]
        assert [(left + right) / 2, (top + bottom) / 2] == pytest.approx(middle, abs=1)
    assert mask_extent(page, frame, picture) == pytest.approx(
        expected_corners(
            picture, [100 * MASK[0] / WIDTH, 100 * MASK[1] / HEIGHT, 100 * MASK[2] / WIDTH, 100 * MASK[3] / HEIGHT]
        ),
        abs=1,
    )


def open_known_on_a_phone(open_page, url):
    page = open_page(read(url, run="known"), PHONE)
    page.locator(".rows a").first.click()
    page.wait_for_selector(".turn.tool")
    return page


def mask_extent(page, frame: str, picture) -> list[float]:
    """Where the mask's colour is on the screen, by a screenshot without the other layers."""
    page.evaluate(
        "(s) => document.querySelectorAll(s + ' svg, ' + s + ' i').forEach((one) => { one.style.opacity = 0; })",
        frame,
    )
    page.locator(f"{frame}").first.scroll_into_view_if_needed()
    left, top, *_ = corners(page, f"{frame} img:not(.mask)")[0]
    pixels = np.asarray(Pillow.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    mixed = np.array([255, 255, 255]) * (1 - 120 / 255) + np.array(COLORS[0]) * 120 / 255
    found = np.abs(pixels - mixed).max(axis=2) < 6
    rows, columns = np.flatnonzero(found.sum(axis=1) > 20), np.flatnonzero(found.sum(axis=0) > 20)
    shift = (picture[0] - left, picture[1] - top)  # it may have been scrolled since
    return [
        float(columns[0]) + shift[0], float(rows[0]) + shift[1],
        float(columns[-1]) + 1 + shift[0], float(rows[-1]) + 1 + shift[1],
    ]  # fmt: skip


def test_layers_are_switched_and_names_light_up_their_boxes(open_page, url):
    page = open_page(read(url, t="known"))
    page.wait_for_selector(".turn.tool .mask")
    for name, selector in (("Boxes", "rect.box"), ("Points", ".point"), ("Masks", ".mask")):
        assert page.locator(f".turn.tool .frame {selector}").count() > 0
        page.get_by_role("button", name=name).click()
        page.wait_for_function("(s) => !document.querySelector('.turn.tool .frame ' + s)", arg=selector)
    assert "layers=none" in page.url
    page.get_by_role("button", name="Names").click()
    page.get_by_role("button", name="Boxes").click()
    page.wait_for_selector(".frame .name")
    assert page.locator(".frame .name").first.inner_text() == "one"
    page.locator(".found li").nth(1).hover()
    assert page.locator("rect.lit").count() == 1


def test_a_picture_is_enlarged_measured_and_closed(open_page, url):
    page = open_page(read(url, t="known"))
    page.locator(".turn.user .frame").click()
    page.get_by_role("button", name="200 %").click()
    assert page.locator("dialog .frame").bounding_box()["width"] == pytest.approx(2 * WIDTH, abs=1)
    page.get_by_role("button", name="Fit").click()
    box = page.locator("dialog .frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
    place = re.match(r"([\d.]+) %, ([\d.]+) % · pixel (\d+), (\d+)$", page.locator("dialog output").inner_text())
    assert [float(value) for value in place.groups()] == pytest.approx([25, 50, WIDTH / 4, HEIGHT / 2], abs=1)
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_a_picture_that_was_not_kept_is_said(open_page, place, url, tmp_path):
    one = known()
    write_trajectories([one], tmp_path / "lost" / "a.jsonl")
    for path in (tmp_path / "lost" / "images").iterdir():
        path.unlink()
    with viewed(tmp_path / "i.sqlite", tmp_path / "lost") as lost:
        page = open_page(f"{lost}#/trajectories?t=known")
        page.wait_for_selector(".frame .gone")
        assert page.get_by_text("This picture was not kept").first.is_visible()


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_show_mask_and_probability(open_page, url):
    key = row_of(url, run="executed", tool="Point")["key"]
    record = httpx.get(f"{url}api/trajectories/{key}").json()["record"]
    page = open_page(read(url, t=key, tokens="1"))
    page.wait_for_selector(".tokens")
    spoken = next(turn for turn in record["turns"] if turn["role"] == "assistant")
    strip = page.locator(".turn.assistant .tokens").first
    own = strip.locator(".own")
    assert own.count() == spoken["mask"].count("1")
    assert "".join(own.all_text_contents()).replace("⏎", "\n") == spoken["blocks"][0]["text"]
    strip.focus()
    page.keyboard.press("ArrowRight")
    reading = page.locator(".turn.assistant .token-at").first.inner_text()
    assert f"id {spoken['tokens'][1]}" in reading
    logged = float(re.search(r"log p (-?[\d.]+)", reading)[1])
    assert logged == pytest.approx(spoken["logprobs"][1], abs=0.001)
    assert "sampled, in the loss" in reading
    assert page.locator(".turn.user .tokens .own").count() == 0
    assert "× 64" in page.locator(".turn.user .tokens").inner_text()


# ---- comparison ------------------------------------------------------------------------------------------------------


def test_two_models_stand_side_by_side_on_one_question(open_page, url):
    row = row_of(url, run="executed", model="v-toolrl")
    page = open_page(read(url, run="executed", t=row["key"]))
    page.locator(".others a", has_text="sft").first.click()
    page.wait_for_selector(".columns.two .column >> nth=1")
    columns = page.locator(".column")
    assert columns.count() == 2
    assert columns.nth(0).locator(".origin").inner_text().startswith("v-toolrl")
    assert columns.nth(1).locator(".origin").inner_text().startswith("sft")
    one, two = (columns.nth(number).bounding_box() for number in range(2))
    assert one["x"] + one["width"] <= two["x"]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('.turn.current').length === 2")
    page.get_by_text("End comparison").click()
    page.wait_for_function("() => document.querySelectorAll('.column').length === 1")


def test_compare_lists_who_was_right_where(open_page, url):
    page = open_page(f"{url}#/compare")
    names = {name: f"executed|table|{name}|greedy" for name in ("sft", "v-toolrl")}
    page.select_option("[name=a]", names["sft"])
    page.select_option("[name=b]", names["v-toolrl"])
    sides = {
        f"{side}.{field}": value
        for side, model in (("left", "sft"), ("right", "v-toolrl"))
        for field, value in zip(("run", "stage", "model", "mode"), names[model].split("|"), strict=True)
    }
    expected = httpx.get(url + "api/pairs", params=sides).json()
    page.wait_for_function("() => document.querySelector('.outcomes button b').innerText === '3'")
    assert page.get_by_role("button", name=f"Only B right {expected['counts']['right']}").is_visible()
    page.get_by_role("button", name="Only B right").click()
    page.wait_for_function(
        "(n) => document.querySelectorAll('.rows li a').length === n", arg=expected["counts"]["right"]
    )
    page.locator(".rows a").first.click()
    page.wait_for_selector(".columns.two .column >> nth=1")
    answers = page.locator(".facts .answer").all_inner_texts()
    assert "✗" in answers[0]
    assert "✓" in answers[1]
    assert page.locator(".column").count() == 2


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_read_by_mouse_and_keyboard_and_lead_to_the_step(open_page, url, place):
    page = open_page(f"{url}#/curves")
    titles = page.locator(".chart figcaption b").all_inner_texts()
    assert {"Reward", "Accuracy while training", "Tool calls"} <= set(titles)
    assert any(title.startswith("Tool use") for title in titles)
    log = [json.loads(line) for line in (place / "fabricated/stages/v-toolrl/log.jsonl").read_text().splitlines()]
    plot = page.locator(".chart", has_text="mean per trajectory").locator(".plot")
    plot.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    legend = page.locator(".chart", has_text="mean per trajectory").locator(".legend").inner_text()
    assert "step 20" in legend
    shown = float(re.search(r"v-toolrl\s+(-?[\d.]+)", legend)[1])
    assert shown == pytest.approx(log[19]["reward"], abs=0.001)
    page.keyboard.press("Enter")
    page.wait_for_selector(".rows li a")
    assert "step=20" in page.url


def test_a_curve_is_a_table_too_and_one_of_zeros_is_drawn_at_0(open_page, url, place):
    page = open_page(f"{url}#/curves")
    log = [json.loads(line) for line in (place / "fabricated/stages/v-toolrl/log.jsonl").read_text().splitlines()]
    assert {line["masked"] for line in log} == {0}
    chart = page.locator(".chart", has_text="Left out of the loss")
    heights = re.findall(r"[ML][\d.]+ ([\d.]+)", chart.locator("path.thick").first.get_attribute("d"))
    assert len(heights) == len(log)
    assert len(set(heights)) == 1
    chart = page.locator(".chart", has_text="mean per trajectory")
    chart.get_by_text("As a table").click()
    page.wait_for_selector(".figures tbody tr")
    column = chart.locator("thead th").all_inner_texts().index("fabricated · v-toolrl")
    rows = [row.split("\t") for row in chart.locator("tbody tr").all_inner_texts()]
    shown = {int(row[0]): float(row[column]) for row in rows if row[column]}
    assert shown == pytest.approx({line["step"]: line["reward"] for line in log}, abs=1e-4)


# ---- export ----------------------------------------------------------------------------------------------------------


def test_an_export_opens_from_a_file_and_shows_the_same(open_page, url, tmp_path):
    page = open_page(read(url, run="executed"))
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Export").click()
    path = tmp_path / "trajectories.html"
    waiting.value.save_as(path)
    offline = open_page(path.as_uri(), offline=True)
    total = httpx.get(url + "api/trajectories", params={"run": "executed"}).json()["total"]
    assert count(offline) == total
    for field, value in (("tool", "OCR"), ("outcome", "wrong"), ("error", "bad_arguments"), ("model", "sft")):
        selection = {"run": "executed", field: value}
        expected = httpx.get(url + "api/trajectories", params=selection).json()
        offline.evaluate("(hash) => { location.hash = hash; }", f"#/trajectories?{field}={value}")
        wait_for_count(offline, expected["total"])
    offline.evaluate("location.hash = '#/trajectories?q=what+val'")
    wait_for_count(
        offline, httpx.get(url + "api/trajectories", params={"run": "executed", "q": "what val"}).json()["total"]
    )
    key = row_of(url, run="executed", tool="Point")["key"]
    offline.goto(f"{path.as_uri()}#/trajectories?t={key}&turn=6")
    offline.wait_for_selector(".turn.tool .mask")
    offline.wait_for_function(
        "() => [...document.querySelectorAll('.reader img')].every((one) => one.complete && one.naturalWidth)"
    )
    offline.locator(".others a").first.click()
    offline.wait_for_selector(".columns.two .column >> nth=1")
    offline.goto(f"{path.as_uri()}#/compare")
    offline.wait_for_selector(".rows li a")


# ---- many, growing, guarded ------------------------------------------------------------------------------------------


def write_many(path, total: int) -> None:
    chance = random.Random(0)
    texts = [trajectory("sft", f"q0-{n}", 0.5, chance).model_dump_json() for n in range(40)]
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for number in range(total):
            record = json.loads(texts[number % 40])
            file.write(json.dumps(record | {"id": f"many-{number:06d}", "rewards": {"total": number / total}}) + "\n")


def test_of_many_trajectories_only_those_that_are_seen_are_loaded(open_page, tmp_path):
    write_many(tmp_path / "many" / "a.jsonl", 6000)
    with viewed(tmp_path / "i.sqlite", tmp_path / "many") as many:
        page = open_page(many)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        wait_for_count(page, 6000)
        assert page.locator(".rows li").count() < 60
        page.locator(".rows").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
        page.wait_for_function("() => [...document.querySelectorAll('.rows li')].at(-1)?.ariaPosInSet === '6000'")
        page.wait_for_selector(".rows li:last-child a")
        assert page.locator(".rows li").count() < 60
        lists = [one for one in asked if "api/trajectories?" in one and "limit=100" in one]
        assert 1 <= len(lists) <= 3
        page.goto(f"{many}#/trajectories?t=many-003210")
        page.wait_for_selector(".rows li.current")
        assert page.locator(".rows li.current").get_attribute("aria-posinset") == "3211"


def test_a_run_is_watched_while_it_is_read_and_while_it_grows(open_page, tmp_path):
    path = tmp_path / "many" / "a.jsonl"
    write_many(path, 3000)
    with viewed(tmp_path / "i.sqlite", tmp_path / "many", read=False) as growing:
        page = open_page(growing)
        wait_for_count(page, 3000)
        page.locator(".rows a").nth(2).click()
        with path.open("a") as file:
            file.write(json.dumps(json.loads(known().model_dump_json()) | {"id": "new"}) + "\n")
        deadline = time.monotonic() + 120
        while count(page) != 3001 and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        assert count(page) == 3001
        assert page.locator(".reader h2").is_visible()


def test_a_guarded_page_opens_by_its_address(open_page, place, tmp_path):
    with viewed(tmp_path / "i.sqlite", place / "known", token="s3cret-token") as guarded:
        page = open_page(f"{guarded}?token=s3cret-token#/trajectories?t=known")
        page.wait_for_selector(".turn.tool .mask")
        assert "token" not in page.url
        assert "t=known" in page.url


def test_what_a_tool_read_never_runs(open_page, url):
    row = row_of(url, q="window hacked")
    page = open_page(read(url, t=row["key"], tokens="1"))
    page.wait_for_selector(".turn")
    assert "<script>window.hacked = true</script>" in page.locator(".reader").inner_text()
    assert page.evaluate("window.hacked") is None


# ---- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [WIDE, PHONE, 820, 1000], ids=["wide", "phone", "820", "1000"])
def test_nothing_scrolls_sideways(open_page, url, width):
    key = row_of(url, run="executed", tool="Point")["key"]
    other = row_of(url, run="executed", model="sft")["key"]
    page = open_page(url, width)
    for fragment in (
        "#/trajectories",
        f"#/trajectories?t={key}&tokens=1",
        f"#/trajectories?t={key}&vs={other}",
        "#/compare",
        "#/curves",
    ):
        page.evaluate("(hash) => { location.hash = hash; }", fragment)
        page.wait_for_timeout(250)
        wide = page.evaluate("""
          () => [document.documentElement, ...document.querySelectorAll("main, .reader, .side, .page, .filters, .bar")]
            .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.className || one.tagName)
        """)
        assert wide == [], fragment


def test_on_a_phone_a_trajectory_takes_the_screen_and_gives_it_back(open_page, url):
    page = open_page(read(url, run="executed"), PHONE)
    assert page.locator(".rows").is_visible()
    page.locator(".rows a").nth(1).click()
    page.wait_for_selector(".reader h2")
    assert not page.locator(".rows").is_visible()
    page.get_by_role("link", name="List", exact=True).click()
    page.wait_for_selector(".rows", state="visible")
    assert not page.locator(".reader").is_visible()
    page.locator(".fold summary").click()
    page.select_option("[name=model]", "sft")
    wait_for_count(page, 3)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast(open_page, url, dark):
    key = row_of(url, run="executed", error="bad_arguments")["key"]
    for fragment in (f"#/trajectories?t={key}&tokens=1", "#/compare", "#/curves"):
        page = open_page(url + fragment, dark=dark)
        page.wait_for_timeout(400)
        assert page.evaluate(CONTRAST) == []


def test_the_reader_chooses_light_or_dark(open_page, url):
    page = open_page(url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours").click()
    page.get_by_role("button", name="Colours").click()
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.wait_for_selector(".rows li a")
    assert page.evaluate(ground) == dark
