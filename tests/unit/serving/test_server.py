"""A server over real HTTP, as curl and other programs see it."""

import asyncio
import base64
import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from tests.support.serving.sample_servers import ENVIRONMENT, SAMPLE_TOOLS, spec
from thinkimg import wire
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.serving import Supervisor
from thinkimg.serving import service as service_module
from thinkimg.serving.config import ServerConfig, ToolEntry, parse_config, read_config
from thinkimg.serving.service import ToolService

Start = Callable[..., Supervisor]
http = httpx.Client(verify=False, trust_env=False, timeout=60)


def picture(width: int = 40, height: int = 30, color: str = "red") -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), color))


def call(url: str, tool: str, arguments: dict[str, Any], **images: dict[str, Any]) -> httpx.Response:
    body = json.dumps({"arguments": arguments, "images": images})
    return http.post(f"{url}/v1/tools/{tool}", content=body, headers={"content-type": "application/json"})


def as_json(image: Image, data: bytes | None = None) -> dict[str, str]:
    return {"sha256": image.sha256, "data": base64.b64encode(data or image.data).decode()}


def metric(url: str, name: str) -> float:
    (line,) = [line for line in http.get(f"{url}/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def wait_for_metric(url: str, name: str, value: float) -> None:
    deadline = time.monotonic() + 120
    while metric(url, name) != value:
        assert time.monotonic() < deadline, f"{name} did not become {value}"
        time.sleep(0.01)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_the_tools_are_listed(sample_url: str) -> None:
    listing = http.get(f"{sample_url}/v1/tools").json()
    assert listing["version"] == 1
    assert {"Echo", "Crop"} <= {tool["name"] for tool in listing["tools"]}


def test_a_call_in_json(sample_url: str) -> None:
    answer = call(sample_url, "size", {"image": "img_1"}, img_1=as_json(picture()))
    assert answer.status_code == 200
    assert answer.json()["text"] == "40x30"
    assert base64.b64decode(answer.json()["images"][0]["data"]) == picture().data


def test_a_call_in_msgpack_answered_in_json_on_request(sample_url: str) -> None:
    body = wire.encode_request(wire.CallRequest({"text": "hé"}), wire.MSGPACK)
    headers = {"content-type": wire.MSGPACK}
    answer = http.post(f"{sample_url}/v1/tools/Echo", content=body, headers=headers)
    assert wire.decode_result(answer.content, wire.MSGPACK).text == "hé"
    answer = http.post(f"{sample_url}/v1/tools/Echo", content=body, headers={**headers, "accept": wire.JSON})
    assert answer.json()["text"] == "hé"


def test_every_call_of_a_batch_has_its_own_answer(sample_url: str) -> None:
    calls = [
        {"tool": "Echo", "arguments": {"text": "a"}},
        {"tool": "Nothing", "arguments": {}},
        {"tool": "Fail", "arguments": {"how": "model"}},
        {"tool": "Size", "arguments": {"image": "i"}, "images": {"i": as_json(picture())}},
    ]
    answer = http.post(f"{sample_url}/v1/batch", content=json.dumps({"calls": calls}))
    results = answer.json()["results"]
    assert results[0]["result"]["text"] == "a"
    assert [results[n]["problem"]["kind"] for n in (1, 2)] == ["unknown_tool", "refused"]
    assert results[3]["result"]["text"] == "40x30"


def test_a_picture_can_be_put_and_named_by_its_hash(sample_url: str) -> None:
    image = picture(21, 20, "blue")
    url = f"{sample_url}/v1/images/{image.sha256}"
    assert http.head(url).status_code == 404
    missing = call(sample_url, "Size", {"image": "i"}, i={"sha256": image.sha256})
    assert (missing.status_code, missing.json()["sha256"]) == (409, [image.sha256])
    assert http.put(url, content=image.data).status_code == 204
    assert http.head(url).status_code == 200
    assert call(sample_url, "Size", {"image": "i"}, i={"sha256": image.sha256}).json()["text"] == "21x20"


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "status", "type_"),
    [
        ("Nothing", {}, 404, "model/unknown_tool"),
        ("Echo", {}, 422, "model/bad_arguments"),
        ("Echo", {"text": 7}, 422, "model/bad_arguments"),
        ("Fail", {"how": "model"}, 422, "model/refused"),
        ("Fail", {"how": "infrastructure"}, 503, "infrastructure/backend_unavailable"),
        ("Fail", {"how": "bug"}, 500, "infrastructure/tool_failed"),
        ("Fail", {"how": "unencodable"}, 500, "infrastructure/tool_failed"),
    ],
)
def test_an_error_says_whose_fault_it_is(
    sample_url: str, tool: str, arguments: dict[str, Any], status: int, type_: str
) -> None:
    answer = call(sample_url, tool, arguments)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == wire.PROBLEM_ROOT + type_
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_a_malformed_body_is_refused(sample_url: str) -> None:
    for body in (b"", b"{", b"[]", b'{"arguments": 1}', b'{"images": {"a": {"sha256": "x"}}}'):
        answer = http.post(f"{sample_url}/v1/tools/Echo", content=body)
        assert (answer.status_code, answer.json()["kind"]) == (422, "malformed_request")


