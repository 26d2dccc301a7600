"""Two keys of one gateway: neither reads, counts, evicts or poisons what is the other's."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from tests.support.gateway.gateways import Gateway, run_gateway
from tests.support.serving.sample_servers import spec
from thinkimg import wire
from thinkimg.gateway.keys import add_key
from thinkimg.image import Image
from thinkimg.serving import ServerConfig, Supervisor
from thinkimg.serving.config import ToolEntry
from thinkimg.serving.service import ProblemError, ToolService


class Tenant:
    """Who calls with a key of its own."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self._url, self._headers = gateway.url, {"authorization": f"Bearer {key}"}

    def call(self, tool: str, arguments: dict[str, Any], **images: dict[str, Any]) -> httpx.Response:
        body = wire.encode({"arguments": arguments, "images": images}, wire.MSGPACK)
        headers = {**self._headers, "content-type": wire.MSGPACK, "accept": wire.JSON}
        return httpx.post(f"{self._url}/v1/tools/{tool}", content=body, headers=headers, timeout=60)

    def crop(self, image: Image, box: list[int]) -> httpx.Response:
        """As an honest caller does it: with the picture's bytes."""
        return self.call("Crop", {"image": "p", "box": box}, p={"sha256": image.sha256, "data": image.data})

    def request(
        self, method: str, path: str, json: Any = None, content: bytes | None = None, **headers: str
    ) -> httpx.Response:
        given = {**self._headers, **headers}
        return httpx.request(method, self._url + path, headers=given, json=json, content=content, timeout=60)


@pytest.fixture(scope="module", params=[False, True], ids=["without cache", "with cache"])
def tenants(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tenant, Tenant]]:
    folder = tmp_path_factory.mktemp("tenants")
    keys = [add_key(folder / "keys.json", name) for name in ("alice", "bob")]
    limits = {"held_bytes": 400_000, "sessions": 4}
    with Supervisor([spec("tools", "count", "size", "Crop", workers=4)], folder, ready_seconds=240) as supervisor:
        servers = [{"url": url} for url in supervisor.endpoints]
        settings: dict[str, Any] = {"servers": servers, "keys_file": "keys.json", "cache": request.param}
        with run_gateway(
            folder / "gateway", **{**settings, "keys_file": str(folder / "keys.json")}, limits=limits
        ) as up:
            yield Tenant(up, keys[0]), Tenant(up, keys[1])


def secret_picture(seed: int) -> Image:
    return Image.from_pixels(Pillow.new("RGB", (60, 40), (200, seed, 77)))


FORGED: list[Any] = [
    {"sha256": "H"},
    {"picture": "H"},
    ["picture", "H"],
    [["picture", "H"]],
    {"sha256": "H", "data": None},
    "H",
    "img_H",
    ["H"],
]


def written(value: Any, sha256: str) -> Any:
    """One of `FORGED` with a real hash."""
    if isinstance(value, dict):
        return {name: written(one, sha256) for name, one in value.items()}
    if isinstance(value, list):
        return [written(one, sha256) for one in value]
    return {"H": sha256, "img_H": f"img_{sha256[:16]}"}.get(value, value)


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_what_is_written_in_place_of_a_handle_reads_nothing(tenants: tuple[Tenant, Tenant], number: int) -> None:
    alice, bob = tenants
    image, box = secret_picture(number), [0, 0, 50, 100]
    assert alice.crop(image, box).status_code == 200
    answer = bob.call("Crop", {"image": written(FORGED[number], image.sha256), "box": box})
    assert answer.status_code == 422
    assert not answer.json().get("images")


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_what_is_written_in_place_of_a_handle_spoils_nothing(tenants: tuple[Tenant, Tenant], number: int) -> None:
    alice, bob = tenants
    image, box = secret_picture(100 + number), [0, 0, 50, 50]
    assert bob.call("Crop", {"image": written(FORGED[number], image.sha256), "box": box}).status_code == 422
    assert alice.crop(image, box).status_code == 200


def test_a_hash_is_worth_nothing_without_the_bytes(tenants: tuple[Tenant, Tenant]) -> None:
    alice, bob = tenants
    image = secret_picture(220)
    made = alice.crop(image, [0, 0, 50, 100]).json()["images"][0]
    crop = Image.from_bytes(wire._bytes_of(made["data"], "data"))
    for one in (image, crop):
        assert bob.call("Size", {"image": "p"}, p={"sha256": one.sha256}).status_code == 409
        assert bob.request("HEAD", f"/v1/images/{one.sha256}").status_code == 404
        assert bob.request("GET", f"/v1/images/{one.sha256}").status_code == 404
        assert alice.request("HEAD", f"/v1/images/{one.sha256}").status_code == 200
        own = alice.request("GET", f"/v1/images/{one.sha256}")
        assert (own.content, own.headers["content-type"]) == (one.data, one.media_type)
        assert own.headers["x-content-type-options"] == "nosniff"
        assert alice.call("Size", {"image": "p"}, p={"sha256": one.sha256}).status_code == 200


def test_a_result_is_computed_for_each_key(tenants: tuple[Tenant, Tenant]) -> None:
    """Nothing of what one asked can be told from how another is answered."""
    alice, bob = tenants
    asked = {"key": "whose"}
    assert alice.call("Count", asked).json()["text"] == "1"
    assert bob.call("Count", asked).json()["text"] == "2"


