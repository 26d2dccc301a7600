"""Coordinates in other units than percent: named as what they look like, for every tool that takes a place.

Tools take percent of width and height. Models that learnt elsewhere write shares of 1, thousandths or pixels, and part
of that is legal percent too:

- A number above 100 is no percent. It is refused, and the refusal says what the same numbers are in percent if they are
  pixels of this picture, or thousandths.
- What lies wholly within 0 to 1 may be a small place in the corner. It is computed as it is written, and the result
  says so.
- Pixels and thousandths that are all below 100 look like percent; nothing tells them apart.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic_core.core_schema import ValidationInfo

from thinkimg.tools import markup

Size = tuple[int, int]
"""Width and height of the picture that a call is about, in pixels: the context of the validators here."""


@dataclass(frozen=True)
class Coordinates:
    """In a type's annotations: its numbers are places, in the order of `axes`, again and again."""

    axes: str


def axes_of(hint: Any) -> str:
    """The axes of a type that is annotated with `Coordinates`, at whatever depth; "" if it is not."""
    for known in getattr(hint, "__metadata__", ()):
        if isinstance(known, Coordinates):
            return known.axes
    return next((axes for inner in get_args(hint) if (axes := axes_of(inner))), "")


def refuse_other_units(axes: str) -> Callable[[Any, ValidationInfo], Any]:
    """A validator for before the numbers are checked one by one. Its context is a `Size`, or None if it is not known.

    It raises `ValueError` if a number is above 100 and none is negative, and otherwise gives back what it got.
    """

    def check(value: Any, info: ValidationInfo) -> Any:
        numbers = list(_numbers(value))
        whole = bool(numbers) and len(numbers) % len(axes) == 0
        if whole and all(math.isfinite(number) and number >= 0 for number in numbers) and max(numbers) > 100:
            raise ValueError(_out_of_range(numbers, axes, info.context))
        return value

    return check


def _out_of_range(numbers: Sequence[float], axes: str, size: Size | None) -> str:
    worst = next(index for index, number in enumerate(numbers) if number > 100)
    start = worst - worst % len(axes)
    group = numbers[start : start + len(axes)]  # one box or point says enough
    readings = []
    if size is not None:
        sides = [size["xy".index(axis)] for axis in axes]
        if all(number <= sides[index % len(axes)] for index, number in enumerate(numbers)):
            shown = _listed([100 * number / side for number, side in zip(group, sides, strict=True)])
            readings.append(f"if these are pixels of this {size[0]}x{size[1]} picture, write {shown}")
    if all(number <= 1000 for number in numbers):
        readings.append(f"if these are thousandths (0 to 1000), write {_listed([number / 10 for number in group])}")
    nowhere = "thousandths (0 to 1000) end below it"
    if size is not None:
        nowhere += f", and so does this {size[0]}x{size[1]} picture"
    said = "; ".join(readings) or nowhere
    return f"is out of range: {numbers[worst]:g} is above 100 percent; {said}"


def hint_of(name: str, value: Any) -> str:
    """A sentence for the result if all numbers of an argument lie within 0 to 1, else ""."""
    numbers = list(_numbers(value))
    if not within_one(numbers):
        return ""
    shares = _listed([100 * number for number in numbers[:4]])
    more = " ..." if len(numbers) > 4 else ""
    return (
        f'Note: all of "{name}" lies within 0 to 1 and was read as percent, 0 to 100. '
        f"If shares of 1 are meant, write {shares}{more}."
    )


def other_units(numbers: Sequence[float]) -> str:
    """What the numbers of an answer are, where percent was asked for; "" if they may be percent."""
    if within_one(numbers):
        return "shares of 1"
    return "pixels or thousandths" if max(numbers, default=0) > 100 and min(numbers) >= 0 else ""


def within_one(numbers: Sequence[float]) -> bool:
    """Whether these may be shares of 1. Zeros alone are the same place in any unit."""
    return any(numbers) and all(0 <= number <= 1 for number in numbers)


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of boxes, points or numbers, also where they are written as text; nan for what is no number."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, str):
        yield from markup.bare_numbers(value) or [math.nan]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            yield float(value)
        except OverflowError:
            yield math.nan
    elif value is not None:
        yield math.nan


def _listed(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{round(number, 2):g}" for number in numbers)
    return shown if len(numbers) == 1 else f"[{shown}]"