def test_a_wrong_hash_and_broken_pictures_are_refused(sample_url: str) -> None:
    wrong = call(sample_url, "Size", {"image": "i"}, i=as_json(picture(), b"no picture"))
    assert (wrong.status_code, wrong.json()["type"]) == (415, wire.PROBLEM_ROOT + "model/refused")
    other = call(sample_url, "Size", {"image": "i"}, i=as_json(picture(), picture(9, 9).data))
    assert (other.status_code, other.json()["kind"]) == (422, "wrong_hash")
    assert http.put(f"{sample_url}/v1/images/{'0' * 64}", content=picture().data).status_code == 422
    assert http.put(f"{sample_url}/v1/images/short", content=picture().data).status_code == 422
    truncated = picture(60, 60).data[:-30]
    sha256 = hashlib.sha256(truncated).hexdigest()
    data = base64.b64encode(truncated).decode()
    crop = call(sample_url, "Crop", {"image": "i", "box": [0, 0, 9, 9]}, i={"sha256": sha256, "data": data})
    assert (crop.status_code in (415, 422), crop.json()["kind"]) == (True, "refused")


def test_too_large_is_413(start: Start) -> None:
    small = start(spec("small", "size", max_image_bytes=1000, max_image_pixels=10_000)).endpoints[0]
    noise = Image.from_pixels(Pillow.effect_noise((60, 60), 90))
    assert call(small, "Size", {"image": "i"}, i=as_json(noise)).status_code == 413
    assert http.put(f"{small}/v1/images/{noise.sha256}", content=noise.data).status_code == 413
    assert http.post(f"{small}/v1/tools/Size", content=b"x" * 2_000_000).status_code == 413

    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100_000

    assert http.post(f"{small}/v1/tools/Size", content=chunks()).status_code == 413
    assert call(small, "Size", {"image": "i"}, i=as_json(picture(200, 200))).json()["kind"] == "refused"
    assert call(small, "Size", {"image": "i"}, i=as_json(picture())).status_code == 200


