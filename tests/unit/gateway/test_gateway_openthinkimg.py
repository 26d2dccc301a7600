"""OpenThinkIMG's controller and worker protocol, through a client that does what the original's does."""

import ast
import base64
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image as Pillow
from PIL import ImageDraw

from tests.support.gateway.gateways import Gateway, run_gateway
from tests.support.serving.sample_servers import spec
from thinkimg.gateway.openthinkimg_calls import arguments_of, reply
from thinkimg.image import Image
from thinkimg.serving import Supervisor
from thinkimg.tools.tool import ToolResult, ToolSchema

ORIGINAL_TOOLS = (
    *("ZoomInSubfigure", "DrawHorizontalLineByY", "OCR", "DrawVerticalLineByX", "SegmentRegionAroundPoint", "Point"),
    *("crop", "line", "drawline"),
)
THRESHOLDS = {"box_threshold": 0.3, "text_threshold": 0.25}
"""Its evaluation loop sends them with every call."""


class OriginalClient:
    """The requests of OpenThinkIMG's `ToolManager`, in its order: the workers are refreshed, listed, and each one's
    address is asked for once and kept; a call posts to `ADDRESS/worker_generate`."""

    def __init__(self, controller: str) -> None:
        refreshed = requests.post(controller + "/refresh_all_workers")
        assert refreshed.status_code == 200, refreshed.text
        self.tools: list[str] = requests.post(controller + "/list_models").json()["models"]
        self.addresses: dict[str, str] = {}
        for name in self.tools:
            address = requests.post(controller + "/get_worker_address", json={"model": name}).json()["address"]
            assert address != ""
            self.addresses[name] = address

    def call(self, name: str, **params: Any) -> dict[str, Any]:
        agent = {"User-Agent": "LLaVA-Plus Client"}
        answer = requests.post(self.addresses[name] + "/worker_generate", headers=agent, json={**THRESHOLDS, **params})
        return dict(answer.json())


def chart() -> Pillow.Image:
    """Two panels with a title and three bars each."""
    picture = Pillow.new("RGB", (1000, 500), "white")
    pen = ImageDraw.Draw(picture)
    for left, title, color in ((40, "Sales 2024", "#1f77b4"), (540, "Costs 2025", "#d62728")):
        pen.rectangle((left, 70, left + 400, 460), outline="black", width=2)
        pen.text((left + 120, 20), title, fill="black", font_size=32)
        for number, height in enumerate((120, 260, 180)):
            x = left + 50 + 120 * number
            pen.rectangle((x, 458 - height, x + 70, 458), fill=color)
    return picture


def base64_of(picture: Pillow.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def edited(answer: dict[str, Any]) -> Pillow.Image:
    """As its loops read it: a string, base64 of an image file."""
    assert answer["error_code"] == 0, answer["text"]
    return Pillow.open(io.BytesIO(base64.b64decode(answer["edited_image"])))


CHART = base64_of(chart())


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    names = ("OCR", "Point", "ZoominSubplot", "SegmentRegionAroundPoint", "Crop")
    tools = spec("original", *names, "DrawHorizontalLineByY", "DrawVerticalLineByX", "DrawLine")
    with (
        Supervisor([tools], tmp_path_factory.mktemp("original"), ready_seconds=240) as servers,
        run_gateway(tmp_path_factory.mktemp("controller"), servers=[{"url": servers.endpoints[0]}]) as gateway,
    ):
        yield gateway.url


@pytest.fixture(scope="module")
def client(controller: str) -> OriginalClient:
    return OriginalClient(controller)


def test_the_tools_have_the_names_that_the_original_looks_for(client: OriginalClient, controller: str) -> None:
    assert sorted(client.tools) == sorted(ORIGINAL_TOOLS)
    assert len(set(client.addresses.values())) == len(client.tools), "a worker call carries no name"
    assert sorted(OriginalClient(f"{controller}/openthinkimg").tools) == sorted(ORIGINAL_TOOLS)


def test_a_tool_that_does_not_exist_has_no_address(controller: str) -> None:
    answer = requests.post(f"{controller}/get_worker_address", json={"model": "Nothing"})
    assert (answer.status_code, answer.json()) == (200, {"address": ""})


def test_a_point_leads_to_a_line_through_it(client: OriginalClient) -> None:
    point = client.call("Point", image=CHART, param="Sales 2024")
    assert point["error_code"] == 0
    assert point["text"].startswith("<point x=")
    picture = edited(client.call("DrawHorizontalLineByY", image=CHART, param=point["text"]))
    assert (picture.format, picture.size) == ("JPEG", (1000, 500))
    red = [
        y
        for y in range(500)
        if all(abs(a - b) < 40 for a, b in zip(picture.getpixel((5, y)), (230, 25, 75), strict=True))  # type: ignore[arg-type]
    ]
    assert red
    assert all(20 <= y <= 60 for y in red), "at the height of the title"


@pytest.mark.parametrize(
    "param", ["x=21.5", 'x="21.5" y="28.5"', "x = 21.5", '<point x="21.5" y="5" alt="y=5">b</point>']
)
def test_the_originals_notations_of_coordinates(client: OriginalClient, param: str) -> None:
    picture = edited(client.call("DrawVerticalLineByX", image=CHART, param=param))
    pixel = picture.convert("RGB").getpixel((215, 5))
    assert all(abs(a - b) < 40 for a, b in zip(pixel, (230, 25, 75), strict=True))  # type: ignore[arg-type]


def test_ocr_answers_with_a_list_as_python_writes_it(client: OriginalClient) -> None:
    answer = client.call("OCR", image=CHART, param="img_1")
    strings = ast.literal_eval(answer["text"])
    assert {"Sales 2024", "Costs 2025"} <= set(strings)
    assert "edited_image" not in answer


def test_a_subplot_comes_back_as_one_picture(client: OriginalClient) -> None:
    picture = edited(client.call("ZoomInSubfigure", image=CHART, param="Costs 2025"))
    assert picture.width / picture.height < 1.4, "one panel of two"


def test_a_region_is_segmented_around_a_point(client: OriginalClient) -> None:
    picture = edited(client.call("SegmentRegionAroundPoint", image=CHART, param='x="12.5" y="80"'))
    assert picture.size == (1000, 500)


def test_crop_takes_pixels(client: OriginalClient) -> None:
    assert edited(client.call("crop", image=CHART, param="[500, 0, 1000, 250]")).size == (500, 250)
    small = client.call("crop", image=CHART, param="[0, 0, 8, 4]")
    assert edited(small).size == (8, 4)
    assert "Note" not in small["text"], "what is less than a hundredth of a side is no share of 1 for this caller"


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("[0.1, 0.2, 0.5, 0.6]", "looks like shares of 1"),
        ("[0, 0, 1200, 250]", "of this 1000x500 picture"),
        ("[]", "box"),
    ],
)
def test_crop_says_what_is_no_pixels_of_the_picture(client: OriginalClient, param: str, said: str) -> None:
    answer = client.call("crop", image=CHART, param=param)
    assert answer["error_code"] == 40302
    assert said in answer["text"]


