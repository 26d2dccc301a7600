"""The models that callers may name: those of the configuration's endpoints, and any other `ChatModel`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from thinkimg.agent.formats import Format, get_format
from thinkimg.agent.prompts import Style
from thinkimg.gateway.config import Upstream
from thinkimg.gateway.core import secret
from thinkimg.gateway.openai.request import ChatRequest
from thinkimg.models.api import ApiModel
from thinkimg.models.backends import OPENAI, Metered, endpoint_model, find_model, make_model
from thinkimg.models.chat import ChatModel, ContextFull, Reply, SamplingParameters
from thinkimg.models.reference import Endpoint
from thinkimg.models.trained import asking
from thinkimg.trajectory import Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model that callers may name.

    Attributes:
        prompt, words: of its system prompt: see `thinkimg.agent.prompts`.
        tools: names of those that it is offered; None: all.
        rounds, tokens_per_turn: as it was trained; the gateway's limits hold as well.
    """

    name: str
    model: ChatModel
    format: Format
    prompt: Style = "full"
    tools: tuple[str, ...] | None = None
    rounds: int | None = None
    tokens_per_turn: int | None = None
    words: str | None = None


@dataclass(frozen=True)
class Asked:
    """A served model as one request asks it.

    Attributes:
        tokens: of all turns together; None: no limit but that of each turn. It counts what the model itself says that
            it wrote.
        extra: what only the model's own endpoint can honour.
    """

    model: Metered
    tokens: int | None
    extra: Mapping[str, Any]

    @classmethod
    def of(cls, asked: ChatRequest, served: ServedModel) -> "Asked":
        """Raises `Refusal` 400 naming a field that this model cannot honour."""
        if isinstance(served.model, ApiModel):
            asked.refuse_fixed(served.model.extra)
            return cls(Metered(served.model), asked.tokens, asked.forwarded)
        asked.refuse_for_local_models()
        return cls(Metered(served.model), asked.tokens, {})

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        if self.tokens is None:
            return await self.model.reply(trajectory, replace(sampling, extra=self.extra), seed)
        room = self.tokens - trajectory.meta.get("usage", {}).get("completion_tokens", 0)
        if room < 1:
            raise ContextFull(f"all {self.tokens} tokens that the caller allows are used")
        room = min(room, sampling.max_tokens)
        return await self.model.reply(trajectory, replace(sampling, max_tokens=room, extra=self._bounded(room)), seed)

    def _bounded(self, room: int) -> Mapping[str, Any]:
        """Some endpoints take the limit under its newer name, which the configuration's `extra` then has."""
        fixed = getattr(self.model.model, "extra", {}).get("max_completion_tokens")
        return self.extra if fixed is None else {**self.extra, "max_completion_tokens": min(fixed, room)}


def upstream_model(upstream: Upstream, seconds: float) -> ServedModel:
    """Raises `UserError` for a model that is not there, a wrong address, a key's variable that is not set."""
    field = f"models.{upstream.name}"
    options = dict(upstream.model_args)
    if upstream.base_url is not None:
        options["base_url"] = upstream.base_url
    written = upstream.model or upstream.name
    found = find_model(written, OPENAI if upstream.is_endpoint else upstream.backend, options, field)
    log.info("%s: %s", upstream.name, found)
    if isinstance(found.source, Endpoint):
        options = {
            "timeout_seconds": seconds,
            "max_concurrency": 1024,
            **options,
        }  # the gateway bounds what is under way
        options["extra"] = {**options.get("extra", {}), **upstream.extra}
        model: ChatModel = endpoint_model(found.source, secret(upstream.api_key_variable), options)
    else:
        if upstream.api_key_variable is not None:
            options["api_key_variable"] = upstream.api_key_variable
        model = make_model(found, upstream.backend, options, field)
    asked = asking(found.trained, format=upstream.format, prompt=upstream.prompt)
    trained = found.trained
    return ServedModel(
        upstream.name,
        model,
        get_format(asked.format),
        asked.prompt,
        upstream.tools if upstream.tools is not None or trained is None else trained.tool_names,
        trained.max_rounds if trained else None,
        trained.max_tokens if trained else None,
        asked.system_prompt,
    )
