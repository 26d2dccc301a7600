"""Who may call a gateway, how much, from where; and that no secret reaches a log."""

import asyncio
import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from tests.support.gateway.gateways import Gateway, run_gateway
from thinkimg.errors import UserError
from thinkimg.gateway.app import create_app
from thinkimg.gateway.config import GatewayConfig, parse_config
from thinkimg.gateway.gate import OPEN_PATHS
from thinkimg.gateway.keys import add_key, read_keys
from thinkimg.serving.doors import is_loopback

Keyed = tuple[Gateway, str]
SERVERS = [{"url": "http://127.0.0.1:1"}]
ECHO = {"arguments": {"text": "a"}}


def routes() -> list[tuple[str, str]]:
    """Every method and path of the app, with names filled in."""
    found = []
    for route in create_app(parse_config({"servers": SERVERS})).routes:
        assert isinstance(route, Route)
        path = route.path.replace("{sha256}", "0" * 64).replace("{name:path}", "x").replace("{name}", "Echo")
        found += [(method, path.replace("{tool}", "Echo")) for method in route.methods or {"GET"}]
    return sorted(found)


@pytest.mark.parametrize("credentials", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic OnRpLXg="}])
def test_no_call_succeeds_without_a_key(keyed: Keyed, credentials: dict[str, str]) -> None:
    gateway, _ = keyed
    with httpx.Client(base_url=gateway.url, headers=credentials) as http:
        for method, path in routes():
            answer = http.request(method, path, json=ECHO if method == "POST" else None)
            expected = 200 if path in OPEN_PATHS else 401
            assert answer.status_code == expected, f"{method} {path}"
            if expected == 401 and method != "HEAD":
                assert "Echo" not in answer.text


def test_a_key_that_is_added_or_removed_counts_while_the_gateway_runs(keyed: Keyed) -> None:
    gateway, _ = keyed
    file = gateway.log_path.parent / "keys.json"
    command = [sys.executable, "-m", "thinkimg.cli", "gateway", "keys"]
    made = subprocess.run([*command, "add", "carol", "--file", str(file)], capture_output=True, text=True, check=True)
    key = made.stdout.strip()
    listed = subprocess.run([*command, "list", "--file", str(file)], capture_output=True, text=True, check=True).stdout
    assert "carol" in listed
    assert key not in listed
    assert until_status(gateway, key, 200)
    subprocess.run([*command, "remove", "carol", "--file", str(file)], check=True)
    assert until_status(gateway, key, 401)


def until_status(gateway: Gateway, key: str, status: int, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if httpx.get(f"{gateway.url}/v1/tools", headers={"authorization": f"Bearer {key}"}).status_code == status:
            return True
        time.sleep(0.2)
    return False


def test_a_key_is_in_no_log_wherever_it_was_sent(keyed: Keyed) -> None:
    gateway, key = keyed
    basic = base64.b64encode(f"me:{key}".encode()).decode()
    right = {"authorization": f"Bearer {key}"}
    for path, headers, body in (
        ("/v1/tools/Echo", right, {"arguments": {"text": key}}),
        (f"/v1/tools/{key}", right, ECHO),
        (f"/v1/tools/Echo?key={key}", right, ECHO),
        (f"/{key}/x", {"authorization": f"Basic {basic}"}, {}),
        ("/v1/tools/Echo", {"authorization": key}, ECHO),
        ("/v1/tools/Echo", {**right, "x-request-id": key[:60]}, ECHO),
        ("/get_worker_address", {"authorization": f"Basic {basic}"}, {"model": "Echo"}),
        ("/v1/chat/completions", right, {"model": key, "messages": [{"role": "user", "content": key}]}),
    ):
        httpx.post(gateway.url + path, json=body, headers=headers)
    secret = key.split("-", 2)[2]
    assert secret not in gateway.log
    assert basic not in gateway.log
    assert key not in (gateway.log_path.parent / "keys.json").read_text()


# ---- how much --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, tool_urls: list[str]) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway with small limits, and the keys of callers with quotas."""
    folder = tmp_path_factory.mktemp("bounded")
    limits = {
        "rated": {"requests_per_minute": 5},
        "quota": {"calls_per_day": 3},
        "narrow": {"in_flight": 1},
        "free": {},
    }
    keys = {name: add_key(folder / "keys.json", name, **limit) for name, limit in limits.items()}
    small = {"body_bytes": 200_000, "client_seconds": 1.5, "images": 2}
    settings: dict[str, Any] = {"servers": [{"url": url} for url in tool_urls], "keys_file": "keys.json"}
    with run_gateway(folder, **settings, limits=small) as gateway:
        yield gateway, keys


def echo(gateway: Gateway, key: str, text: str = "a") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.url}/v1/tools/Echo", json={"arguments": {"text": text}}, headers=headers, timeout=60)


def test_a_rate_is_429_with_the_seconds_to_wait(bounded: tuple[Gateway, dict[str, str]]) -> None:
    gateway, keys = bounded
    answers = [echo(gateway, keys["rated"]) for _ in range(7)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    assert answers[-1].status_code == 429
    assert answers[-1].json()["kind"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 13
    assert echo(gateway, keys["free"]).status_code == 200, "others are not held up"


def test_a_quota_counts_calls_of_every_face(bounded: tuple[Gateway, dict[str, str]]) -> None:
    gateway, keys = bounded
    batch = {"calls": [{"tool": "Echo", **ECHO}] * 2}
    headers = {"authorization": f"Bearer {keys['quota']}"}
    assert httpx.post(f"{gateway.url}/v1/batch", json=batch, headers=headers).status_code == 200
    assert echo(gateway, keys["quota"]).status_code == 200
    refused = echo(gateway, keys["quota"])
    assert (refused.status_code, refused.json()["kind"]) == (429, "quota_exceeded")
    assert httpx.get(f"{gateway.url}/v1/tools", headers=headers).status_code == 200, "looking is free"


def test_requests_at_once_are_limited_by_key(bounded: tuple[Gateway, dict[str, str]]) -> None:
    gateway, keys = bounded

    async def two() -> list[int]:
        headers = {"authorization": f"Bearer {keys['narrow']}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as http:
            slow = asyncio.create_task(http.post("/v1/tools/Sleep", json={"arguments": {"seconds": 2}}))
            await asyncio.sleep(0.7)
            quick = await http.post("/v1/tools/Echo", json=ECHO)
            return [(await slow).status_code, quick.status_code]

    assert asyncio.run(two()) == [200, 429]


def test_a_body_that_is_too_large_is_413_whether_it_says_so_or_not(bounded: tuple[Gateway, dict[str, str]]) -> None:
    gateway, keys = bounded
    headers = {"authorization": f"Bearer {keys['free']}"}
    assert echo(gateway, keys["free"], "x" * 200_000).status_code == 413
    pieces = (b"x" * 50_000 for _ in range(5))
    answer = httpx.post(f"{gateway.url}/v1/tools/Echo", content=pieces, headers=headers)
    assert answer.status_code == 413


@pytest.mark.slow
def test_a_caller_that_stalls_loses_its_connection(bounded: tuple[Gateway, dict[str, str]]) -> None:
    gateway, keys = bounded
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    head = f"POST /v1/tools/Echo HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {keys['free']}\r\n"
    for part in (head.encode(), f"{head}content-length: 100\r\n\r\n{{".encode()):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(part)
            answer = connection.recv(4096)
        assert answer == b"" or b" 408 " in answer.split(b"\r\n")[0]


def test_a_caller_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    bounded: tuple[Gateway, dict[str, str]],
) -> None:
    """Found by the fuzzer: it was logged as a bug."""
    gateway, keys = bounded
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    head = f"POST /v1/tools/Echo HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {keys['free']}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}x-request-id: left-early\r\ncontent-length: 100\r\n\r\n{{".encode())
        time.sleep(0.3)
    deadline = time.monotonic() + 120
    while '"request_id": "left-early"' not in gateway.log:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = [json.loads(line) for line in gateway.log.splitlines() if "left-early" in line]
    assert (line["level"], line["status"]) == ("INFO", 499)


# ---- from where ------------------------------------------------------------------------------------------------------


def test_a_public_interface_needs_keys_or_a_clear_word(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "gateway.example"):
        with pytest.raises(UserError, match="no keys are set"):
            parse_config({"servers": SERVERS, "host": host})
        assert parse_config({"servers": SERVERS, "host": host, "allow_anonymous": True}).host == host
        assert parse_config({"servers": SERVERS, "host": host, "keys_file": "k.json"}).host == host
    command = [sys.executable, "-m", "thinkimg.cli", "gateway", "--server", "http://127.0.0.1:1", "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "thinkimg gateway keys add" in refused.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_this_machines_own_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tool_urls: list[str]) -> Iterator[Gateway]:
    """Without keys, on the loopback."""
    settings: dict[str, Any] = {"servers": [{"url": tool_urls[0]}], "cors_origins": ["https://labels.example"]}
    with run_gateway(tmp_path_factory.mktemp("local"), **settings) as gateway:
        yield gateway


def test_pages_of_other_sites_may_not_use_what_a_browser_can_reach(local: Gateway, keyed: Keyed) -> None:
    def post(**headers: str) -> httpx.Response:
        return httpx.post(f"{local.url}/v1/tools/Echo", json=ECHO, headers=headers)

    assert post().status_code == 200
    assert post(origin="https://evil.example").json()["kind"] == "wrong_origin"
    assert post(origin="null").status_code == 403
    assert post(host="evil.example").json()["kind"] == "wrong_host", "a name that was pointed at this machine"
    allowed = post(origin="https://labels.example")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://labels.example"
    gateway, _ = keyed  # by default, nobody's
    preflight = {"origin": "https://labels.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{gateway.url}/v1/tools/Echo", headers=preflight)
    assert "access-control-allow-origin" not in answer.headers


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"servers": []}, "servers"),
        ({"servers": [{"url": "http://x", "key": "y"}]}, "servers[0].key"),
        ({"port": 70_000}, "port"),
        ({"limits": {"rounds": 0}}, "limits.rounds"),
        ({"models": [{"name": "a", "base_url": "b"}] * 2}, "models"),
        ({"cors_origins": ["*"]}, "cors_origins[0]"),
    ],
)
def test_the_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"servers": SERVERS, **change})
    assert caught.value.field == field


