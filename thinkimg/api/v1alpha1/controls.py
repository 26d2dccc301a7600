"""Controls of an evaluation: the same questions with changed pictures. One definition for manifests, the command and
the files that results stand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

ControlKind = Literal["grey", "other", "none"]
ControlScope = Literal["question", "tools", "all"]


class Refused(NamedTuple):
    """Why something cannot be, and what to do."""

    message: str
    remedy: str


UNUSED_SCOPE = Refused("it says for whom pictures are changed, and nothing changes them", "Give control, or remove it.")
NO_PICTURE_FOR_TOOLS = Refused(
    "tools without a picture can do nothing",
    "Use control grey or other, or evaluate without tools to see what they bring.",
)
NO_TOOLS = Refused("the model has no tools, whose pictures could be changed", "Use the scope question.")


@dataclass(frozen=True)
class Control:
    """In place of each picture of a question `grey` (a grey one of the same size), `other` (one of another question of
    the same kind with another answer) or `none`; for the model of the question, for its tools, or for all."""

    kind: ControlKind
    scope: ControlScope = "question"

    @property
    def name(self) -> str:
        """Of its file or folder, beside the answers with true pictures: `control-grey-question`."""
        return f"control-{self.kind}-{self.scope}"

    @classmethod
    def of(cls, name: str) -> Control | None:
        """Of a file's or folder's name; None where it is no control's."""
        match name.split("-"):
            case ["control", ("grey" | "other" | "none") as kind, ("question" | "tools" | "all") as scope]:
                return cls(kind, scope)
        return None

    def __str__(self) -> str:
        return f"{self.kind}, {self.scope}"

    def refused(self, tools: bool = True) -> Refused | None:
        """What cannot be.

        Args:
            tools: whether the model has any.
        """
        if self.scope == "tools" and self.kind == "none":
            return NO_PICTURE_FOR_TOOLS
        return None if tools or self.scope != "tools" else NO_TOOLS
