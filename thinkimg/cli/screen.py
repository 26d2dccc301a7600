"""Where commands write: what a script reads goes to standard output, everything else to standard error."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console

notes = Console(stderr=True)
"""For progress, notes and errors."""


def print_json(document: Any) -> None:
    """One document on standard output, and nothing else there."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def stdout_kept(wanted: bool) -> Iterator[None]:
    """While the block lasts, what others print goes to standard error, so that a document stands alone."""
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield
