"""What a model needs around it before it can be asked here: its tools as servers, and a preset made."""

import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from thinkimg.agent.tools import NoTools, Tools, only
from thinkimg.api import CUSTOM
from thinkimg.client import PATIENCE, ResultCache, ToolClient
from thinkimg.client.discovery import keyed
from thinkimg.errors import UserError
from thinkimg.models.reference import Folder, Model, Preset
from thinkimg.models.trained import Trained
from thinkimg.serving import Supervisor
from thinkimg.serving.supervisor import with_group_key
from thinkimg.serving.vision_tools import server_of


@contextmanager
def tools_of(model: Model, secrets: Path | None = None) -> Iterator[dict[str, str]]:
    """Servers of the tools that a model was trained with, for as long as the block lasts: address -> key.

    Args:
        secrets: where the manifest's secrets are files, `NAME/KEY`.

    Raises:
        UserError: a tool cannot be served here.
        InfrastructureError: a server does not start.
    """
    tools = model.trained.tools if model.trained else ()
    if not tools:
        yield {}
        return
    for tool in tools:
        if tool.spec.tool == CUSTOM:
            raise UserError(
                f"the model was trained with {tool.name}, a Custom tool, which is not started here: give the address "
                "of a server that has it",
                "--server",
            )
    with (
        tempfile.TemporaryDirectory() as logs,
        Supervisor(with_group_key([server_of(tool, secrets) for tool in tools]), Path(logs)) as up,
    ):
        yield up.keys


@contextmanager
def ready(
    model: Model, servers: Sequence[str] | None, secrets: Path | None = None
) -> Iterator[tuple[Model, Mapping[str, str]]]:
    """The model, made if it is a preset, and the servers of its tools with their keys: those that are named, with the
    environment's key, or if that is None its own, started for as long as the block lasts."""
    with nullcontext(keyed(servers)) if servers is not None else tools_of(model, secrets) as found:
        yield made(model), found


@asynccontextmanager
async def tools_of_servers(servers: Mapping[str, str], trained: Trained | None) -> AsyncIterator[Tools]:
    """An agent's tools: those of the servers that the model was trained with, all if that is not known.

    Args:
        servers: address -> key, as `ready` gives them.

    Raises:
        UserError: no server has one of them.
    """
    if not servers:
        yield NoTools()
        return
    seconds = trained.call_seconds if trained else 30
    async with ToolClient(
        list(servers), servers, timeout_seconds=seconds, cache=ResultCache(), patience=PATIENCE
    ) as client:
        names = trained.tool_names if trained else None
        yield only(client, names) if names else client


def made(model: Model) -> Model:
    """The same model; a preset is made first, which takes a minute, and is kept for the next time."""
    if not isinstance(model.source, Preset):
        return model
    from thinkimg.agent.formats import get_format
    from thinkimg.jobs.stages.context import TINY, Context
    from thinkimg.jobs.stages.tiny_preset import STEPS, cached_base

    if model.written != TINY:
        raise UserError(f"there is no {model.source}; there is {TINY}", "--model")

    def say(step: int, loss: float) -> None:
        print(f"pre-training: step {step} of {STEPS}, loss {loss:.3f}", file=sys.stderr)

    return replace(model, source=Folder(cached_base(Context.model_cache, 0, (), get_format("openthinkimg"), say)))
