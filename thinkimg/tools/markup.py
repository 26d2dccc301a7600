"""Coordinates in the notations that models write: Molmo's point markup, `y=28.5`, `x="21.5" y="28.5"`, bare numbers.

The text of an `alt` attribute and the text between tags are a description, not coordinates, whatever digits they hold.
"""

import re

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_ALT = re.compile(r"""\balt\s*=\s*(?:"[^"]*("|$)|'[^']*('|$))""", re.IGNORECASE)
_TAG = re.compile(r"<\s*points?\b([^<>]*)>?", re.IGNORECASE)
_COORDINATE = re.compile(rf"""(?<![A-Za-z0-9_])([xy])(\d*)\s*=\s*["']?\s*({_NUMBER})""", re.IGNORECASE)
_LIST = re.compile(rf"[\s\[(]*({_NUMBER})\s*%?(?:\s*[,\s]\s*({_NUMBER})\s*%?)*[\s\])]*")


def coordinates(text: str) -> dict[str, list[tuple[str, float]]]:
    """All values named x and y in `text`, in order, each with its number suffix (`x1` gives suffix `1`)."""
    found: dict[str, list[tuple[str, float]]] = {"x": [], "y": []}
    for axis, suffix, number in _COORDINATE.findall(_coordinates_only(text)):
        found[axis.lower()].append((suffix, float(number)))
    return found


def axis_values(text: str, axis: str) -> list[float]:
    """The values of one axis (`x` or `y`); a text that is nothing but a number counts. Empty if there are none."""
    found = coordinates(text)
    if values := [value for _, value in found[axis]]:
        return values
    numbers = bare_numbers(text)
    return numbers if len(numbers) == 1 else []


def points(text: str) -> list[tuple[float, float]]:
    """The (x, y) pairs: equal suffixes belong together, in the order of writing. `[x, y]` is a pair too."""
    found = coordinates(text)
    waiting = list(found["y"])
    pairs = []
    for suffix, x in found["x"]:
        match = next((entry for entry in waiting if entry[0] == suffix), None)
        if match is not None:
            waiting.remove(match)
            pairs.append((x, match[1]))
    numbers = bare_numbers(text)
    return pairs or ([(numbers[0], numbers[1])] if len(numbers) == 2 else [])


def alternative_text(text: str) -> str:
    """What the first `alt` of the markup says, "" if there is none."""
    found = _ALT.search(text)
    return found[0].partition("=")[2].strip().strip("\"'") if found else ""


def bare_numbers(text: str) -> list[float]:
    """The numbers of a text that holds numbers and brackets only (`[1, 2]`, `28.5%`), else nothing."""
    if _LIST.fullmatch(text.strip()) is None:
        return []
    return [float(number) for number in re.findall(_NUMBER, text)]


def _coordinates_only(text: str) -> str:
    without_alt = _ALT.sub(" ", text)
    tags = _TAG.findall(without_alt)
    return " ".join(tags) if tags else without_alt
