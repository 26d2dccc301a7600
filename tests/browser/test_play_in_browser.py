"""`/play` of a gateway as a person meets it: real tools, a real gateway, a real browser; a model that says what the
test wrote down."""

from contextlib import ExitStack
from urllib.parse import quote

import pytest

from tests.support.gateway.gateways import run_gateway
from tests.support.models.endpoint import completion, serve
from tests.support.serving.sample_servers import spec
from thinkimg.gateway.keys import add_key
from thinkimg.serving import Supervisor
from thinkimg.viewer.export import example_picture

pytestmark = pytest.mark.browser

TOOLS = ("Crop", "DrawVerticalLineByX", "SegmentRegionAroundPoint")
CALL = '<tool_call>\n{"name": "Crop", "arguments": {"image": "img_1", "box": [0, 0, 50, 50]}}\n</tool_call>'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Its address and a key."""
    folder = tmp_path_factory.mktemp("play")
    key = add_key(folder / "keys.json", "me")
    said = (f"I look at the <b>left</b> half; 50\\% of it.\n{CALL}", "The North bar.")
    with ExitStack() as stack:
        model = stack.enter_context(serve(*map(completion, said)))
        servers = stack.enter_context(Supervisor([spec("tools", *TOOLS)], folder, ready_seconds=240))
        settings = {
            "servers": [{"url": url} for url in servers.endpoints],
            "models": [{"name": "thinker", "base_url": model.url, "format": "hermes"}],
            "keys_file": str(folder / "keys.json"),
        }
        yield stack.enter_context(run_gateway(folder / "gateway", **settings)).url, key


@pytest.fixture
def play(open_page, gateway):
    """The page with a key, and the example's picture in it."""

    def opened(**more):
        url, key = gateway
        page = open_page(f"{url}/play#key={key}", **more)
        page.get_by_role("button", name="Take the example").click()
        page.wait_for_selector(".canvas img")
        return page

    return opened


def call_by_hand(page, tool):
    page.get_by_role("button", name="Call a tool").click()
    page.locator("select[name=tool]").select_option(tool)


def drag(page, left, top, right, bottom):
    """Over the picture, in percent of it."""
    canvas = page.locator(".canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = [
        (box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100)
        for x, y in ((left, top), (right, bottom))
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()


def test_a_box_is_drawn_and_the_crop_comes_back(play):
    page = play()
    call_by_hand(page, "Crop")
    drag(page, 10, 20, 60, 90)
    assert page.input_value("input[name=box]") == "[10,20,60,90]"
    page.get_by_role("button", name="Run Crop").click()
    page.wait_for_selector(".turn.tool .picture")
    assert "500x490 pixels" in page.locator(".turn.tool").inner_text()
    assert page.locator(".thumbs li").count() == 2
    assert page.locator(".turn.tool figcaption").last.inner_text().startswith("img_2")


def test_what_a_tool_made_is_looked_at_again(play):
    page = play()
    call_by_hand(page, "Crop")
    drag(page, 0, 0, 50, 50)
    page.get_by_role("button", name="Run Crop").click()
    page.get_by_role("button", name="img_2", exact=True).click()
    assert page.input_value("input[name=box]") == "", "a place on another picture means nothing on this one"
    drag(page, 0, 0, 50, 50)
    page.get_by_role("button", name="Run Crop").click()
    page.wait_for_selector(".thumbs li:nth-child(3)")
    assert "250x175 pixels" in page.locator(".turn.tool").last.inner_text()


def test_a_click_sets_a_line_or_adds_a_point(play):
    page = play()
    call_by_hand(page, "DrawVerticalLineByX")
    drag(page, 25, 50, 25, 50)
    assert page.input_value("input[name=x]") == "25"
    page.locator("select[name=tool]").select_option("SegmentRegionAroundPoint")
    drag(page, 12, 30, 12, 30)
    drag(page, 30, 40, 30, 40)
    assert page.input_value("input[name=points]") == "[[12,30],[30,40]]"
    page.get_by_role("button", name="Run SegmentRegionAroundPoint").click()
    page.wait_for_selector(".turn.tool .mask")


def test_what_a_tool_refuses_is_said_in_its_words(chromium, gateway):
    url, key = gateway
    page = chromium.new_page()  # Chromium writes refused requests to the console
    page.goto(f"{url}/play#key={key}")
    page.get_by_role("button", name="Take the example").click()
    page.wait_for_selector(".canvas img")
    call_by_hand(page, "Crop")
    page.fill("input[name=box]", "[60, 60, 10, 10]")
    page.get_by_role("button", name="Run Crop").click()
    page.wait_for_selector(".turn.tool .badge.bad")
    assert "box" in page.locator(".turn.tool .output").inner_text()
    page.fill("input[name=box]", "left half")
    page.get_by_role("button", name="Run Crop").click()
    assert "box is not JSON" in page.get_by_role("alert").inner_text()
    page.close()


def test_a_model_is_asked_and_each_turn_is_shown(play):
    page = play()
    page.fill("textarea[name=question]", "Which bar is tallest?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector(".answered")
    assert "The North bar." in page.locator(".answered").inner_text()
    shown = page.locator(".course").inner_text()
    assert "Which bar is tallest?" in shown
    assert "I look at the <b>left</b> half; 50\\% of it." in shown
    assert page.locator(".turn.tool figcaption").last.inner_text().startswith("img_2")


def test_the_description_of_the_api_needs_nothing_from_elsewhere(open_page, gateway):
    url, key = gateway
    page = open_page(f"{url}/docs#key={key}")
    page.get_by_text("/v1/tools/Crop", exact=True).click()
    shown = page.locator("details[open]").inner_text()
    assert "The part to keep" in shown
    assert "list of number, 0 to 100" in shown
    assert f"curl -s {url}/v1/tools/Crop" in shown
    assert {"Tools", "Models", "MCP"} <= set(page.locator("h2").all_inner_texts())


def test_without_a_key_the_page_asks_for_one(chromium, gateway):
    url, key = gateway
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{url}/play")
    page.fill("input[type=password]", key)
    page.get_by_role("button", name="Enter").click()
    page.wait_for_selector("text=Take the example")
    assert key not in page.url
    page.reload()
    page.wait_for_selector("text=Take the example")
    context.close()


def test_the_key_leaves_the_address_at_once(play, gateway):
    page = play()
    assert page.url == gateway[0] + "/play"
    assert quote(gateway[1]) not in page.content()


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_nothing_is_wider_than_the_window(play, width, dark):
    page = play(width=width, dark=dark)
    call_by_hand(page, "Crop")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_picture_may_be_pasted_and_dropped(open_page, gateway):
    url, key = gateway
    page = open_page(f"{url}/play#key={key}")
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": example_picture()})
    page.wait_for_selector(".canvas img")
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    assert "cannot show that file" in page.get_by_role("alert").inner_text()
