"""The gateway of `thinkimg up`: one more process, before the tool servers of the same file."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError
from thinkimg.gateway.config import GatewayConfig, below, parse_config
from thinkimg.serving.doors import is_loopback
from thinkimg.serving.fleet import Plan
from thinkimg.serving.supervisor import ServerSpec, with_group_key

NAME = "gateway"


def with_gateway(plan: Plan, folder: Path, keys_file: Path | None = None, allow_anonymous: bool = False) -> Plan:
    """The same plan, its gateway as the last of the servers. Servers that would take a free port get one now, because
    the gateway must know their addresses; those that have no key get one, which the gateway alone knows.

    Args:
        folder: what the plan's `keys_file` is relative to.
        keys_file, allow_anonymous: stronger than the plan's.

    Raises:
        UserError: the gateway's settings are wrong; the field is named.
    """
    if plan.gateway is None:
        if keys_file or allow_anonymous:
            raise UserError("the file has no `gateway`, which keys would be for", "--keys-file")
        return plan
    if any(server.name == NAME for server in plan.servers):
        raise UserError(f"a service cannot be called {NAME!r} where there is a gateway", "services")
    settings = below(plan.gateway, folder.resolve())
    if keys_file:
        settings["keys_file"] = keys_file.resolve()
    if allow_anonymous:
        settings["allow_anonymous"] = True
    servers = with_group_key(_with_ports(plan.servers))
    config, environment = _configured(settings, servers)
    return Plan([*servers, ServerSpec(NAME, config, environment, "thinkimg.gateway")], plan.notes)


def without(gateway: ServerSpec, missing: Sequence[ServerSpec]) -> ServerSpec:
    """The same gateway, before fewer servers."""
    config = gateway.config
    assert isinstance(config, GatewayConfig)
    gone = {_address(server) for server in missing}
    kept = tuple(server for server in config.servers if server.url not in gone)
    return replace(gateway, config=config.model_copy(update={"servers": kept}))


def on_this_machine_unless_guarded(plan: Plan, keys_file: Path | None, allow_anonymous: bool) -> Plan:
    """For an imported file, which knows no keys: its gateway serves this machine, and a note says how to open it."""
    host = str((plan.gateway or {}).get("host", "127.0.0.1"))
    if is_loopback(host) or keys_file or allow_anonymous:
        return plan
    note = (
        f"controller_config.cmd.host: the gateway listens on 127.0.0.1, not on {host}, because no keys are set: give "
        "--keys-file FILE (`thinkimg gateway keys add NAME --file FILE`), or --allow-anonymous to let everybody call"
    )
    return replace(plan, gateway={**(plan.gateway or {}), "host": "127.0.0.1"}, notes=[*plan.notes, note])


def _configured(settings: Mapping[str, Any], servers: Sequence[ServerSpec]) -> tuple[GatewayConfig, dict[str, str]]:
    """And the environment variables that hold the servers' keys."""
    entries, environment = [], {}
    for number, server in enumerate(servers):
        entry = {"url": _address(server)}
        if server.api_key:
            entry["api_key_variable"] = variable = f"THINKIMG_SERVER_KEY_{number}"
            environment[variable] = server.api_key
        entries.append(entry)
    if "servers" in settings:
        raise UserError("the servers are those of `services`", "gateway.servers")
    try:
        return parse_config({**settings, "servers": entries}), environment
    except UserError as error:
        path = f"gateway.{error.field}" if error.field else "gateway"
        raise UserError(str(error).removeprefix(f"{error.field}: "), path) from error


def _address(server: ServerSpec) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.config.host, server.config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.config.port}"


def _with_ports(servers: Sequence[ServerSpec]) -> list[ServerSpec]:
    """Free a moment ago, all of them different. A port that is lost to somebody else until then is named as taken."""
    with ExitStack() as probes:
        found = []
        for server in servers:
            if server.config.port == 0:
                probe = probes.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                config = server.config.model_copy(update={"port": probe.getsockname()[1]})
                server = replace(server, config=config)
            found.append(server)
        return found
