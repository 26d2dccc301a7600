"""Every way to start a server: an address that others reach needs a key, or a clear word."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.serving.sample_servers import spec
from thinkimg.api import VisionTool
from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.gateway.config import GatewayConfig, parse_config
from thinkimg.gateway.fleet import on_this_machine_unless_guarded, with_gateway
from thinkimg.openthinkimg.services import read_openthinkimg
from thinkimg.serving import ServerConfig, Supervisor
from thinkimg.serving.doors import is_loopback
from thinkimg.serving.fleet import Plan, parse_fleet
from thinkimg.serving.process import check_door
from thinkimg.serving.supervisor import ServerSpec, with_group_key
from thinkimg.serving.vision_tools import server_of

PUBLIC = ["0.0.0.0", "::", "10.0.0.7", "node-7.cluster"]
Start = Callable[..., Supervisor]


def served(**settings: Any) -> ServerConfig:
    return ServerConfig.model_validate({"tools": [{"name": "Crop"}], **settings})


@pytest.fixture(autouse=True)
def _without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.API_KEY, raising=False)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_needs_a_key_or_a_clear_word(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no keys are set: set api_key, or THINKIMG_TOOL_API_KEY") as caught:
        check_door(served(host=host))
    assert caught.value.field == "host"
    check_door(served(host=host, api_key="k"))
    check_door(served(host=host, allow_anonymous=True))
    monkeypatch.setenv(Variable.API_KEY, " \n")
    with pytest.raises(UserError):
        check_door(served(host=host))
    monkeypatch.setenv(Variable.API_KEY, "k")
    check_door(served(host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_address_of_this_machine_needs_none(host: str) -> None:
    check_door(served(host=host))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["serve", "Crop", "--host", "0.0.0.0"], ["serve", "--config", "FILE"], ["up", "FLEET"]]
)
def test_commands_refuse_by_name_before_they_listen(tmp_path: Path, command: list[str]) -> None:
    one, fleet = tmp_path / "one.yaml", tmp_path / "fleet.yaml"
    service = {"tools": [{"name": "Crop"}], "host": "0.0.0.0"}
    one.write_text(yaml.safe_dump(service))
    fleet.write_text(yaml.safe_dump({"services": [{"name": "crop", **service}]}))
    command = [{"FILE": str(one), "FLEET": str(fleet)}.get(word, word) for word in command]
    done = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", *command], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "no keys are set" in done.stdout + done.stderr
    assert Variable.API_KEY in (done.stdout + done.stderr).replace("\n", "")


def every_plan(tmp_path: Path) -> dict[str, Plan]:
    """What may be started from files that say nothing of keys."""
    service = {"name": "crop", "tools": [{"name": "Crop"}], "host": "0.0.0.0"}
    original = tmp_path / "all_service.yaml"
    worker = {"OCR": {"cmd": {"script-addr": "ocr_worker", "port": 20009, "host": "0.0.0.0"}}}
    controller = {"cmd": {"port": 20001, "host": "0.0.0.0"}}
    original.write_text(yaml.safe_dump({"controller_config": controller, "tool_worker_config": [worker]}))
    imported = read_openthinkimg(original)
    quiet = with_gateway(on_this_machine_unless_guarded(imported, None, False), tmp_path)
    opened = with_gateway(on_this_machine_unless_guarded(imported, None, True), tmp_path, allow_anonymous=True)
    keyed = with_gateway(on_this_machine_unless_guarded(imported, Path("k"), False), tmp_path, keys_file=Path("k"))
    behind = with_gateway(Plan(parse_fleet({"services": [service]}).specs(), gateway={}), tmp_path)
    tool = VisionTool.model_validate({"metadata": {"name": "crop"}, "spec": {"tool": "Crop"}}, by_alias=True)
    return {
        "imported": quiet,
        "imported, for everybody": opened,
        "imported, with keys": keyed,
        "behind a gateway": behind,
        "of a run": Plan(with_group_key([server_of(tool)])),
    }


def test_whatever_is_started_on_a_public_address_asks_for_a_key_or_was_told_not_to(tmp_path: Path) -> None:
    for name, plan in every_plan(tmp_path).items():
        for server in plan.servers:
            config = server.config
            has_key = config.keys_file is not None if isinstance(config, GatewayConfig) else bool(server.api_key)
            assert is_loopback(config.host) or has_key or config.allow_anonymous, (name, server.name)
            if not isinstance(config, GatewayConfig):
                assert has_key, (name, server.name)


def test_a_gateway_in_a_file_is_held_to_the_same_rule() -> None:
    with pytest.raises(UserError, match="no keys are set"):
        parse_config({"servers": [{"url": "http://127.0.0.1:1"}], "host": "0.0.0.0"})


@pytest.mark.slow
def test_a_group_has_one_key_that_its_own_program_knows(tmp_path: Path) -> None:
    entries = with_group_key([spec("one", "echo"), spec("two", "echo"), spec("own", "echo", api_key="mine")])
    with Supervisor(entries, tmp_path, ready_seconds=240) as supervisor:
        keys = supervisor.keys
        one, two, own = (keys[url] for url in supervisor.endpoints)
        assert one == two != own == "mine"
        for url, key in keys.items():
            assert httpx.get(f"{url}/v1/tools").status_code == 401
            assert httpx.get(f"{url}/v1/tools", headers={"authorization": f"Bearer {key}"}).status_code == 200
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if one in path.read_text()]


def test_the_environments_key_is_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Variable.API_KEY, "theirs\n")
    (entry,) = with_group_key([ServerSpec("one", served())])
    assert entry.api_key == "theirs"
    assert entry.config.secrets == {}


def test_a_page_in_a_browser_may_not_call_a_server_of_this_machine(sample_url: str) -> None:
    def status(**headers: str) -> int:
        body = {"arguments": {"text": "a"}}
        return httpx.post(f"{sample_url}/v1/tools/Echo", json=body, headers=headers).status_code

    assert status() == 200
    assert status(host=f"localhost:{sample_url.rpartition(':')[2]}") == 200
    assert status(host="evil.example") == 403
    assert status(host="127.0.0.1.evil.example:80") == 403
    assert status(origin="http://evil.example") == 403
    assert status(origin="null") == 403
    assert status(origin=sample_url) == 200
    for path in ("/v1/tools", "/metrics", f"/v1/images/{'0' * 64}"):
        answer = httpx.get(sample_url + path, headers={"host": "evil.example"})
        assert answer.status_code == 403, path
    assert httpx.get(f"{sample_url}/livez", headers={"host": "evil.example"}).status_code == 200, "a probe"


def test_a_public_server_is_called_by_any_name_and_by_no_page(start: Start) -> None:
    key = secrets.token_hex()
    url = start(spec("public", "echo", host="0.0.0.0", api_key=key)).endpoints[0]
    port = url.rpartition(":")[2]
    given = {"authorization": f"Bearer {key}", "host": f"tools.example:{port}"}
    assert httpx.get(f"http://127.0.0.1:{port}/v1/tools", headers=given).status_code == 200
    other = {**given, "origin": "http://evil.example"}
    assert httpx.get(f"http://127.0.0.1:{port}/v1/tools", headers=other).status_code == 403
    assert os.environ.get(Variable.API_KEY) is None
