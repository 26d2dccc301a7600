"""What a model needs around it before it can be asked here: its tools as servers, and a preset made."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from thinkimg.api import CUSTOM
from thinkimg.errors import UserError
from thinkimg.models.reference import Folder, Model, Preset
from thinkimg.serving import Supervisor
from thinkimg.serving.vision_tools import server_of


@contextmanager
def tools_of(model: Model, secrets: Path | None = None) -> Iterator[list[str]]:
    """Servers of the tools that a model was trained with, for as long as the block lasts; their addresses.

    Args:
        secrets: where the manifest's secrets are files, `NAME/KEY`.

    Raises:
        UserError: a tool cannot be served here.
        InfrastructureError: a server does not start.
    """
    tools = model.trained.tools if model.trained else ()
    if not tools:
        yield []
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
        Supervisor([server_of(tool, secrets) for tool in tools], Path(logs)) as up,
    ):
        yield list(up.endpoints)


def made(model: Model) -> Model:
    """The same model; a preset is made first, which takes a minute, and is kept for the next time."""
    if not isinstance(model.source, Preset):
        return model
    from thinkimg.agent.formats import get_format
    from thinkimg.jobs.stages.context import TINY, Context
    from thinkimg.jobs.stages.tiny_preset import cached_base

    if model.written != TINY:
        raise UserError(f"there is no {model.source}; there is {TINY}", "--model")
    return replace(model, source=Folder(cached_base(Context.model_cache, 0, (), get_format("openthinkimg"), _say)))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
