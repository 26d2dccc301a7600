"""A question about pictures: what an agent is asked, and what a trajectory answers."""

from dataclasses import dataclass, field
from typing import Any

from thinkimg.image import Image


@dataclass(frozen=True)
class Task:
    """A question about images. `meta` is copied into the trajectory."""

    id: str
    question: str
    images: tuple[Image, ...]
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
