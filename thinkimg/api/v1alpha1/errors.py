"""The user's error in a manifest: all problems of a file at once, each with its place and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in one place of a manifest (as a warning: one thing without its effect)."""

    document: str
    """Kind and name, `ToolRLJob/demo`; the file's name when the document has neither."""
    path: str
    """The field, as people write it: `spec.stages[2].from`; empty when the whole document is meant."""
    message: str
    """What is wrong, without a full stop at its end."""
    remedy: str
    """What would be right: a whole sentence."""
    line: int | None = None
    """Line of the file, counted from 1; None when the resource did not come from a file."""

    def __str__(self) -> str:
        at_line = f"line {self.line}: " if self.line is not None else ""
        field = f"{self.path}: " if self.path else ""
        return f"{at_line}{self.document}: {field}{self.message}. {self.remedy}".rstrip()


class ManifestError(ValueError):
    """A manifest is refused before anything starts. `problems` has one entry for each thing to correct."""

    def __init__(self, problems: Iterable[Problem], source: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        """The file's path as the user gave it."""
        super().__init__(str(self))

    def __str__(self) -> str:
        count = f"{len(self.problems)} problem{'' if len(self.problems) == 1 else 's'}"
        return "\n".join([f"{self.source or 'manifest'}: {count}", *(f"  {problem}" for problem in self.problems)])