def test_a_full_queue_is_429_and_says_when_to_come_back(start: Start) -> None:
    url = start(spec("narrow", "sleep", workers=1, max_queue=1)).endpoints[0]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: call(url, "Sleep", {"seconds": 0.4}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
    assert all(int(a.headers["retry-after"]) > 0 for a in answers if a.status_code == 429)


def test_the_deadline_is_honoured(sample_url: str) -> None:
    body = json.dumps({"arguments": {"seconds": 10}})
    started = time.monotonic()
    answer = http.post(f"{sample_url}/v1/tools/Sleep", content=body, headers={wire.TIMEOUT_HEADER: "0.2"})
    assert (answer.status_code, answer.json()["kind"]) == (504, "deadline")
    assert time.monotonic() - started < 9
    for nonsense in ("soon", "nan", "-1", "0"):
        answer = http.post(f"{sample_url}/v1/tools/Sleep", content=body, headers={wire.TIMEOUT_HEADER: nonsense})
        assert answer.status_code == 422


def test_no_caller_gets_more_time_than_the_server_has_for_a_call(start: Start) -> None:
    url = start(spec("short", "sleep", default_timeout_seconds=0.2)).endpoints[0]
    for headers in ({}, {wire.TIMEOUT_HEADER: "60"}):
        answer = http.post(f"{url}/v1/tools/Sleep", json={"arguments": {"seconds": 5}}, headers=headers)
        assert (answer.status_code, answer.json()["kind"]) == (504, "deadline")


def test_work_that_waits_past_its_deadline_is_never_begun(start: Start) -> None:
    url = start(spec("late", "sleep", "count", workers=1)).endpoints[0]
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(call, url, "Sleep", {"seconds": 0.8})
        wait_for_metric(url, "thinkimg_tool_calls_in_flight", 1)
        body = json.dumps({"arguments": {"key": "late"}})
        answer = http.post(f"{url}/v1/tools/Count", content=body, headers={wire.TIMEOUT_HEADER: "0.1"})
        assert (answer.status_code, answer.json()["kind"]) == (504, "deadline")
        assert busy.result().status_code == 200
    assert call(url, "Count", {"key": "late"}).json()["text"] == "1"
    assert metric(url, 'thinkimg_tool_calls_abandoned_total{reason="deadline",tool="Count"}') == 1


def test_the_deadline_counts_from_the_arrival_and_not_from_the_end_of_the_body(start: Start) -> None:
    url = start(spec("slow", "echo")).endpoints[0]
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"arguments": {"text": "x"}}).encode()
    head = f"POST /v1/tools/Echo HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n"
    head += f"{wire.TIMEOUT_HEADER}: 0.3\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(head.encode() + body[:5])
        time.sleep(0.5)
        slow.sendall(body[5:])
        assert b" 504 " in slow.recv(100)


def test_work_of_a_client_that_has_left_is_never_begun(start: Start) -> None:
    url = start(spec("left", "sleep", "count", workers=1)).endpoints[0]
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"arguments": {"key": "left"}}).encode()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(call, url, "Sleep", {"seconds": 1.0})
        wait_for_metric(url, "thinkimg_tool_calls_in_flight", 1)
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(
                b"POST /v1/tools/Count HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            wait_for_metric(url, "thinkimg_tool_queue_length", 1)
        wait_for_metric(url, "thinkimg_tool_queue_length", 0)
        assert busy.result().status_code == 200
    assert call(url, "Count", {"key": "left"}).json()["text"] == "1"
    assert metric(url, 'thinkimg_tool_calls_abandoned_total{reason="client_left",tool="Count"}') == 1


def test_batches_form_under_load_and_their_results_equal_single_ones(start: Start) -> None:
    url = start(spec("batches", "embed", workers=8)).endpoints[0]
    pictures = [picture(32, 32, f"rgb({10 * n}, {255 - 10 * n}, 77)") for n in range(16)]

    def features(image: Image) -> tuple[str, list[float]]:
        answer = call(url, "Embed", {"image": "i"}, i=as_json(image)).json()
        return answer["text"], answer["data"]["features"]

    alone = [features(image) for image in pictures]
    assert {size for size, _ in alone} == {"1"}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(features, pictures * 3))
    assert [numbers for _, numbers in together] == [numbers for _, numbers in alone] * 3
    assert max(int(size) for size, _ in together) > 1
    batches = metric(url, 'thinkimg_tool_batch_size_count{tool="Embed"}')
    assert metric(url, 'thinkimg_tool_batch_size_sum{tool="Embed"}') == 16 + 48
    assert batches < 16 + 48 / 2, "batches of two or more, on average"
    assert metric(url, 'thinkimg_tool_batch_size_bucket{le="1.0",tool="Embed"}') >= 16


def test_a_batched_tool_refuses_wrong_arguments_alone(start: Start) -> None:
    url = start(spec("refusing", "embed")).endpoints[0]
    assert call(url, "Embed", {"image": "absent"}).json()["kind"] == "bad_arguments"
    truncated = Image.from_pixels(Pillow.effect_noise((60, 60), 90)).data[:-200]
    broken = {"sha256": hashlib.sha256(truncated).hexdigest(), "data": base64.b64encode(truncated).decode()}
    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(call, url, "Embed", {"image": "i"}, i=as_json(picture()))
        assert call(url, "Embed", {"image": "i"}, i=broken).json()["kind"] == "refused"
        assert good.result().status_code == 200


