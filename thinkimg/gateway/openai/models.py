"""The models that callers may name: those of the configuration's endpoints, and any other `ChatModel`."""

import logging
from dataclasses import dataclass

from thinkimg.agent.formats import Format, get_format
from thinkimg.agent.prompts import Style
from thinkimg.gateway.config import Upstream
from thinkimg.gateway.core import secret
from thinkimg.models.backends import OPENAI, endpoint_model, find_model, make_model
from thinkimg.models.chat import ChatModel
from thinkimg.models.reference import Endpoint
from thinkimg.models.trained import asking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model that callers may name.

    Attributes:
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
    )
