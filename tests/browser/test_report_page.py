"""The report as a reader meets it: opened from a file, in a real browser."""

import json
import re

import pytest

from tests.support.browser.contrast import CONTRAST

pytestmark = pytest.mark.browser


@pytest.fixture(params=[1400, 360], ids=["wide", "phone"])
def width(request):
    return request.param


@pytest.fixture
def open_page(chromium, report):
    """Opens the report and, when the test is over, asserts that the console stayed silent and nothing was requested."""
    contexts, troubles = [], []

    def open_at(width: int = 1400, fragment: str = "", dark: bool = False):
        context = chromium.new_context(
            viewport={"width": width, "height": 850}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url),
        )
        page.goto(report.as_uri() + fragment)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture(scope="module")
def data(report):
    text = report.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def with_tools(data):
    return next(one for one in data["trajectories"] if len(one["images"]) == 2 and one["rewards"])


def sideways(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_a_trajectory_is_shown_with_all_its_pictures(open_page, data, width):
    one = with_tools(data)
    page = open_page(width, f"#{one['id']}")
    assert page.locator("#detail h3").inner_text() == one["question"]
    pictures = page.locator("#detail img")
    assert pictures.count() >= len(one["images"])
    page.wait_for_function("[...document.querySelectorAll('#detail img')].every((one) => one.complete)")
    assert all(natural > 0 for natural in pictures.evaluate_all("(all) => all.map((one) => one.naturalWidth)"))
    text = page.locator("#detail").inner_text()
    assert one["reference"] in text
    assert "ZoominSubplot" in text
    assert "OCR" in text
    assert "Reward, accuracy" in text


def test_nothing_scrolls_sideways(open_page, data, width):
    page = open_page(width)
    assert sideways(page) == 0
    page = open_page(width, f"#{with_tools(data)['id']}")
    page.get_by_role("button", name="Tokens", exact=True).click()
    assert page.locator("#detail .tokens").first.is_visible()
    assert sideways(page) == 0


def test_boxes_lie_where_the_tool_said(open_page, data):
    one = with_tools(data)
    page = open_page(1400, f"#{one['id']}")
    result = next(
        block
        for turn in one["turns"]
        for block in turn["blocks"]
        if block["type"] == "tool_result" and block["name"] == "OCR" and block["overlay"]["boxes"]
    )
    figure = page.locator("#detail .result", has=page.locator("header b", has_text="OCR")).last
    image = figure.locator("img").first.bounding_box()
    drawn = figure.locator("rect.box").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map((r) => [r.left, r.top, r.right, r.bottom])"
    )
    assert len(drawn) == len(result["overlay"]["boxes"])
    for (x1, y1, x2, y2, _), found in zip(result["overlay"]["boxes"], drawn, strict=True):
        expected = [
            image["x"] + x1 / 100 * image["width"],
            image["y"] + y1 / 100 * image["height"],
            image["x"] + x2 / 100 * image["width"],
            image["y"] + y2 / 100 * image["height"],
        ]
        assert found == pytest.approx(expected, abs=1.5)


def test_filters_narrow_the_list_and_clear_widens_it(open_page, data):
    page = open_page()
    rows = page.locator("#list li")
    everything = len(data["trajectories"])
    assert rows.count() == everything
    page.select_option("[name=outcome]", "wrong")
    wrong = sum(one["correct"] is False for one in data["trajectories"])
    assert rows.count() == wrong
    page.select_option("[name=kind]", "value")
    page.select_option("[name=tool]", "Point")
    assert 0 < rows.count() < wrong
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function(f"document.querySelectorAll('#list li').length === {everything}")
    page.select_option("[name=error]", "any")
    assert 0 < rows.count() < everything
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Search").fill("value of yak")
    assert 0 < rows.count() < everything
    assert all("Yak" in text for text in rows.locator(".question").all_text_contents())
    page.get_by_label("Search").fill("no such words anywhere")
    assert page.locator("#count").inner_text() == f"0 of {everything} match"


def test_a_stage_offers_its_steps(open_page):
    page = open_page()
    page.select_option("[name=source]", label="V-ToolRL · while training (48)")
    assert page.locator("[name=step] option").all_inner_texts() == ["All", "Step 10", "Step 20", "Step 30", "Step 40"]
    page.select_option("[name=step]", "20")
    assert page.locator("#list li").count() == 12
    page.select_option("[name=source]", label="V-ToolRL · greedy (24)")
    assert page.locator("[name=step]").is_disabled()
    assert page.locator("#list li").count() == 24


def test_the_keyboard_walks_through_the_list(open_page):
    page = open_page()
    page.keyboard.press("j")
    first = page.url
    page.keyboard.press("j")
    second = page.url
    assert first != second
    page.keyboard.press("k")
    assert page.url == first
    assert page.locator("#list a[aria-current]").count() == 1
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H3"
    page.keyboard.press("t")
    assert page.locator("#detail .tokens span.own").count() > 0
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.get_by_label("Search").input_value() == "jk"


def test_every_control_is_reached_and_named(open_page):
    page = open_page()
    for role in ("combobox", "button", "searchbox", "link"):
        for element in page.get_by_role(role).all()[:40]:
            assert element.evaluate(
                "(one) => one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label')"
            )


def test_links_lead_to_other_models_on_the_same_question(open_page, data):
    one = with_tools(data)
    page = open_page(1400, f"#{one['id']}")
    page.locator(".others a", has_text="Base (zero-shot)").first.click()
    page.wait_for_function(f"!location.hash.includes({json.dumps(one['id'])})")
    assert page.locator("#detail h3").inner_text() == one["question"]
    assert "Base (zero-shot)" in page.locator("#detail .top").inner_text()
    page.go_back()
    page.wait_for_function("document.querySelector('#detail .top').innerText.includes('V-ToolRL')")


def test_on_a_phone_a_trajectory_takes_the_screen_and_gives_it_back(open_page):
    page = open_page(360)
    assert not page.locator("#detail").is_visible()
    page.locator("#list a").nth(3).click()
    assert page.locator("#detail").is_visible()
    assert not page.locator("#list").is_visible()
    page.get_by_role("button", name="Back to the list").click()
    assert page.locator("#list").is_visible()
    page.locator("#list a").nth(5).click()
    page.go_back()
    assert page.locator("#list").is_visible()


def test_what_a_picture_says_never_runs(open_page, data):
    hostile = next(one for one in data["trajectories"] if "window.hacked" in json.dumps(one))
    page = open_page(1400, f"#{hostile['id']}")
    page.get_by_role("button", name="Tokens", exact=True).click()
    text = page.locator("#detail").inner_text()
    assert "<script>window.hacked = true</script>" in text
    assert page.evaluate("window.hacked") is None
    assert page.locator("#detail script, #detail img[src='x']").count() == 0


def test_a_picture_is_enlarged_and_closed_by_escape(open_page, data):
    page = open_page(1400, f"#{with_tools(data)['id']}")
    page.locator("#detail .frame").first.click()
    assert page.locator("#lightbox img").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#lightbox").is_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast(open_page, data, dark):
    page = open_page(1400, f"#{with_tools(data)['id']}", dark)
    faint = page.evaluate(CONTRAST)
    assert not faint


def test_the_results_can_be_read_without_javascript(chromium, report):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.get_by_role("row", name=re.compile("V-ToolRL")).first.is_visible()
    context.close()