def test_bodies_together_are_bounded(start: Start) -> None:
    url = start(spec("heavy", "size", max_pending_bytes=3000)).endpoints[0]
    assert call(url, "Size", {"image": "i"}, i=as_json(picture())).status_code == 200
    noise = Image.from_pixels(Pillow.effect_noise((60, 60), 90))
    refused = call(url, "Size", {"image": "i"}, i=as_json(noise))
    assert (refused.status_code, refused.json()["kind"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    assert metric(url, "thinkimg_tool_body_bytes") == 0


def test_a_client_that_stalls_loses_its_connection(start: Start) -> None:
    url = start(spec("impatient", "echo", client_seconds=0.5)).endpoints[0]
    host, _, port = url.removeprefix("http://").partition(":")
    unfinished = b"POST /v1/tools/Echo HTTP/1.1\r\nhost:"
    for before in (b"", b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=30) as stalling:
            stalling.sendall(before)
            assert not before or b" 200 " in stalling.recv(1000)
            stalling.sendall(unfinished)
            with contextlib.suppress(ConnectionResetError):
                while stalling.recv(1000):
                    pass
    with socket.create_connection((host, int(port)), timeout=30) as stalling:
        stalling.sendall(b"POST /v1/tools/Echo HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n12")
        assert b" 408 " in stalling.recv(100)
    assert call(url, "Echo", {"text": "x"}).status_code == 200


def test_nothing_is_answered_without_the_key(start: Start) -> None:
    supervisor = start(spec("locked", "echo", api_key="s3cret-key"))
    url = supervisor.endpoints[0]
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"authorization": b"\xff\xfe"}):
        for path in ("/v1/tools", "/metrics", f"/v1/images/{'0' * 64}", "/elsewhere"):
            answer = http.get(url + path, headers=header)  # type: ignore[arg-type]
            assert answer.status_code == 401
        assert http.post(f"{url}/v1/tools/Echo", content=b"{}", headers=header).status_code == 401  # type: ignore[arg-type]
    assert [http.get(url + path).status_code for path in ("/livez", "/readyz")] == [200, 200]
    assert http.get(f"{url}/v1/tools", headers={"authorization": "Bearer s3cret-key"}).status_code == 200
    files = [path for path in supervisor.log_path("locked").parent.rglob("*") if path.is_file()]
    assert files
    assert all("s3cret-key" not in path.read_text() for path in files)


# ---- metrics and logs ------------------------------------------------------------------------------------------------


def test_metrics_and_logs_tell_the_story(start: Start) -> None:
    supervisor = start(spec("told", "echo", "fail"))
    url = supervisor.endpoints[0]
    body = json.dumps({"arguments": {"text": "x"}})
    answer = http.post(f"{url}/v1/tools/Echo", content=body, headers={"x-request-id": "my-id"})
    assert answer.headers["x-request-id"] == "my-id"
    forged = http.get(f"{url}/livez", headers={"x-request-id": "evil id" * 50})
    assert len(forged.headers["x-request-id"]) == 32
    call(url, "Fail", {"how": "bug"})
    metrics = http.get(f"{url}/metrics").text
    assert 'thinkimg_tool_calls_total{tool="Echo"} 1.0' in metrics
    assert 'thinkimg_tool_errors_total{family="infrastructure",kind="tool_failed",tool="Fail"} 1.0' in metrics
    assert "thinkimg_tool_calls_in_flight 0.0" in metrics
    assert 'thinkimg_tool_call_seconds_bucket{le="+Inf",tool="Echo"} 1.0' in metrics
    lines = [json.loads(line) for line in supervisor.log_path("told").read_text().splitlines()]
    assert any(line.get("request_id") == "my-id" and line["status"] == 200 for line in lines)
    assert any("secret internals" in line.get("traceback", "") for line in lines)


# ---- the process -----------------------------------------------------------------------------------------------------


