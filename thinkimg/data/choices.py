"""The options of a multiple-choice question, as data sets have them: letter to text."""

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

_LETTERED = re.compile(r"^\s*\(?([A-Z])[.):]\s*(.*)$", re.DOTALL)


def lettered(options: Any) -> dict[str, str]:
    """By letter. A list is lettered from A, unless its texts begin with their letters ("A. red", "(B) blue"); empty for
    anything that is neither a list nor an object of texts and numbers."""
    if isinstance(options, Mapping):
        return {str(letter): str(text) for letter, text in options.items() if text is not None}
    if not isinstance(options, list | tuple) or not all(isinstance(one, str | int | float) for one in options):
        return {}
    given = [_LETTERED.match(str(one)) for one in options]
    if all(one is not None and one[1] == letter for one, letter in zip(given, ascii_uppercase, strict=False)):
        return {one[1]: one[2] for one in given if one is not None}
    return dict(zip(ascii_uppercase, map(str, options), strict=False))
