"""The query of a data set's URI: `hf://owner/name?config=main&limit=500`."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl


def parse_query(uri: str, fields: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The query of a URI, strictly: every key known, given once, and of the right type.

    Raises:
        ValueError: it is not so.
    """
    parsed: dict[str, Any] = {}
    for key, text in parse_qsl(uri.partition("?")[2], keep_blank_values=True):
        if key not in fields:
            raise ValueError(f"{uri}: unknown parameter {key!r}; allowed are {', '.join(sorted(fields))}")
        if key in parsed:
            raise ValueError(f"{uri}: parameter {key!r} is given twice")
        try:
            parsed[key] = fields[key](text)
        except ValueError as error:
            raise ValueError(f"{uri}: parameter {key!r}: {error}") from None
    return parsed


def positive(text: str) -> int:
    """A whole number of at least 1. Raises `ValueError`."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"a whole number of at least 1 is needed, not {text!r}")
    return int(text)


def given(text: str) -> str:
    """A text that is not empty. Raises `ValueError`."""
    if not text:
        raise ValueError("a value is needed")
    return text
