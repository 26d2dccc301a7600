"""Files that may hold secrets: manifests with values of `env`, and what programs printed that were given them. Only
their owner reads them."""

import os
from pathlib import Path
from typing import BinaryIO

_MODE = 0o600


def write_private(path: Path, text: str) -> None:
    """Atomically: a reader sees the old file or the new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def append_private(path: Path) -> BinaryIO:
    """A log to add to; one that is there already becomes private too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
    os.fchmod(descriptor, _MODE)
    return os.fdopen(descriptor, "ab")
