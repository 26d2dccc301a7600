"""Configuration of a gateway."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from thinkimg.errors import UserError
from thinkimg.image import MAX_BYTES, MAX_PIXELS
from thinkimg.serving.config import ProcessConfig, first_fault, read_document


class ToolServer(BaseModel):
    """Where tools are served.

    Attributes:
        url: `http://host:port`. Servers of the same tool are its replicas.
        api_key_variable: name of the environment variable that holds the server's key, if it wants one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    api_key_variable: str | None = None


class Upstream(BaseModel):
    """A model behind `POST /v1/chat/completions`.

    Attributes:
        name: what callers write as `model`.
        base_url: an OpenAI-compatible endpoint, up to and without `/chat/completions`.
        model: the endpoint's name of the model; None: the same as `name`.
        api_key_variable: name of the environment variable that holds the endpoint's key.
        format: the syntax in which the model writes calls.
        tools: the tools that it is offered; None: all.
        extra: further fields of each request, stronger than ours; null leaves one out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    base_url: str
    model: str | None = None
    api_key_variable: str | None = None
    format: Literal["openthinkimg", "hermes"] = "openthinkimg"
    tools: tuple[str, ...] | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Limits(BaseModel):
    """What a caller may ask for, at most.

    Attributes:
        body_bytes: of one request.
        pending_bytes: of the bodies of all requests together that are under way; more are answered 429.
        client_seconds: how long a caller may take to send its headers, to send a body, or to take an answer.
        image_bytes, image_pixels: of one picture.
        images: pictures in one request.
        tool_seconds, chat_seconds: until a tool call, or a whole chat completion with its tools, is given up.
        in_flight: requests under way, of all callers together; more are answered 429.
        held_bytes: memory for pictures that callers have sent or tools have made, least recently used out first.
        rounds: how often the model may speak in one chat completion.
        tokens_per_turn: new tokens of one turn of the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes: int = Field(default=2 * MAX_BYTES + MAX_BYTES // 2 + 1024 * 1024, ge=1024)
    pending_bytes: int = Field(default=1024 * 1024 * 1024, ge=1)
    client_seconds: float = Field(default=60, gt=0)
    image_bytes: int = Field(default=MAX_BYTES, ge=1)
    image_pixels: int = Field(default=MAX_PIXELS, ge=1)
    images: int = Field(default=32, ge=1)
    tool_seconds: float = Field(default=60, gt=0)
    chat_seconds: float = Field(default=600, gt=0)
    in_flight: int = Field(default=256, ge=1)
    held_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    rounds: int = Field(default=6, ge=1)
    tokens_per_turn: int = Field(default=2048, ge=1)


class GatewayConfig(ProcessConfig):
    """One gateway.

    Attributes:
        servers: of tools.
        models: for chat completions; none: the endpoint says that there are none.
        keys_file: the file that `thinkimg gateway keys` writes. With it, every call needs one of its keys.
        allow_anonymous: serve a public interface without keys. Otherwise that is refused.
        public_url: how callers reach this gateway, if a proxy stands before it; addresses in replies start with it.
        image_hosts: hosts (`host` or `host:port`) from which pictures may be fetched for callers. None are by default.
        cors_origins: origins (`https://host`) whose web pages may call. None may by default.
        cache: keep results of tools in memory, by content.
    """

    servers: tuple[ToolServer, ...] = Field(min_length=1)
    models: tuple[Upstream, ...] = ()
    port: int = Field(default=8700, ge=0, le=65535)
    keys_file: Path | None = None
    allow_anonymous: bool = False
    public_url: str | None = None
    image_hosts: tuple[str, ...] = ()
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*]+$")], ...] = ()
    cache: bool = False
    limits: Limits = Field(default_factory=Limits)

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError(f"names must be unique, not {names}")
        return models

    @model_validator(mode="after")
    def _public_needs_keys(self) -> "GatewayConfig":
        if not is_loopback(self.host) and self.keys_file is None and not self.allow_anonymous:
            raise ValueError(
                f"{self.host} can be reached from other machines, and no keys are set: set keys_file "
                "(`thinkimg gateway keys add NAME --file FILE`), or allow_anonymous (`--allow-anonymous`) to let "
                "everybody call"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than `localhost` counts as public."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_config(path: Path, **overrides: Any) -> GatewayConfig:
    """Read a YAML or JSON file. `overrides` replace its fields.

    Raises:
        UserError: the file is missing or wrong; the field's path is named.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise UserError("must be a mapping with at least `servers`", str(path))
    if document.get("keys_file"):  # relative to the file that names it
        document["keys_file"] = path.parent / str(document["keys_file"])
    return parse_config({**document, **overrides})


def parse_config(document: Any) -> GatewayConfig:
    """Raises `UserError` with the path of the first field that is wrong."""
    try:
        return GatewayConfig.model_validate(document)
    except ValidationError as error:
        raise first_fault(error) from error
