"""What a tool is: one typed declaration, from which schema, server, client and documentation follow."""

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from thinkimg.image import Image


@dataclass(frozen=True)
class ToolResult:
    """What a tool gives back.

    Attributes:
        text: the sentence or lines that the model reads.
        data: the same as numbers (coordinates in percent of width and height), JSON-serialisable.
        images: pictures, at source resolution; the agent gives them the next handles.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


class ToolSchema(BaseModel):
    """A tool as others see it: over the wire, in the model's prompt, in the documentation.

    Attributes:
        version: changes when results change; part of every cache key.
        parameters: JSON schema of the arguments, as in OpenAI's function calling.
        image_parameters: the arguments that name an image by handle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    description: str
    parameters: dict[str, Any]
    image_parameters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = Field(default=())

    def as_function(self) -> dict[str, Any]:
        """The form that OpenAI's API and chat templates use."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


def normalise_name(name: str) -> str:
    """Spelling under which names are compared: no case, no `_` or `-`, `Subfigure` = `Subplot` = `ZoomIn`/`Zoomin`."""
    return re.sub(r"subfigure$", "subplot", re.sub(r"[_\-\s]", "", name).lower())
