"""One question to a model, about the user's own pictures, with live tools."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkimg.agent.agent import Agent, Limits, NoTools, Tools
from thinkimg.agent.formats import get_format
from thinkimg.client import ResultCache, ToolClient
from thinkimg.errors import UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.jobs.model_tools import made, tools_of
from thinkimg.models.backends import find_model, make_model
from thinkimg.models.trained import Trained, asking
from thinkimg.trajectory import Task, Trajectory, write_trajectories


@dataclass(frozen=True)
class Question:
    """Each attribute is an option of `thinkimg ask`; None: as the model was trained, else the default of `Asking`.

    Attributes:
        servers: of tools; empty: those that the model was trained with are started.
        secrets: where a manifest's secrets are files, `NAME/KEY`.
    """

    text: str
    images: Sequence[Path]
    model: str
    backend: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    servers: Sequence[str] = ()
    format: str | None = None
    prompt: str | None = None
    secrets: Path | None = None


def ask_model(question: Question, out: Path | None) -> Trajectory:
    """Run the agent greedily; what it said, with the answer. Which model is taken stands on standard error.

    Raises:
        UserError: no such model; a picture that cannot be read.
    """
    found = find_model(question.model, question.backend, question.model_args)
    print(found, file=sys.stderr)
    task = Task("question", question.text, tuple(_read(image) for image in question.images))
    found = made(found)
    asked = asking(found.trained, format=question.format, prompt=question.prompt)
    limits = Limits(rounds=asked.max_rounds, tokens_per_turn=asked.max_tokens, seconds=asked.max_seconds)
    servers = nullcontext(list(question.servers)) if question.servers else tools_of(found, question.secrets)
    with servers as endpoints:
        model = make_model(found, question.backend, question.model_args)

        async def answer(tools: Tools) -> Trajectory:
            return await Agent(model, tools, limits, get_format(asked.format), asked.prompt).run(task, temperature=0.0)

        async def answer_with_tools() -> Trajectory:
            async with _client(endpoints, found.trained) as client:
                return await answer(client)

        trajectory = asyncio.run(answer_with_tools() if endpoints else answer(NoTools()))
    if out is not None:
        write_trajectories([trajectory], out)
    return trajectory


def _client(endpoints: Sequence[str], trained: Trained | None) -> ToolClient:
    return ToolClient(endpoints, timeout_seconds=trained.call_seconds if trained else 30, cache=ResultCache())


def _read(path: Path) -> Image:
    try:
        image = Image.from_file(path)
        image.pixels()  # broken data behind a good header is refused before anything starts
        return image
    except (OSError, ImageDecodeError) as error:
        raise UserError(str(error), f"--image {path}") from error
