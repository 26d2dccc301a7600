"""Backends whose packages are an extra of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from thinkimg.errors import UserError


@contextmanager
def needs_extra(backend: str) -> Iterator[None]:
    """Around the import of a backend: a missing package becomes a `UserError` that says how to get it.

    Args:
        backend: also the name of the extra.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or error
        raise UserError(
            f"{backend} needs a package that is not installed ({missing}): pip install 'thinkimg[tools,{backend}]'; "
            "groundingdino and paddleocr want environments of their own, see docs/guides/tools-with-weights.md",
            "backend",
        ) from error
