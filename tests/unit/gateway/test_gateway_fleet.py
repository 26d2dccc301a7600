"""The section `gateway` of a file of `thinkimg up`; what is started from it is tested with the guide."""

from pathlib import Path
from typing import Any

import pytest

from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.gateway.config import GatewayConfig
from thinkimg.gateway.fleet import on_this_machine_unless_guarded, with_gateway
from thinkimg.serving.fleet import Plan, parse_fleet


def plan(gateway: dict[str, Any] | None, **service: Any) -> Plan:
    services = [{"name": "crop", "tools": [{"name": "Crop"}], "replicas": 2, **service}]
    fleet = parse_fleet({"services": services, "gateway": gateway})
    return Plan(fleet.specs(), ["a note"], fleet.gateway)


def config_of(found: Plan) -> GatewayConfig:
    config = found.servers[-1].config
    assert isinstance(config, GatewayConfig)
    return config


def test_the_gateway_knows_every_server_by_a_port_of_its_own() -> None:
    found = with_gateway(plan({"port": 0}), Path())
    one, two, gateway = found.servers
    assert [server.url for server in config_of(found).servers] == [
        f"http://127.0.0.1:{one.config.port}",
        f"http://127.0.0.1:{two.config.port}",
    ]
    assert 0 not in (one.config.port, two.config.port)
    assert one.config.port != two.config.port
    assert (gateway.name, gateway.module, found.notes) == ("gateway", "thinkimg.gateway", ["a note"])


def test_ports_that_the_file_names_stay() -> None:
    found = with_gateway(plan({}, port=9000, host="0.0.0.0"), Path())
    assert [server.url for server in config_of(found).servers] == ["http://127.0.0.1:9000", "http://127.0.0.1:9001"]


def test_keys_of_servers_reach_the_gateway_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_gateway(plan({}, api_key="secret"), Path())
    names = [server.api_key_variable for server in config_of(found).servers]
    assert [found.servers[-1].env[str(name)] for name in names] == ["secret", "secret"]
    assert "secret" not in config_of(found).model_dump_json()
    monkeypatch.setenv(Variable.API_KEY, "of all")
    inherited = with_gateway(plan({}), Path())
    assert set(inherited.servers[-1].env.values()) == {"of all"}


def test_servers_behind_a_gateway_have_a_key_that_nobody_else_knows() -> None:
    found = [with_gateway(plan({}, host="0.0.0.0", port=9000), Path()) for _ in range(2)]
    keys = [{server.api_key for server in one.servers[:-1]} for one in found]
    assert [len(key) for key in keys] == [1, 1]
    assert len(keys[0] | keys[1]) == 2
    assert min(len(key) for key in keys[0] | keys[1]) >= 32
    assert set(found[0].servers[-1].env.values()) == keys[0]
    assert keys[0].isdisjoint(config_of(found[0]).model_dump_json())
    anonymous = with_gateway(plan({}, allow_anonymous=True), Path())
    assert {server.api_key for server in anonymous.servers} == {""}, "who says that everybody may call is heard"


def test_the_file_of_keys_lies_beside_the_file_unless_the_command_line_says_another(tmp_path: Path) -> None:
    settings = {"host": "0.0.0.0", "keys_file": "keys.json"}
    assert config_of(with_gateway(plan(settings), tmp_path)).keys_file == tmp_path / "keys.json"
    other = tmp_path / "other.json"
    assert config_of(with_gateway(plan(settings), tmp_path, keys_file=other)).keys_file == other


@pytest.mark.parametrize(
    ("gateway", "field"),
    [
        ({"limits": {"rounds": 0}}, "gateway.limits.rounds"),
        ({"servers": []}, "gateway.servers"),
        ({"host": "0.0.0.0"}, "gateway"),
        (None, "--keys-file"),
    ],
)
def test_the_wrong_field_is_named(gateway: dict[str, Any] | None, field: str) -> None:
    with pytest.raises(UserError) as caught:
        with_gateway(plan(gateway), Path(), keys_file=None if gateway else Path("k.json"))
    assert caught.value.field == field


def test_without_a_gateway_nothing_changes() -> None:
    bare = plan(None)
    assert with_gateway(bare, Path()) is bare


def test_an_imported_controller_serves_this_machine_until_it_is_guarded_or_opened() -> None:
    public = plan({"host": "0.0.0.0", "port": 20001})
    quiet = on_this_machine_unless_guarded(public, None, False)
    assert config_of(with_gateway(quiet, Path())).host == "127.0.0.1"
    assert "--allow-anonymous" in quiet.notes[-1]
    assert on_this_machine_unless_guarded(public, Path("k.json"), False) is public
    opened = with_gateway(on_this_machine_unless_guarded(public, None, True), Path(), allow_anonymous=True)
    assert (config_of(opened).host, config_of(opened).port) == ("0.0.0.0", 20001)
