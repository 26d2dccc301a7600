"""One question to a model, about the user's own pictures, with live tools."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import get_format
from thinkimg.errors import UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.jobs.model_tools import ready, tools_of_servers
from thinkimg.models.backends import find_model, make_model
from thinkimg.models.trained import asking
from thinkimg.trajectory import Task, Trajectory, write_trajectories


@dataclass(frozen=True)
class Question:
    """Each attribute is an option of `thinkimg ask`; None: as the model was trained, else the default of `Asking`.

    Attributes:
        servers: of tools; None: those that the model was trained with are started.
        secrets: where a manifest's secrets are files, `NAME/KEY`.
    """

    text: str
    images: Sequence[Path]
    model: str
    backend: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    servers: Sequence[str] | None = None
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
    asked = asking(found.trained, format=question.format, prompt=question.prompt)
    limits = Limits(asked.max_rounds, asked.max_tokens, asked.max_context, asked.max_seconds)
    with ready(found, question.servers, question.secrets) as (found, endpoints):
        model = make_model(found, question.backend, question.model_args)

        async def answer() -> Trajectory:
            async with tools_of_servers(endpoints, found.trained) as tools:
                agent = Agent(model, tools, limits, get_format(asked.format), asked.prompt, asked.system_prompt)
                return await agent.run(task, temperature=0.0)

        trajectory = asyncio.run(answer())
    if out is not None:
        write_trajectories([trajectory], out)
    return trajectory


def _read(path: Path) -> Image:
    try:
        image = Image.from_file(path)
        image.pixels()  # broken data behind a good header is refused before anything starts
        return image
    except (OSError, ImageDecodeError) as error:
        raise UserError(str(error), f"--image {path}") from error
