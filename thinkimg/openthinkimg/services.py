"""OpenThinkIMG's service file (`all_service.yaml`): its workers as tool servers, its controller as a gateway.

Its file lists a controller and workers; a worker is a script with flags and a place on a SLURM cluster. What is known
of it, from the project's own launchers: `cmd.script-addr` is a file or a module, `cmd.port` and `cmd.host` where it
listens, `cuda_visible_devices` its GPUs, `cmd.limit-model-concurrency` how many calls it takes at one time. The gateway
takes the controller's port, so that the original's clients find the tools where they look for them. Everything else
speaks of SLURM, conda or one worker's own code; it is named and left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError
from thinkimg.serving.config import read_document
from thinkimg.serving.doors import LOOPBACK, is_loopback
from thinkimg.serving.fleet import Plan, parse_fleet
from thinkimg.tools.registry import TOOLS
from thinkimg.tools.tool import normalise_name

_TOOL_OF_SCRIPT = {
    "molmopointworker": "Point",
    "pointworkerparallel": "Point",
    "samaroundpointworker": "SegmentRegionAroundPoint",
    "drawhorizontallinebyyworker": "DrawHorizontalLineByY",
    "drawverticallinebyxworker": "DrawVerticalLineByX",
    "selectsubplotworker": "ZoominSubplot",
    "zoominsubfigureworker": "ZoominSubplot",
    "ocrworker": "OCR",
    "groundingdinoworker": "GroundingDINO",
    "samworker": "SAM",
    "groundedsamworker": "GroundedSAM",
    "cropworker": "Crop",
    "drawlineworker": "DrawLine",
}
"""Script, spelt by `normalise_name` -> our tool. Names of workers are the user's to choose; scripts are not."""
_HONOURED = {"worker_name", "cuda_visible_devices", "cmd"}
_HONOURED_FLAGS = {"script-addr", "port", "host", "limit-model-concurrency"}
_HONOURED_TOP = {"controller_config", "tool_worker_config"}
_CONTROLLER_PORT = 20001
_IGNORED = "ignored, for they speak of OpenThinkIMG's scheduler, environments or own worker code"
_MOVED = f"workers listen on {LOOPBACK}, with a key that only the gateway knows, for callers come by the gateway"


def read_openthinkimg(path: Path) -> Plan:
    """What to start for such a file, and a sentence for each thing in it that has no effect here.

    Raises:
        UserError: the file cannot be read, is no such file, or names workers that have no tool here.
    """
    document = read_document(path)
    if not isinstance(document, dict) or not isinstance(document.get("tool_worker_config"), list):
        raise UserError("it has no list `tool_worker_config`: this is no service file of OpenThinkIMG", str(path))
    ignored = [str(key) for key in document if key not in _HONOURED_TOP]
    services, moved = [], []
    for number, (key, worker) in enumerate(_workers(document["tool_worker_config"])):
        where = f"tool_worker_config[{number}].{key}"
        services.append(_service(key, worker, where))
        if document.get("controller_config") and not is_loopback(services[-1].get("host", LOOPBACK)):
            moved.append(f"{where}.cmd.host")
            services[-1]["host"] = LOOPBACK
        ignored += _without_effect(worker, where)
    gateway = _gateway(document.get("controller_config"))
    if gateway is not None:
        ignored += _without_effect(document["controller_config"], "controller_config")
    fleet = parse_fleet({"services": services, "gateway": gateway})
    notes = [f"{_IGNORED}: {', '.join(ignored)}"] if ignored else []
    notes += [f"{_MOVED}: {', '.join(moved)}"] if moved else []
    return Plan(fleet.specs(), notes, fleet.gateway)


def _workers(entries: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or len(entry) != 1:
            raise UserError("a worker is a mapping with one key, its name", f"tool_worker_config[{number}]")
        ((key, worker),) = entry.items()
        if not isinstance(worker, dict) or not isinstance(worker.get("cmd"), dict):
            raise UserError("a worker has a mapping `cmd`", f"tool_worker_config[{number}].{key}")
        yield str(key), worker


def _without_effect(entry: dict[str, Any], where: str) -> list[str]:
    """Paths of what is not read."""
    keys = [f"{where}.{name}" for name in entry if name not in _HONOURED]
    return keys + [f"{where}.cmd.{flag}" for flag in entry.get("cmd", {}) if flag not in _HONOURED_FLAGS]


def _gateway(controller: Any) -> dict[str, Any] | None:
    """In the controller's place, if there is one. Like it, it needs no key; so it serves this machine only, until it is
    given keys, or told that everybody may call."""
    if not controller:
        return None
    if not isinstance(controller, dict) or not isinstance(controller.get("cmd", {}), dict):
        raise UserError("it is a mapping with a mapping `cmd`", "controller_config")
    command = controller.get("cmd", {})
    return {"port": command.get("port", _CONTROLLER_PORT), "host": command.get("host", LOOPBACK)}


def _service(key: str, worker: dict[str, Any], where: str) -> dict[str, Any]:
    command = worker["cmd"]
    service: dict[str, Any] = {
        "name": re.sub(r"[^\w.-]", "-", str(worker.get("worker_name", key))),
        "tools": [{"name": _tool(str(command.get("script-addr", "")), key, where)}],
    }
    for ours, theirs in (("host", "host"), ("port", "port"), ("workers", "limit-model-concurrency")):
        if command.get(theirs) is not None:
            service[ours] = command[theirs]
    if worker.get("cuda_visible_devices") is not None:
        service["devices"] = worker["cuda_visible_devices"]
    return service


def _tool(script: str, key: str, where: str) -> str:
    stem = script.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    known = _TOOL_OF_SCRIPT.get(normalise_name(stem))
    if known in TOOLS:
        return str(known)
    raise UserError(
        f"there is no tool for the worker {key} (script {script or 'not named'}); remove it from the file. "
        f"Scripts that are known: {', '.join(sorted(_TOOL_OF_SCRIPT))}",
        f"{where}.cmd.script-addr",
    )
