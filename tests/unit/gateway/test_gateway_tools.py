"""The tools API of a gateway process, as `ToolClient` and other programs see it."""

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from tests.support.gateway.gateways import Gateway
from thinkimg import wire
from thinkimg.client.tool_client import ToolClient
from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image

Keyed = tuple[Gateway, str]
pytestmark = pytest.mark.anyio


def picture(width: int = 60, height: int = 40, color: str = "white") -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), color))


def noise(width: int, height: int) -> Image:
    return Image.from_pixels(Pillow.effect_noise((width, height), 80).convert("RGB"))


def post(keyed: Keyed, path: str, document: Any, **headers: str) -> httpx.Response:
    gateway, key = keyed
    given = {"authorization": f"Bearer {key}", **headers}
    return httpx.post(gateway.url + path, json=document, headers=given, timeout=60)


def client_of(keyed: Keyed, **settings: Any) -> ToolClient:
    gateway, key = keyed
    return ToolClient([gateway.url], {gateway.url: key}, **settings)


async def test_the_tool_client_uses_a_gateway_like_a_server_with_all_tools(keyed: Keyed) -> None:
    image = picture()
    async with client_of(keyed) as client:
        assert {"Echo", "Crop", "DrawHorizontalLineByY"} <= set(client.schemas)
        cropped = (await client.call("crop", {"image": "img_1", "box": [0, 0, 50, 100]}, {"img_1": image})).result
        assert (cropped.images[0].width, cropped.images[0].height) == (30, 40)
        drawn = await client.call("DrawVerticalLineByX", {"image": "img_2", "x": 50}, {"img_2": cropped.images[0]})
        assert drawn.result.images[0].pixels().getpixel((15, 20)) == (230, 25, 75)


@pytest.mark.parametrize(("query", "drawn"), [("", False), ("?overlay=true", True), ("?overlay=false", False)])
async def test_what_is_to_be_drawn_comes_when_asked_for(keyed: Keyed, query: str, drawn: bool) -> None:
    data = base64.b64encode(picture().data).decode()
    document = {"arguments": {"image": "i", "box": [0, 0, 50, 100]}, "images": {"i": data}}
    answer = post(keyed, f"/v1/tools/Crop{query}", document).json()
    assert answer.get("overlay") == ({"boxes": [[0, 0, 50, 100, ""]], "points": [], "masks": []} if drawn else None)


async def test_who_opens_the_gateway_in_a_browser_reads_what_it_is(keyed: Keyed) -> None:
    assert "thinkimg gateway keys add" in httpx.get(keyed[0].url).text
    for path in ("/play", "/docs"):
        page = httpx.get(keyed[0].url + path)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "http" not in page.text, "nothing comes from other machines"


