"""How weights of the hub are named."""

import re
from dataclasses import dataclass

from thinkimg.errors import UserError

_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?P<file>(/[\w-][\w.-]*)+)?")
_REVISION = re.compile(r"[\w-][\w./-]{0,200}")
MAIN = "main"


@dataclass(frozen=True)
class Repository:
    """A repository, or one file of it.

    Attributes:
        name: `org/name`.
        file: path in it; "" for all that is needed of the repository.
        revision: commit, tag or branch.
    """

    name: str
    file: str = ""
    revision: str = MAIN

    def __str__(self) -> str:
        return f"{self.name}/{self.file}" if self.file else self.name

    @property
    def folder(self) -> str:
        """Where it lies in a folder of weights, relative to it."""
        return f"{self.name}@{self.revision.replace('/', '--')}"


def read_repository(written: str, revision: str | None = None, field: str = "options.weights") -> Repository:
    """Raises `UserError` for what names no repository."""
    found = _NAME.fullmatch(written.removeprefix("hf://"))
    if found is None:
        raise UserError(f"{written!r} is neither a file, nor a folder, nor a hub repository (org/name)", field)
    if revision is not None and (_REVISION.fullmatch(revision) is None or ".." in revision):
        raise UserError(f"{revision!r} is no commit, tag or branch", field.replace("weights", "revision"))
    return Repository(found["name"], (found["file"] or "").lstrip("/"), revision or MAIN)