def run_alone(tmp_path: Path, **config: Any) -> "subprocess.Popen[str]":
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "thinkimg.serving", "--config", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_zero(tmp_path: Path, number: signal.Signals) -> None:
    process = run_alone(tmp_path, tools=[{"entry_point": f"{SAMPLE_TOOLS}:sleep"}])
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, url, "Sleep", {"seconds": 1.0})
        time.sleep(0.4)
        process.send_signal(number)
        assert answer.result().status_code == 200
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_a_call_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    process = run_alone(tmp_path, tools=[{"entry_point": f"{SAMPLE_TOOLS}:sleep"}], drain_seconds=1)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, url, "Sleep", {"seconds": 1000})
        time.sleep(0.4)
        process.terminate()
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert answer.exception() or answer.result().status_code >= 500


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"tools": []}, 2, {"family": "user", "field": "tools"}),
        ({"tools": [{"name": "OCRR"}]}, 2, {"family": "user", "field": "tools[0].name"}),
        ({"tools": [{"entry_point": f"{SAMPLE_TOOLS}:broken"}]}, 70, {"family": "bug"}),
    ],
)
def test_a_wrong_configuration_ends_the_process_with_a_reason(
    tmp_path: Path, config: Any, code: int, said: dict[str, str]
) -> None:
    process = run_alone(tmp_path, **config)
    output, _ = process.communicate(timeout=60)
    event = json.loads(output)
    assert (process.returncode, event["event"]) == (code, "failed")
    assert {name: event[name] for name in said} == said


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([{"name": "Crop", "backend": "no"}], "tools[0].backend"),
        ([{"name": "Crop", "options": {"a": 1}}], "tools[0].options.a"),
        ([{"entry_point": "no.such:x"}], "tools[0].entry_point"),
        ([{"entry_point": f"{SAMPLE_TOOLS}:absent"}], "tools[0].entry_point"),
        ([{"entry_point": f"{SAMPLE_TOOLS}:not_a_tool"}], "tools[0].entry_point"),
        ([{"name": "Crop"}, {"name": "Crop"}], "tools[1]"),
    ],
)
def test_a_tool_that_cannot_be_had_is_named(tools: Any, field: str) -> None:
    with pytest.raises(UserError) as caught:
        ToolService(parse_config({"tools": tools})).load()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"tools": [{"name": "Crop"}], "prot": 1}, "prot"),
        ({"tools": [{"name": "Crop"}], "port": 70000}, "port"),
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"entry_point": "module"}]}, "tools[0].entry_point"),
        ([], ""),
    ],
)
def test_the_wrong_field_is_named(document: Any, field: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(document)
    assert caught.value.field == field


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        read_config(tmp_path / "absent.yaml")


def test_a_slow_sender_does_not_stop_the_others(sample_url: str) -> None:
    host, _, port = sample_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/tools/Echo HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\nab")
        assert call(sample_url, "Echo", {"text": "a"}).status_code == 200


def test_the_store_drops_the_least_recently_used() -> None:
    one, two, three = (picture(color=color) for color in ("red", "green", "blue"))
    room = len(one.data) + len(three.data)
    service = ToolService(ServerConfig(tools=[ToolEntry(name="Crop")], image_store_bytes=room))
    service.keep(one.sha256, one.data)
    service.keep(two.sha256, two.data)
    service.held(one.sha256)
    service.keep(three.sha256, three.data)
    assert [("", image.sha256) in service.images for image in (one, two, three)] == [True, False, True]
    assert 0 < service.images.bytes <= room


def test_a_service_that_is_made_but_not_loaded_changes_nothing_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(service_module, "keep_decoded_pictures", asked.append)
    service = ToolService(ServerConfig(tools=[ToolEntry(name="Crop")], decoded_bytes=12345))
    assert asked == []
    service.load()
    assert asked == [12345]


def test_many_connections_at_once(sample_url: str) -> None:
    async def all_of_them() -> list[int]:
        async with httpx.AsyncClient(timeout=30) as client:
            body = json.dumps({"arguments": {"text": "x"}}).encode()
            answers = (client.post(f"{sample_url}/v1/tools/Echo", content=body) for _ in range(100))
            return [answer.status_code for answer in await asyncio.gather(*answers)]

    assert set(asyncio.run(all_of_them())) == {200}