async def test_replicas_behind_a_gateway_share_the_work(keyed: Keyed, tool_urls: list[str]) -> None:
    async def calls(url: str) -> float:
        text = httpx.get(f"{url}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith('thinkimg_tool_calls_total{tool="Crop"}')]
        return sum(float(line.split()[1]) for line in lines)

    before = [await calls(url) for url in tool_urls]
    async with client_of(keyed) as client:
        boxes = [[0, 0, 10 + number, 100] for number in range(24)]
        image = picture()
        await asyncio.gather(*(client.call("Crop", {"image": "i", "box": box}, {"i": image}) for box in boxes))
    made = [await calls(url) - earlier for url, earlier in zip(tool_urls, before, strict=True)]
    assert sum(made) == 24
    assert min(made) >= 4


async def test_a_large_picture_travels_to_the_gateway_once_and_by_hash_from_then_on(keyed: Keyed) -> None:
    gateway, _ = keyed
    image = noise(500, 400)
    assert len(image.data) > 100_000
    async with client_of(keyed) as client:
        for x in (10, 20, 30):
            await client.call("DrawVerticalLineByX", {"image": "img_1", "x": x}, {"img_1": image})
    assert gateway.log.count(f'"path": "/v1/images/{image.sha256}"') == 2  # is it there?, and the bytes


def test_json_for_people(keyed: Keyed) -> None:
    image = picture()
    images = {"img_1": {"sha256": image.sha256, "data": base64.b64encode(image.data).decode()}}
    answer = post(keyed, "/v1/tools/Crop", {"arguments": {"image": "img_1", "box": [0, 0, 50, 50]}, "images": images})
    assert answer.status_code == 200
    made = Image.from_bytes(base64.b64decode(answer.json()["images"][0]["data"]))
    assert (made.width, made.height) == (30, 20)
    again = {"img_1": {"sha256": made.sha256}}  # what a tool made is held, too
    answer = post(keyed, "/v1/tools/size", {"arguments": {"image": "img_1"}, "images": again})
    assert answer.json()["text"] == "30x20"


def test_a_batch_has_a_result_or_a_problem_for_each_call(keyed: Keyed) -> None:
    calls = [
        {"tool": "Echo", "arguments": {"text": "a"}},
        {"tool": "Nothing", "arguments": {}},
        {"tool": "Echo", "arguments": {"text": 7}},
        {"tool": "Fail", "arguments": {"how": "model"}},
    ]
    results = post(keyed, "/v1/batch", {"calls": calls}).json()["results"]
    assert results[0]["result"]["text"] == "a"
    assert [result["problem"]["kind"] for result in results[1:]] == ["unknown_tool", "bad_arguments", "refused"]


def test_a_picture_that_is_not_held_is_asked_for(keyed: Keyed) -> None:
    missing = {"img_1": {"sha256": "0" * 64}}
    answer = post(keyed, "/v1/tools/size", {"arguments": {"image": "img_1"}, "images": missing})
    assert (answer.status_code, answer.json()["kind"]) == (409, wire.MISSING_IMAGES)
    assert answer.json()["sha256"] == ["0" * 64]


@pytest.mark.parametrize(
    ("path", "document", "status", "kind"),
    [
        ("/v1/tools/Nothing", {"arguments": {}}, 404, "unknown_tool"),
        ("/v1/tools/Echo", {"arguments": {"txt": "a"}}, 422, "bad_arguments"),
        ("/v1/tools/Echo", {"argument": {}}, 422, "malformed_request"),
        ("/v1/tools/Echo", [], 422, "malformed_request"),
        ("/v1/batch", {"calls": [{}] * 65}, 422, "malformed_request"),
        ("/v1/nothing", {}, 404, "not_found"),
    ],
)
def test_refusals_are_problem_documents(keyed: Keyed, path: str, document: Any, status: int, kind: str) -> None:
    answer = post(keyed, path, document)
    assert (answer.status_code, answer.json()["kind"]) == (status, kind)
    assert answer.headers["content-type"] == wire.PROBLEM
    assert answer.json()["type"].startswith(wire.PROBLEM_ROOT)


@pytest.mark.parametrize("deadline", ["soon", "-1", "nan"])
def test_a_deadline_that_is_none(keyed: Keyed, deadline: str) -> None:
    answer = post(keyed, "/v1/tools/Echo", {"arguments": {"text": "a"}}, **{wire.TIMEOUT_HEADER: deadline})
    assert (answer.status_code, answer.json()["kind"]) == (422, "malformed_request")


def test_the_callers_deadline_is_kept(keyed: Keyed) -> None:
    started = time.monotonic()
    answer = post(keyed, "/v1/tools/Sleep", {"arguments": {"seconds": 40}}, **{wire.TIMEOUT_HEADER: "0.3"})
    assert (answer.status_code, answer.json()["kind"]) == (504, "deadline")
    assert time.monotonic() - started < 30


def test_internals_of_a_failing_tool_stay_inside(keyed: Keyed) -> None:
    answer = post(keyed, "/v1/tools/Fail", {"arguments": {"how": "bug"}}, **{wire.TIMEOUT_HEADER: "3"})
    assert answer.status_code in (503, 504)
    assert "passwd" not in answer.text


def test_a_caller_that_leaves_is_not_waited_for(keyed: Keyed) -> None:
    gateway, key = keyed
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.url}/v1/tools/Sleep",
            json={"arguments": {"seconds": 60}},
            headers={"authorization": f"Bearer {key}"},
            timeout=0.5,
        )
    deadline = time.monotonic() + 120
    while '"path": "/v1/tools/Sleep", "status": 499' not in gateway.log:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_wrong_key_is_said_to_be_wrong(keyed: Keyed) -> None:
    gateway, _ = keyed
    with pytest.raises(UserError, match="key is missing or wrong"):
        async with ToolClient([gateway.url], {gateway.url: "nonsense"}):
            pass


async def test_the_models_faults_stay_the_models(keyed: Keyed) -> None:
    async with client_of(keyed) as client:
        with pytest.raises(ModelError, match="percent") as caught:
            await client.call("DrawVerticalLineByX", {"image": "i", "x": 900}, {"i": picture()})
        assert caught.value.kind == "bad_arguments"


def test_metrics_count_what_happened(keyed: Keyed) -> None:
    gateway, key = keyed
    post(keyed, "/v1/tools/Echo", {"arguments": {"text": "a"}})
    text = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {key}"}).text
    assert 'thinkimg_gateway_tool_calls_total{face="tools",outcome="ok",tool="Echo"}' in text
    assert "thinkimg_gateway_ready 1.0" in text
    assert key not in text


def test_every_answer_has_the_id_of_its_request(keyed: Keyed) -> None:
    gateway, _ = keyed
    answer = post(keyed, "/v1/tools/Echo", {"arguments": {"text": "a"}}, **{"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    deadline = time.monotonic() + 120  # the line is written behind the answer
    while not any(json.loads(line).get("request_id") == "mine-1" for line in gateway.log.splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(post(keyed, "/v1/tools/Echo", {}, **{"x-request-id": "no/good"}).headers["x-request-id"]) == 32