def test_pictures_of_one_do_not_drive_out_anothers(tenants: tuple[Tenant, Tenant]) -> None:
    alice, bob = tenants
    image = secret_picture(230)
    assert alice.crop(image, [0, 0, 50, 100]).status_code == 200
    for seed in range(8):
        large = Image.from_pixels(Pillow.effect_noise((250, 250), 60 + seed))
        put = bob.request("PUT", f"/v1/images/{large.sha256}", content=large.data)
        assert put.status_code == 204
    assert alice.request("HEAD", f"/v1/images/{image.sha256}").status_code == 200
    assert bob.request("HEAD", f"/v1/images/{large.sha256}").status_code == 200


def initialize(tenant: Tenant) -> httpx.Response:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    return tenant.request("POST", "/mcp", json=body, accept="application/json, text/event-stream")


def test_sessions_of_one_take_no_place_of_anothers(tenants: tuple[Tenant, Tenant]) -> None:
    alice, bob = tenants
    opened = [initialize(bob) for _ in range(6)]
    assert [answer.status_code for answer in opened] == [200] * 4 + [503] * 2
    assert initialize(alice).status_code == 200
    session = {"mcp-session-id": opened[0].headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert alice.request("POST", "/mcp", json=listing, **session).status_code == 404
    assert alice.request("DELETE", "/mcp", **session).status_code == 404
    accepted = {"accept": "application/json, text/event-stream"}
    assert bob.request("POST", "/mcp", json=listing, **session, **accepted).status_code == 200


def test_nobody_counts_what_others_do(tenants: tuple[Tenant, Tenant]) -> None:
    for tenant in tenants:
        answer = tenant.request("GET", "/metrics")
        assert (answer.status_code, answer.json()["kind"]) == (403, "not_allowed")
        assert "keys add NAME --metrics" in answer.json()["detail"]


@pytest.mark.slow
def test_a_batch_is_run_in_the_places_of_its_key_and_counts_one_by_one(tmp_path: Path) -> None:
    """Twelve calls of half a second by a key of two places take three seconds at least."""
    narrow = add_key(tmp_path / "keys.json", "narrow", in_flight=2, requests_per_minute=13)
    with Supervisor([spec("tools", "sleep", workers=12)], tmp_path, ready_seconds=240) as supervisor:
        settings: dict[str, Any] = {"servers": [{"url": supervisor.endpoints[0]}]}
        with run_gateway(tmp_path / "gateway", **settings, keys_file=str(tmp_path / "keys.json")) as gateway:
            tenant = Tenant(gateway, narrow)
            calls = [{"tool": "Sleep", "arguments": {"seconds": 0.5}}] * 12
            began = time.monotonic()
            answer = tenant.request("POST", "/v1/batch", json={"calls": calls})
            assert [sorted(one) for one in answer.json()["results"]] == [["result"]] * 12
            assert time.monotonic() - began >= 3, "never more than two at once"
            assert tenant.request("GET", "/v1/tools").status_code in (200, 429)
            refused = tenant.request("GET", "/v1/tools")
            assert (refused.status_code, refused.json()["kind"]) == (429, "rate_limited")


def test_a_server_leaves_half_of_its_queue_to_others() -> None:
    service = ToolService(ServerConfig(tools=[ToolEntry(name="Crop")], workers=2, max_queue=4))
    taken = [service._admit("bob") for _ in range(4)]
    with pytest.raises(ProblemError, match="4 calls are under way, 4 of them of this caller"):
        service._admit("bob")
    service._admit("alice")
    taken[0].leave()
    service._admit("bob")
    service._admit("")
    with pytest.raises(ProblemError):
        service._admit("alice")


def test_a_server_that_is_called_for_nobody_gives_all_its_places() -> None:
    service = ToolService(ServerConfig(tools=[ToolEntry(name="Crop")], workers=2, max_queue=4))
    for _ in range(6):
        service._admit("")
    with pytest.raises(ProblemError):
        service._admit("")


def test_a_server_holds_pictures_for_the_caller_that_is_named(tmp_path: Path) -> None:
    image = secret_picture(240)
    path = f"/v1/images/{image.sha256}"
    with (
        Supervisor([spec("tools", "size")], tmp_path, ready_seconds=240) as supervisor,
        httpx.Client(base_url=supervisor.endpoints[0], timeout=60) as http,
    ):

        def asked(caller: str | None) -> list[int]:
            headers = {wire.CALLER_HEADER: caller} if caller else {}
            by_hash = {"arguments": {"image": "p"}, "images": {"p": {"sha256": image.sha256}}}
            call = http.post("/v1/tools/Size", json=by_hash, headers=headers)
            batch = http.post("/v1/batch", json={"calls": [{"tool": "Size", **by_hash}]}, headers=headers)
            of_batch = batch.json()["results"][0].get("problem", {"status": 200})["status"]
            return [http.head(path, headers=headers).status_code, call.status_code, of_batch]

        http.put(path, content=image.data, headers={wire.CALLER_HEADER: "alice"})
        assert asked("alice") == [200, 200, 200]
        for other in ("bob", None, "alice2", "ALICE"):
            assert asked(other) == [404, 409, 409]
        assert http.head(path, headers={wire.CALLER_HEADER: "a b"}).status_code == 422