@pytest.mark.parametrize("name", ["line", "drawline"])
@pytest.mark.parametrize(
    ("corners", "ends", "off"),
    [
        ("1, 3", ((200, 100), (800, 400)), ((800, 100), (200, 400))),
        ("2,4", ((800, 100), (200, 400)), ((200, 100), (800, 400))),
        ("4, 3", ((200, 400), (800, 400)), ((200, 100), (800, 100))),
    ],
)
def test_a_line_goes_from_corner_to_corner_of_a_box_in_pixels(
    client: OriginalClient, name: str, corners: str, ends: Any, off: Any
) -> None:
    white = base64_of(Pillow.new("RGB", (1000, 500), "white"))
    picture = edited(client.call(name, image=white, param=f"[200, 100, 800, 400], {corners}"))
    assert picture.size == (1000, 500)
    middle = tuple(sum(place) // 2 for place in zip(*ends, strict=True))
    inside = [(ends[0][0] + (ends[1][0] - ends[0][0]) // 50, ends[0][1] + (ends[1][1] - ends[0][1]) // 50)]
    for place in (middle, *inside):
        red, green, _ = picture.getpixel(place)
        assert red - green > 60, place
    for place in off:
        assert min(picture.getpixel(place)) > 230, place


def test_a_line_takes_our_own_notation_and_says_what_is_wrong(client: OriginalClient) -> None:
    own = client.call("line", image=CHART, param='x1="10" y1="10" x2="90" y2="50"')
    assert (own["error_code"], own["text"]) == (0, "Drew a line from [10, 10] to [90, 50].")
    for param, said in (
        ("[200, 100, 800, 400]", "two of its corners"),
        ("[200, 100, 800, 400], 1, 5", "4 bottom left"),
        ("[200, 100, 800], 1, 3", "two of its corners"),
        ("[200, 100, 1200, 400], 1, 3", "of this 1000x500 picture"),
        ("[200, 100, 800, 400], 2, 2", "the same place twice"),
    ):
        answer = client.call("drawline", image=CHART, param=param)
        assert answer["error_code"] == 40302
        assert said in answer["text"]
    assert "points" in client.call("line", image=CHART)["text"]


def test_what_the_model_did_wrong_is_an_answer_with_an_error_code(client: OriginalClient) -> None:
    for name, params, said in (
        ("DrawHorizontalLineByY", {"image": CHART, "param": "y=900"}, "above 100"),
        ("DrawHorizontalLineByY", {"image": CHART, "param": "at the top"}, "y"),
        ("DrawHorizontalLineByY", {"image": CHART}, "missing"),
        ("Point", {"image": CHART, "param": "a zebra"}, "Nothing matches"),
    ):
        answer = client.call(name, **params)
        assert answer["error_code"] == 40302
        assert answer["edited_image"] is None
        assert said in answer["text"]


@pytest.mark.parametrize("image", [None, "", 7, "/etc/passwd", "http://127.0.0.1:1/x.png", "file:///etc/passwd", "%%%"])
def test_only_base64_is_a_picture(client: OriginalClient, image: Any) -> None:
    answer = client.call("OCR", image=image, param="")
    assert answer["error_code"] != 0
    assert "root:" not in str(answer)


def test_nobody_may_register_a_worker(controller: str) -> None:
    worker = {"worker_name": "http://evil.example", "check_heart_beat": True, "worker_status": None}
    answer = requests.post(f"{controller}/register_worker", json=worker)
    assert (answer.status_code, answer.json()["error_code"]) == (403, 40103)
    beat = {"worker_name": "http://evil.example", "queue_length": 0}
    assert requests.post(f"{controller}/receive_heart_beat", json=beat).json() == {"exist": False}
    assert "evil" not in str(requests.post(f"{controller}/list_models").json())


def test_a_worker_tells_its_name_its_status_and_its_schema(client: OriginalClient) -> None:
    address = client.addresses["Point"]
    assert requests.post(f"{address}/worker_get_status").json()["model_names"] == ["Point"]
    assert requests.post(f"{address}/model_details").json() is None
    instruction = requests.post(f"{address}/tool_instruction").json()["tool_instruction"]
    assert instruction["function"]["name"] == "Point"
    streamed = requests.post(f"{address}/worker_generate_stream", json={"image": CHART, "param": "Sales 2024"})
    assert streamed.content.endswith(b"\0")


# ---- with keys, and under load ---------------------------------------------------------------------------------------


def test_a_key_is_the_password_of_the_controllers_address(keyed: tuple[Gateway, str]) -> None:
    gateway, key = keyed
    assert requests.post(f"{gateway.url}/list_models").json()["error_code"] == 40102
    place = gateway.url.removeprefix("http://")
    client = OriginalClient(f"http://me:{key}@{place}")
    assert edited(client.call("DrawHorizontalLineByY", image=CHART, param="y=50")).size == (1000, 500)
    assert key not in gateway.log


@pytest.mark.slow
def test_refreshing_waits_for_nobody_and_drops_nobody(keyed: tuple[Gateway, str]) -> None:
    """The original's controller asks every worker, and forgets those that are busy for more than five seconds."""
    gateway, key = keyed
    controller = f"http://me:{key}@{gateway.url.removeprefix('http://')}"
    client = OriginalClient(controller)
    busy = [
        threading.Thread(target=client.call, args=("Sleep",), kwargs={"image": CHART, "seconds": 8}) for _ in range(10)
    ]  # more than its server has threads
    for thread in busy:
        thread.start()
    time.sleep(0.5)
    again = OriginalClient(controller)
    assert again.tools == client.tools
    assert all(thread.is_alive() for thread in busy), "it waited for them"
    for thread in busy:
        thread.join()


# ---- tools that own weights: what goes in and comes out --------------------------------------------------------------


def schema(name: str, *properties: str) -> ToolSchema:
    return ToolSchema(
        name=name,
        version="1",
        description="",
        parameters={"type": "object", "properties": {name: {} for name in properties}},
    )


PICTURE = Image.from_pixels(Pillow.new("RGB", (200, 100)))


def test_grounding_dino_is_asked_by_param_or_caption_and_answers_with_detections() -> None:
    dino = schema("GroundingDINO", "image", "query", "box_threshold", "text_threshold")
    for name in ("param", "caption"):
        assert arguments_of(dino, {name: "a bar", **THRESHOLDS}, PICTURE) == {"query": "a bar", **THRESHOLDS}
    found = ToolResult("", {"labels": ["a bar"], "boxes": [[10.0, 20.04, 30.0, 45.6]], "scores": [0.876]})
    text = reply(dino, found, PICTURE)["text"]
    assert text["status"] == "success"
    box = {"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.46}
    assert text["detections"] == [{"label": "a bar", "confidence": 0.88, "normalized_bbox": box}]


def test_sam_takes_shares_of_width_and_height_and_answers_with_run_lengths() -> None:
    sam = schema("SAM", "image", "boxes", "points")
    assert arguments_of(sam, {"boxes": [[0.1, 0.2, 0.5, 1]], "point_labels": [1]}, PICTURE) == {
        "boxes": [[10.0, 20.0, 50.0, 100]]
    }
    rle = {"size": [100, 200], "counts": "abc"}
    answer = reply(sam, ToolResult("", {"masks": [rle, rle], "boxes": [[10, 20, 50, 100], None]}), PICTURE)
    assert (answer["masks_rle"], answer["boxes"]) == ([rle, rle], [[0.1, 0.2, 0.5, 1.0], None])
