"""A model by the name of its backend: `transformers`, `vllm` (both in this process) or `openai` (any endpoint)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from thinkimg.errors import UserError
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import ChatModel, Reply, SamplingParameters
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


def make_model(backend: str, model: str, options: Mapping[str, Any]) -> ChatModel:
    """Load a model, or find its endpoint.

    Args:
        model: a folder or the hub's name; of `openai`, the endpoint's name of the model.
        options: of `openai`: `base_url`, `api_key_variable` (name of an environment variable), `retries`,
            `timeout_seconds`, `max_concurrency`, `requests_per_minute`, `extra`; of `transformers`: `revision`,
            `trust_remote_code`, `max_batch`; of `vllm`: what its engine takes.

    Raises:
        UserError: no such backend or option; nothing loadable.
    """
    if backend not in _BACKENDS:
        raise UserError(f"there is no backend {backend!r}; there are {', '.join(_BACKENDS)}", "--backend")
    return _BACKENDS[backend](model, dict(options))


def _openai(model: str, options: dict[str, Any]) -> ChatModel:
    known = {field.name for field in fields(ApiModel) if field.init} - {"model", "api_key"}
    variable = options.pop("api_key_variable", None)
    _refuse_unknown(options, known | {"api_key_variable"}, "openai")
    if "base_url" not in options:
        raise UserError("openai needs the endpoint: --model-args base_url=https://host/v1", "--model-args")
    if variable is not None and variable not in os.environ:
        raise UserError(f"the environment variable {variable} is not set", "--model-args api_key_variable")
    return ApiModel(model=model, api_key=os.environ.get(variable or "OPENAI_API_KEY"), **options)


def _transformers(model: str, options: dict[str, Any]) -> ChatModel:
    _refuse_unknown(options, {"revision", "trust_remote_code", "max_batch"}, "transformers")
    from thinkimg.models.pretrained import load_model

    loaded = load_model(model, options.get("revision"), bool(options.get("trust_remote_code", False)))
    if "max_batch" in options:
        loaded.chat.generator.max_batch = int(options["max_batch"])  # type: ignore[attr-defined]
    return loaded.chat


def _vllm(model: str, options: dict[str, Any]) -> ChatModel:
    from thinkimg.models.vllm.loading import load_model

    return load_model(model, **options)


def _refuse_unknown(options: Mapping[str, Any], known: set[str], backend: str) -> None:
    if unknown := sorted(options.keys() - known):
        raise UserError(f"{backend} has no {unknown[0]!r}; it has {', '.join(sorted(known))}", "--model-args")


_BACKENDS = {"transformers": _transformers, "openai": _openai, "vllm": _vllm}