def test_the_api_is_described(local: Gateway) -> None:
    document = httpx.get(f"{local.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    echo_body = document["paths"]["/v1/tools/Echo"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert echo_body["properties"]["arguments"]["required"] == ["text"]
    assert "pages/docs.js" in httpx.get(f"{local.url}/docs").text


def test_a_gateway_ends_with_0_when_it_is_stopped_and_with_2_when_it_is_wrong(
    tmp_path: Path, tool_urls: list[str]
) -> None:
    with run_gateway(tmp_path / "good", servers=[{"url": tool_urls[0]}]) as gateway:
        assert gateway.stop() == 0
    command = [sys.executable, "-m", "thinkimg.cli", "gateway", "--server", tool_urls[0]]
    file = tmp_path / "absent.json"
    refused = subprocess.run([*command, "--keys-file", str(file)], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "keys_file" in refused.stderr


def test_the_file_of_keys_is_json_that_a_person_can_check(keyed: Keyed) -> None:
    gateway, key = keyed
    file = gateway.log_path.parent / "keys.json"
    assert {"id", "name", "sha256", "created"} <= set(json.loads(file.read_text())["keys"][0])
    assert any(entry.id in key for entry in read_keys(file))


def test_the_configuration_can_be_written_down_and_read_again() -> None:
    config = parse_config({"servers": SERVERS, "keys_file": "k.json", "host": "0.0.0.0"})
    assert GatewayConfig.model_validate_json(config.model_dump_json()) == config
