"""Configuration of one tool server process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from thinkimg.api import Batching, read_yaml
from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.image import MAX_BYTES, MAX_PIXELS
from thinkimg.serving.handover import needed_by_tool
from thinkimg.serving.memory import at_most


def _batching(given: Any) -> Any:
    """The server's file says `max_wait_ms` for what a VisionTool calls `maxWaitMilliseconds`."""
    if isinstance(given, dict) and "max_wait_ms" in given:
        return {name: value for name, value in given.items() if name != "max_wait_ms"} | {
            "max_wait_milliseconds": given["max_wait_ms"]
        }
    return given


_MIB = 1024 * 1024


class ToolEntry(BaseModel):
    """One tool to serve: an installed one by `name`, or any other by `entry_point`.

    Attributes:
        name: of a built-in tool, or one that a package has registered in the entry point group `thinkimg.tools`.
        entry_point: `module:attribute` of a declaration made by `thinkimg.tools.tool.tool`, importable by the server.
        backend: None for the tool's default.
        options: the backend's own.
        batching: as in a VisionTool; of no effect for a tool that does not compute in batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    entry_point: str | None = None
    backend: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    batching: Annotated[Batching, BeforeValidator(_batching)] = Batching()

    @model_validator(mode="after")
    def _one_source(self) -> "ToolEntry":
        if (self.name is None) == (self.entry_point is None):
            raise ValueError("a tool needs either `name` (an installed tool) or `entry_point` (module:attribute)")
        return self

    @field_validator("entry_point")
    @classmethod
    def _module_and_attribute(cls, value: str | None) -> str | None:
        if value is not None and not all(part.strip() for part in (*value.split(":", 1), "")[:2]):
            raise ValueError("must be module:attribute")
        return value


class ProcessConfig(BaseModel):
    """What every server process has.

    Attributes:
        port: 0 takes a free one.
        allow_anonymous: serve an address that other machines reach without a key. Otherwise that is refused.
        drain_seconds: how long calls may still take after SIGTERM.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    allow_anonymous: bool = False
    drain_seconds: int = Field(default=30, ge=0)

    @property
    def secrets(self) -> dict[str, str]:
        """Environment variables by which the process is told what must be in no file."""
        return {}

    @property
    def needed(self) -> set[str]:
        """Names of the variables that the process reads for a secret; no other secret of its supervisor reaches it."""
        return set()


class ServerConfig(ProcessConfig):
    """One process that serves tools.

    Attributes:
        api_key: without it, calls are refused (but `/livez` and `/readyz`); None: the environment's
            `THINKIMG_TOOL_API_KEY`, and without that everybody may call.
        workers: threads that run tools.
        max_queue: calls that may wait for a thread; more are answered 429.
        max_image_bytes, max_image_pixels: limits of one picture.
        image_store_bytes: memory for pictures that clients have sent or tools have made, least recently used out first.
            Where the container's memory has a limit, a quarter of it at most, as of `max_pending_bytes`; of
            `decoded_bytes` a sixteenth.
        decoded_bytes: memory for decoded pictures, so that several calls decode one only once. It is the process's: of
            several services in one process the largest counts.
        max_pending_bytes: of all requests together that are being read or run; more are answered 429.
        client_seconds: how long a client may take to send its headers, to send a body, or to take an answer.
        default_timeout_seconds: of a call; its caller may ask for less.
    """

    tools: list[ToolEntry] = Field(min_length=1)
    api_key: SecretStr | None = None
    workers: int = Field(default=4, ge=1, le=256)
    max_queue: int = Field(default=256, ge=0)
    max_image_bytes: int = Field(default=MAX_BYTES, ge=1)
    max_image_pixels: int = Field(default=MAX_PIXELS, ge=1)
    image_store_bytes: int = Field(default_factory=lambda: at_most(512 * _MIB, 1 / 4), ge=0)
    decoded_bytes: int = Field(default_factory=lambda: at_most(64 * _MIB, 1 / 16), ge=0)
    max_pending_bytes: int = Field(default_factory=lambda: at_most(1024 * _MIB, 1 / 4), ge=1)
    client_seconds: float = Field(default=60, gt=0)
    default_timeout_seconds: float = Field(default=300, gt=0)

    @property
    def secrets(self) -> dict[str, str]:
        return {Variable.API_KEY: self.api_key.get_secret_value()} if self.api_key else {}

    @property
    def needed(self) -> set[str]:
        tools = [needed_by_tool(entry.name, entry.backend, entry.options) for entry in self.tools]
        return {Variable.API_KEY}.union(*tools)

    def key(self, environment: Mapping[str, str]) -> str:
        """What callers have to send to a server with this environment; empty: nothing."""
        given = self.api_key.get_secret_value() if self.api_key else environment.get(Variable.API_KEY, "")
        return given.strip()

    @property
    def max_body_bytes(self) -> int:
        """Of one request: room for two of the largest pictures, in base64 for one of them."""
        return 2 * self.max_image_bytes + self.max_image_bytes // 2 + 1024 * 1024


def read_config(path: Path, **overrides: Any) -> ServerConfig:
    """Read a YAML or JSON file. `overrides` replace its fields.

    Raises:
        UserError: the file is missing or wrong; the field's path is named.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise UserError("must be a mapping with at least `tools`", str(path))
    return parse_config({**document, **overrides})


def read_document(path: Path) -> Any:
    """What a YAML or JSON file holds. Raises `UserError` if it cannot be read."""
    try:
        document, *further = read_yaml(path) or [None]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", str(path)) from error
    if further:
        raise UserError("it has several documents; one is expected", str(path))
    return document


def parse_config(document: Any) -> ServerConfig:
    """Raises `UserError` with the path of the first field that is wrong."""
    try:
        return ServerConfig.model_validate(document)
    except ValidationError as error:
        raise first_fault(error) from error


def first_fault(error: ValidationError) -> UserError:
    """The first of pydantic's findings, with the path of its field as people write it."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return UserError(first["msg"].removeprefix("Value error, "), path)


def dump_config(config: ProcessConfig) -> str:
    """JSON for `read_config`, without secrets."""
    return json.dumps(config.model_dump(mode="json", exclude={"api_key"}), indent=2)
