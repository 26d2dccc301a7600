"""Whose fault is it? The three families of error, never mixed.

- `ModelError`: the model wrote something wrong (bad arguments, malformed call, unknown tool). It becomes an
  observation that the model reads, and is counted. The episode goes on.
- `InfrastructureError`: a time-out, a 5xx, a dead process. Retried elsewhere; if it persists, the trajectory is masked
  out of the loss and sampled again. It is never rewarded and never punished.
- `UserError`: a wrong configuration or file. Refused before anything starts, with the field's path and the remedy.

Any other exception is a bug and is not caught.
"""

import errno
import re
from typing import Literal

Family = Literal["model", "infrastructure", "user"]


_PASSWORD = re.compile(r"(?<=://)[^\s/?#'\"]+@")


def without_passwords(text: str) -> str:
    """The same without user and password of the addresses in it: `https://***@host/v1`."""
    return _PASSWORD.sub("***@", text) if "@" in text else text


class ThinkImgError(Exception):
    """Root of the three families. What they say is shown, logged and kept: passwords of addresses are left out."""

    family: Family

    def __init__(self, message: str = "") -> None:
        super().__init__(without_passwords(message))


class ModelError(ThinkImgError):
    """The model's fault. `str(error)` is what the model reads: say what was wrong and what would be right.

    Args:
        message: one or two sentences for the model.
        kind: a stable word for counters: `malformed_call`, `unknown_tool`, `bad_arguments` or `refused`
            (the tool could not do what was asked on this picture).
    """

    family: Family = "model"

    def __init__(self, message: str, kind: str = "bad_arguments") -> None:
        super().__init__(message)
        self.kind = kind


class InfrastructureError(ThinkImgError):
    """Nobody's argument is wrong: time-out, 5xx, connection refused, process gone, out of memory.

    Attributes:
        retry_after: seconds that the server asks to be left alone; 0 where it does not say.
    """

    family: Family = "infrastructure"
    retry_after: float = 0.0


class UserError(ThinkImgError):
    """The user's configuration, file or command is wrong.

    Args:
        message: what is wrong and what would be right.
        field: path of the field (`spec.stages[2].from`), or the file's name.
    """

    family: Family = "user"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_SAID = (
    "No space left on device", "Disk quota exceeded", "File too large",
    "PytorchStreamWriter failed writing", "unexpected pos", "iostream error",
)  # fmt: skip
"""How safetensors (the system's words) and torch (its own, without the reason) say that a file could not be written."""


def full_disk(error: BaseException) -> InfrastructureError | None:
    """One sentence for a disk that is full, however a library reports it; None for any other error."""
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "errno", None) in _FULL or (
            not isinstance(found, ThinkImgError) and any(said in str(found) for said in _FULL_SAID)
        ):
            what = getattr(found, "filename", None) or "a file"
            reason = str(found).partition("\n")[0]
            return InfrastructureError(
                f"the disk is full: {what} could not be written ({reason}); make room and run the same command again"
            )
        found = found.__cause__ or found.__context__
    return None


def describe(error: Exception) -> str:
    """Its class, and what it says if it says anything."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
