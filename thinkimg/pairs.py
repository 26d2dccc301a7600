"""KEY=VALUE, as every command takes it: `--judge base_url=http://host:8000/v1`, `thinkimg tools Crop box=[0,0,9,9]`.

Values follow the manifest's rules (`thinkimg.api.read_value`), so that what works in a file works on the command line.
"""

import re
from collections.abc import Iterable
from typing import Any

from thinkimg.api import ManifestError, read_value
from thinkimg.errors import UserError


def read_pairs(pairs: Iterable[str], field: str) -> dict[str, Any]:
    """`["a=1", "b=x=y", "c="]` -> `{"a": 1, "b": "x=y", "c": ""}`.

    Args:
        field: what a refusal names, such as `--model-args`.

    Raises:
        UserError: no `=`, no key, a key given twice, or brackets and quotes that do not close.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{pair!r} is not KEY=VALUE", field)
        if key in found:
            raise UserError(f"{key} is given twice; keep one of them", field)
        found[key] = _value(key, text, field)
    return found


def split_pairs(text: str, field: str) -> dict[str, Any]:
    """Pairs in one text with commas between them, as OpenThinkIMG and lmms-eval write: `a=1,b=[2,3]`.

    Commas in brackets, braces and quoted values divide nothing. Raises as `read_pairs`.
    """
    return read_pairs(filter(str.strip, _PAIR.findall(text)), field)


_PAIR = re.compile(
    r"""(?: \[ (?: [^][] | \[[^][]*\] )* \]   # a list, with lists in it
          | \{ (?: [^{}] | \{[^{}]*\} )* \}   # a map, with maps in it
          | (?<==)"[^"]*" | (?<==)'[^']*'
          | [^,] )+""",
    re.VERBOSE,
)


def _value(key: str, text: str, field: str) -> Any:
    if not text.strip():
        return text
    try:
        return read_value(text)
    except ManifestError as error:
        raise UserError(
            f"{key}={text}: {error.problems[0].message}; put a text in quotes: {key}='\"…\"'", field
        ) from None
