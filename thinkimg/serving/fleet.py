"""`Fleet`: the file of `thinkimg up`, which starts many servers, each as a process of its own."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from thinkimg.api import ManifestError, check_local, load_manifest, read_yaml
from thinkimg.errors import ModelError, UserError
from thinkimg.serving.config import ServerConfig, first_fault
from thinkimg.serving.supervisor import ServerSpec
from thinkimg.serving.vision_tools import server_of
from thinkimg.tools.registry import backends_here, find_tool, own_tools

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


class ServiceEntry(ServerConfig):
    """One service: what `ServerConfig` says of each of its processes, and how many there are.

    Attributes:
        name: names the log file.
        port: of the first process; the others take the following ones. 0: free ones.
        replicas: processes that serve the same tools.
        devices: `CUDA_VISIBLE_DEVICES` of each process: `"0"`, `"0,1"`, `""` for none. A list has an entry per replica.
        env: further environment variables.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]{0,62}$")
    replicas: int = Field(default=1, ge=1, le=256)
    devices: str | list[str] | None = None
    env: dict[str, str] = Field(default_factory=dict)

    @field_validator("devices", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML reads `0` as a number, and so do people."""
        if isinstance(value, list):
            return [str(item) if isinstance(item, int) else item for item in value]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits(self) -> "ServiceEntry":
        if isinstance(self.devices, list) and len(self.devices) != self.replicas:
            raise ValueError(f"`devices` lists {len(self.devices)} for {self.replicas} replicas; one each, or one text")
        if self.port and self.port + self.replicas - 1 > 65535:
            raise ValueError(f"the ports from {self.port} on do not suffice for {self.replicas} replicas")
        return self

    def specs(self) -> list[ServerSpec]:
        """One per process: NAME, or NAME-1, NAME-2 …"""
        config = ServerConfig.model_validate({name: getattr(self, name) for name in ServerConfig.model_fields})
        found = []
        for number in range(self.replicas):
            name = self.name if self.replicas == 1 else f"{self.name}-{number + 1}"
            devices = self.devices[number] if isinstance(self.devices, list) else self.devices
            env = self.env if devices is None else {**self.env, DEVICES_VARIABLE: devices}
            own = config.model_copy(update={"port": self.port + number if self.port else 0})
            found.append(ServerSpec(name, own, env))
        return found


class Fleet(BaseModel):
    """All services of one file.

    Attributes:
        gateway: one address before all of them: fields of `thinkimg.gateway.config.GatewayConfig` but `servers`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    services: list[ServiceEntry] = Field(min_length=1)
    gateway: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _apart(self) -> "Fleet":
        names = Counter(spec.name for spec in self.specs())
        ports = Counter(spec.config.port for spec in self.specs() if spec.config.port)
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"services need different names; twice there: {', '.join(twice)}")
        if taken := [str(port) for port, times in ports.items() if times > 1]:
            raise ValueError(f"services need different ports; twice there: {', '.join(taken)}")
        return self

    def specs(self) -> list[ServerSpec]:
        return [spec for service in self.services for spec in service.specs()]


@dataclass(frozen=True)
class Plan:
    """What a file says to start.

    Attributes:
        notes: what of the file has no effect, or another than one might think.
        gateway: see `Fleet`.
    """

    servers: list[ServerSpec]
    notes: list[str] = field(default_factory=list)
    gateway: Mapping[str, Any] | None = None


def read_fleet(path: Path, secrets: Path | None = None) -> Plan:
    """What to start for a file: a `Fleet`, or a manifest with `VisionTool`s.

    Args:
        secrets: where a manifest's secrets are files, `NAME/KEY`.

    Raises:
        UserError, ManifestError: the file cannot be read or is wrong; the field is named.
    """
    try:
        documents = [document for document in read_yaml(path) if document]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", str(path)) from error
    if any(isinstance(document, dict) and "apiVersion" in document for document in documents):
        return _manifest(path, secrets)
    if len(documents) != 1:
        raise UserError(f"it has {len(documents)} documents; one with `services` is expected", str(path))
    if isinstance(documents[0], dict) and "tool_worker_config" in documents[0]:
        raise UserError("this is a service file of OpenThinkIMG: start it with --from-openthinkimg", str(path))
    fleet = parse_fleet(documents[0])
    return Plan(fleet.specs(), gateway=fleet.gateway)


def parse_fleet(document: Any) -> Fleet:
    """Raises `UserError` with the path of the first field that is wrong; tools and backends are checked, too."""
    try:
        fleet = Fleet.model_validate(document)
    except ValidationError as error:
        raise first_fault(error) from error
    for number, service in enumerate(fleet.services):
        for index, entry in enumerate(service.tools):
            if entry.name is not None:
                _check_tool(entry.name, entry.backend, f"services[{number}].tools[{index}]")
    return fleet


def _check_tool(name: str, backend: str | None, path: str) -> None:
    """What a server would refuse a moment later, before any is started."""
    try:
        declaration = find_tool(name)
    except ModelError as error:  # the registry speaks to models; here a user has misspelt the name
        raise UserError(str(error), f"{path}.name") from error
    if backend is not None and backend not in declaration.backends:
        known = ", ".join(declaration.backends)
        raise UserError(f"{declaration.name} has no backend {backend!r}; known: {known}", f"{path}.backend")


def _manifest(path: Path, secrets: Path | None) -> Plan:
    manifest = load_manifest(path, own_tools())
    notes = [f"ToolRLJob/{job.name} is passed over: `thinkimg run` runs jobs" for job in manifest.jobs]
    manifest.jobs.clear()
    if not manifest.tools:
        raise UserError("it has no VisionTool", str(path))
    named = {tool.spec.tool for tool in manifest.tools.values()}
    found = check_local(manifest, available_tools=backends_here(named), secrets_dir=secrets)
    if found.problems:
        raise ManifestError(found.problems, manifest.source)
    servers = [server_of(tool, secrets) for tool in manifest.tools.values()]
    return Plan(servers, [*notes, *map(str, found.warnings)])
