"""Configuration of a gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.image import MAX_BYTES, MAX_PIXELS
from thinkimg.models.reference import absolute
from thinkimg.serving.config import ProcessConfig, first_fault, read_document
from thinkimg.serving.doors import open_door
from thinkimg.serving.memory import at_most

_MIB = 1024 * 1024
_BODY_BYTES = 2 * MAX_BYTES + MAX_BYTES // 2 + _MIB
"""Room for two of the largest pictures, in base64 for one of them."""


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
        base_url: an OpenAI-compatible endpoint, up to and without `/chat/completions`; of the backend `vllm-server` its
            address. None: `model` says where the model is.
        model: with `base_url` the endpoint's name of the model, else a model as `thinkimg.models.reference` reads it (a
            stage of a run, a folder, the hub's name, `https://host/v1#NAME`), relative to the file. None: as `name`.
        backend: None: `openai` for an endpoint, else `transformers`, in this process.
        model_args: of the backend, as in `thinkimg eval`.
        api_key_variable: name of the environment variable that holds the endpoint's key.
        format, prompt: the syntax in which the model writes calls, and the wording of its system prompt; None: as it
            was trained, else openthinkimg and full.
        tools: the tools that it is offered; None: those that it was trained with, all if that is not known.
        extra: further fields of each request to an endpoint, stronger than ours; null leaves one out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    base_url: str | None = None
    model: str | None = None
    backend: Literal["openai", "transformers", "vllm", "vllm-server"] | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    api_key_variable: str | None = None
    format: Literal["openthinkimg", "hermes"] | None = None
    prompt: Literal["full", "compact"] | None = None
    tools: tuple[str, ...] | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_endpoint(self) -> bool:
        """Whether `base_url` alone says where the model is."""
        return self.base_url is not None and self.backend in (None, "openai")

    @property
    def needed(self) -> set[str]:
        """Names of the variables that are read for it: an endpoint's key, and the hub's token for what is none."""
        named = (self.api_key_variable, self.model_args.get("api_key_variable"))
        needed = {name for name in named if isinstance(name, str)}
        if not self.is_endpoint:
            needed.add(Variable.HUB_TOKEN)
        if self.backend == "vllm-server" and not needed - {Variable.HUB_TOKEN}:
            needed.add("VLLM_API_KEY")
        return needed


class Limits(BaseModel):
    """What a caller may ask for, at most.

    Attributes:
        body_bytes: of one request. Of these all but the pictures is small: see `thinkimg.amounts`. An eighth of the
            container's memory at most, where there is a limit; of `pending_bytes` and `held_bytes` a quarter.
        pending_bytes: of the bodies of all requests together that are under way; more are answered 429.
        client_seconds: how long a caller may take to send its headers, to send a body, or to take an answer.
        image_bytes, image_pixels: of one picture.
        images: pictures in one request.
        tool_seconds, chat_seconds: until a tool call, or a whole chat completion with its tools, is given up.
        in_flight: requests under way, of all callers together; more are answered 429. Of these and of `pending_bytes` a
            key has a share: all, where it is the only one, down to a quarter, where there are four keys or more.
        requests_per_minute: of one key, unless the key says another number; a batch of twelve counts as twelve.
        sessions: of MCP, open at once, of one key; without keys, of all callers together.
        held_bytes: memory for pictures that callers have sent or tools have made; who holds most loses first.
        rounds: how often the model may speak in one chat completion.
        tokens_per_turn: new tokens of one turn of the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes: int = Field(default_factory=lambda: at_most(_BODY_BYTES, 1 / 8), ge=1024)
    pending_bytes: int = Field(default_factory=lambda: at_most(1024 * _MIB, 1 / 4), ge=1)
    client_seconds: float = Field(default=60, gt=0)
    image_bytes: int = Field(default=MAX_BYTES, ge=1)
    image_pixels: int = Field(default=MAX_PIXELS, ge=1)
    images: int = Field(default=32, ge=1)
    tool_seconds: float = Field(default=60, gt=0)
    chat_seconds: float = Field(default=600, gt=0)
    in_flight: int = Field(default=256, ge=1)
    requests_per_minute: int = Field(default=60_000, ge=1)
    sessions: int = Field(default=250, ge=1)
    held_bytes: int = Field(default_factory=lambda: at_most(512 * _MIB, 1 / 4), ge=0)
    rounds: int = Field(default=6, ge=1)
    tokens_per_turn: int = Field(default=2048, ge=1)


class GatewayConfig(ProcessConfig):
    """One gateway.

    Attributes:
        servers: of tools.
        models: for chat completions; none: the endpoint says that there are none.
        keys_file: the file that `thinkimg gateway keys` writes. With it, every call needs one of its keys.
        public_url: how callers reach this gateway, if a proxy stands before it; addresses in replies start with it.
        image_hosts: hosts (`host` or `host:port`) from which pictures may be fetched for callers. None are by default.
        cors_origins: origins (`https://host`) whose web pages may call. None may by default.
        cache: keep results of tools in memory, by content.
    """

    servers: tuple[ToolServer, ...] = Field(min_length=1)
    models: tuple[Upstream, ...] = ()
    port: int = Field(default=8700, ge=0, le=65535)
    keys_file: Path | None = None
    public_url: str | None = None
    image_hosts: tuple[str, ...] = ()
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*]+$")], ...] = ()
    cache: bool = False
    limits: Limits = Field(default_factory=Limits)

    @property
    def needed(self) -> set[str]:
        servers = {server.api_key_variable for server in self.servers if server.api_key_variable is not None}
        return servers.union(*(model.needed for model in self.models))

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError(f"names must be unique, not {names}")
        return models

    @model_validator(mode="after")
    def _public_needs_keys(self) -> "GatewayConfig":
        remedy = (
            "set keys_file (`thinkimg gateway keys add NAME --file FILE`), or allow_anonymous (`--allow-anonymous`) to "
            "let everybody call"
        )
        if problem := open_door(self.host, self.keys_file is not None or self.allow_anonymous, remedy):
            raise ValueError(problem)
        return self


def read_config(path: Path, **overrides: Any) -> GatewayConfig:
    """Read a YAML or JSON file. `overrides` replace its fields.

    Raises:
        UserError: the file is missing or wrong; the field's path is named.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise UserError("must be a mapping with at least `servers`", str(path))
    return parse_config({**below(document, path.parent), **overrides})


def below(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The document with its paths below `folder`, where the file is that names them."""
    found = dict(document)
    if found.get("keys_file"):
        found["keys_file"] = folder / str(found["keys_file"])
    models = found.get("models")
    if isinstance(models, list):
        found["models"] = [_model_below(model, folder) if isinstance(model, dict) else model for model in models]
    return found


def _model_below(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    if model.get("base_url") and model.get("backend") in (None, "openai"):
        return model
    written = model.get("model") or model.get("name")
    return {**model, "model": absolute(written, folder)} if isinstance(written, str) else model


def parse_config(document: Any) -> GatewayConfig:
    """Raises `UserError` with the path of the first field that is wrong."""
    try:
        return GatewayConfig.model_validate(document)
    except ValidationError as error:
        raise first_fault(error) from error
