"""The models that callers may name: those of the configuration's endpoints, and any other `ChatModel`."""

from dataclasses import dataclass

from thinkimg.agent.formats import Format, get_format
from thinkimg.agent.prompts import Style
from thinkimg.gateway.config import Upstream
from thinkimg.gateway.core import secret
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import ChatModel


@dataclass(frozen=True)
class ServedModel:
    """A model that callers may name.

    Attributes:
        tools: names of those that it is offered; None: all.
    """

    name: str
    model: ChatModel
    format: Format
    prompt: Style = "full"
    tools: tuple[str, ...] | None = None


def upstream_model(upstream: Upstream, seconds: float) -> ServedModel:
    """Raises `UserError` for a wrong address or a key's variable that is not set."""
    model = ApiModel(
        upstream.base_url,
        upstream.model or upstream.name,
        secret(upstream.api_key_variable),
        timeout_seconds=seconds,
        max_concurrency=1024,  # the gateway bounds what is under way
        extra=upstream.extra,
    )
    return ServedModel(upstream.name, model, get_format(upstream.format), tools=upstream.tools)
