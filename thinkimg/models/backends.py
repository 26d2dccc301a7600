"""A model by its name and its backend: `transformers` and `vllm` run in this process, `vllm-server` is `vllm serve`
asked in tokens, `openai` is any endpoint asked in messages."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from thinkimg.errors import UserError
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import ChatModel, Reply, SamplingParameters, TokenModel
from thinkimg.models.loading import NAMES as LOADING
from thinkimg.models.loading import loading_of
from thinkimg.models.reference import Endpoint, Model, Reader
from thinkimg.trajectory import Trajectory


@dataclass(frozen=True)
class Prices:
    """Of a million tokens, in whatever currency. Without them, what an endpoint itself says counts."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, reply: Reply) -> float:
        return (self.prompt * reply.prompt_tokens + self.completion * reply.completion_tokens) / 1e6 or reply.cost


@dataclass(frozen=True)
class Metered:
    """The model, with what each trajectory used kept in its `meta["usage"]`: `prompt_tokens`, `completion_tokens`,
    `cost`. So it is there after a resume, too."""

    model: ChatModel
    prices: Prices = Prices()

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        reply = await self.model.reply(trajectory, sampling, seed)
        usage = trajectory.meta.setdefault("usage", {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0})
        usage["prompt_tokens"] += reply.prompt_tokens
        usage["completion_tokens"] += reply.completion_tokens
        usage["cost"] += self.prices.of(reply)
        return reply


@dataclass(frozen=True)
class Stopped:
    """The model, its replies read up to the text `stop`."""

    model: ChatModel
    stop: str

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        reply = await self.model.reply(trajectory, sampling, seed)
        before, found, _ = reply.text.partition(self.stop)
        return replace(reply, text=before, finish="stop") if found else reply


def find_model(
    written: str, backend: str | None = None, options: Mapping[str, Any] = MappingProxyType({}), field: str = "--model"
) -> Model:
    """What `written` means for a backend: `thinkimg.models.reference`, and of `openai` with `base_url` the endpoint's
    own name of the model.

    Raises:
        UserError: there is no such backend; the name means nothing here.
    """
    if backend is not None and backend not in BACKENDS:
        raise UserError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}", "--backend")
    if backend == OPENAI or (backend is None and "base_url" in options):
        if "base_url" in options:
            return Model(written, Endpoint(str(options["base_url"]), written))
        if "://" not in written:
            raise UserError(
                "openai needs the endpoint: --model-args base_url=https://host/v1, or --model https://host/v1#NAME",
                "--model-args",
            )
    given = {name: str(options[name]) for name in ("revision", "base") if options.get(name) is not None}
    return Reader(field, **given).read(written)  # type: ignore[arg-type]


def backend_of(model: Model, backend: str | None) -> str:
    """The one that was asked for, else `openai` for an endpoint and `transformers` for weights."""
    return backend or (OPENAI if isinstance(model.source, Endpoint) else "transformers")


def make_model(
    model: Model, backend: str | None = None, options: Mapping[str, Any] = MappingProxyType({}), field: str = "--model"
) -> ChatModel:
    """Load a model, or find its endpoint.

    Args:
        options: of `openai`: `base_url`, `api_key_variable` (name of an environment variable), `retries`,
            `timeout_seconds`, `max_concurrency`, `requests_per_minute`, `extra`. Of the others: `revision`, `base` (of
            an adapter), `trust_remote_code`, `min_pixels`, `max_pixels`, `thinking`; and of `transformers` `max_batch`,
            of `vllm` what its engine takes, of `vllm-server` `base_url`, `api_key_variable`, `max_model_len`,
            `retries`, `timeout_seconds`, `max_concurrency`.

    Raises:
        UserError: no such option; nothing loadable.
    """
    return BACKENDS[backend_of(model, backend)](model, dict(options), field)


def model_of(options: Mapping[str, Any], backend: str | None, field: str) -> tuple[Model, ChatModel]:
    """A model that options name all by themselves: `model`, and what `make_model` takes.

    Raises:
        UserError: none is named, or see `find_model` and `make_model`.
    """
    arguments = dict(options)
    written = str(arguments.pop("model", "") or "")
    if not written:
        raise UserError("needs model=…: a folder, the hub's name, or https://host/v1#NAME", field)
    model = find_model(written, backend, arguments, field)
    return model, make_model(model, backend, arguments, field)


def _openai(model: Model, options: dict[str, Any], field: str) -> ChatModel:
    if not isinstance(model.source, Endpoint):
        raise UserError(f"{model.source} is no endpoint; write https://host/v1#NAME, or take another backend", field)
    return endpoint_model(model.source, _key(options, "OPENAI_API_KEY"), options)


def endpoint_model(source: Endpoint, api_key: str | None, options: Mapping[str, Any]) -> ApiModel:
    """Args:
        options: `base_url` (which the source has), `retries`, `timeout_seconds`, `max_concurrency`,
            `requests_per_minute`, `extra`.

    Raises:
        UserError: no such option, or a wrong address or key.
    """
    _refuse_unknown(options, {*_arguments(ApiModel, "model", "api_key"), "api_key_variable"}, OPENAI)
    return ApiModel(**(dict(options) | {"base_url": source.base_url, "model": source.name, "api_key": api_key}))


def _transformers(model: Model, options: dict[str, Any], field: str) -> ChatModel:
    from thinkimg.models.pretrained import load_model

    _refuse_unknown(options, {*LOADING, "max_batch"}, "transformers")
    loaded = load_model(model, loading_of(options, field))
    if "max_batch" in options:
        loaded.chat.generator.max_batch = int(options["max_batch"])  # type: ignore[attr-defined]
    return loaded.chat


def _vllm(model: Model, options: dict[str, Any], field: str) -> ChatModel:
    from thinkimg.models.vllm.loading import load_model

    return load_model(model, loading_of(options, field), **_without_loading(options))


def _vllm_server(model: Model, options: dict[str, Any], field: str) -> ChatModel:
    """Configuration and processor of the model are needed here, its weights are not."""
    from thinkimg.models.families import family_of
    from thinkimg.models.pretrained import load_processor
    from thinkimg.models.vllm.server import VLLMServerGenerator

    known = _arguments(VLLMServerGenerator, "family", "api_key")
    _refuse_unknown(options, {*LOADING, *known, "api_key_variable"}, "vllm-server")
    if "base_url" not in options:
        raise UserError("vllm-server needs its address: --model-args base_url=http://host:8000", "--model-args")
    key = _key(options, "VLLM_API_KEY")
    how = loading_of(options, field)
    config, processor = load_processor(model, how)
    family = family_of(config.model_type, processor, field, how.thinks(model))
    return TokenModel(family, VLLMServerGenerator(family, api_key=key, **_without_loading(options)))


def _without_loading(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in LOADING}


def _key(options: dict[str, Any], default: str) -> str | None:
    variable = options.pop("api_key_variable", None)
    if variable is not None and variable not in os.environ:
        raise UserError(f"the environment variable {variable} is not set", "--model-args api_key_variable")
    return os.environ.get(variable or default)


def _arguments(kind: Any, *without: str) -> set[str]:
    return {field.name for field in fields(kind) if field.init} - set(without)


def _refuse_unknown(options: Mapping[str, Any], known: set[str], backend: str) -> None:
    if unknown := sorted(options.keys() - known):
        raise UserError(f"{backend} has no {unknown[0]!r}; it has {', '.join(sorted(known))}", "--model-args")


OPENAI = "openai"
BACKENDS = {"transformers": _transformers, "openai": _openai, "vllm": _vllm, "vllm-server": _vllm_server}
