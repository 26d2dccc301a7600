"""Types of arguments, with their units: what a model may write for a number, a box or a point.

Coordinates are percent of the picture's width and height, 0 to 100, origin at the top left.
"""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core.core_schema import ValidationInfo

from thinkimg.tools import markup
from thinkimg.tools.coordinates import Coordinates, refuse_other_units

Percent = Field(ge=0, le=100, allow_inf_nan=False)
_PERCENT_SCHEMA = {"type": "number", "minimum": 0, "maximum": 100}


def read_number(value: Any, info: ValidationInfo) -> Any:
    """A number, or a text that plainly is one: `28.5`, `28.5%`, `y=28.5` for an argument named y."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    if not isinstance(value, str):
        return value
    name = info.field_name or ""
    numbers = markup.axis_values(value, name) if name in ("x", "y") else markup.bare_numbers(value)
    if len(numbers) == 1:
        return numbers[0]
    if value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError(f"must be a finite number, not {value}")
    raise ValueError(f"must be a number, not {value!r}")


def _read_numbers(value: Any, info: ValidationInfo) -> Any:
    """One number or several; several may be a list or point markup."""
    if isinstance(value, str) and info.field_name in ("x", "y"):
        return markup.axis_values(value, info.field_name) or [value]
    return list(value) if isinstance(value, list | tuple) else [value]


def _read_box(value: Any) -> Any:
    if isinstance(value, str):
        value = markup.bare_numbers(value)
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise ValueError("must be four numbers [x1, y1, x2, y2]")
    return tuple(value)


def _check_box(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"is empty: x1 must be below x2 and y1 below y2, not {list(box)}")
    return box


def _read_boxes(value: Any) -> Any:
    """One box or several."""
    if isinstance(value, str):
        value = [markup.bare_numbers(part) for part in re.findall(r"\[[^\[\]]*\]", value)] or [value]
    if isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple | str):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be at least one box [x1, y1, x2, y2]")
    return list(value)


def _read_points(value: Any) -> Any:
    if isinstance(value, str):
        value = markup.points(value)
    if isinstance(value, dict):
        value = [value]
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and not any(isinstance(v, list | tuple | dict) for v in value)
    ):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be at least one point [x, y]")
    return [
        (point["x"], point["y"]) if isinstance(point, dict) and point.keys() == {"x", "y"} else point for point in value
    ]


Number = Annotated[float, BeforeValidator(read_number), Percent]
"""Percent of anything. A place is an `X`, `Y`, `Box` or `Points`: those know what other units look like."""
Score = Annotated[float, BeforeValidator(read_number), Field(ge=0, le=1, allow_inf_nan=False)]
"""A threshold for scores, 0 to 1."""

Text = Annotated[str, Field(min_length=1, max_length=1000)]

X = Annotated[
    list[Number],
    Coordinates("x"),
    BeforeValidator(refuse_other_units("x")),
    BeforeValidator(_read_numbers),
    Field(min_length=1, max_length=50),
    WithJsonSchema({**_PERCENT_SCHEMA, "description": "percent of the width, 0 (left) to 100 (right)"}),
]
"""One x (what the schema asks for), or several."""

Y = Annotated[
    list[Number],
    Coordinates("y"),
    BeforeValidator(refuse_other_units("y")),
    BeforeValidator(_read_numbers),
    Field(min_length=1, max_length=50),
    WithJsonSchema({**_PERCENT_SCHEMA, "description": "percent of the height, 0 (top) to 100 (bottom)"}),
]
"""One y (what the schema asks for), or several."""

Box = Annotated[
    tuple[Number, Number, Number, Number],
    Coordinates("xyxy"),
    BeforeValidator(refuse_other_units("xyxy")),
    BeforeValidator(_read_box),
    AfterValidator(_check_box),
    WithJsonSchema(
        {
            "type": "array",
            "items": _PERCENT_SCHEMA,
            "minItems": 4,
            "maxItems": 4,
            "description": "[x1, y1, x2, y2], left, top, right, bottom in percent of width and height, 0 to 100",
        }
    ),
]

Boxes = Annotated[
    list[Box],
    Coordinates("xyxy"),
    BeforeValidator(refuse_other_units("xyxy")),
    BeforeValidator(_read_boxes),
    Field(min_length=1, max_length=50),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "array", "items": _PERCENT_SCHEMA, "minItems": 4, "maxItems": 4},
            "minItems": 1,
            "description": "[[x1, y1, x2, y2], ...], left, top, right, bottom in percent of width and height, 0 to 100",
        }
    ),
]
"""One box, or several."""

Ends = Annotated[
    list[tuple[Number, Number]],
    Coordinates("xy"),
    BeforeValidator(refuse_other_units("xy")),
    BeforeValidator(_read_points),
    Field(min_length=2, max_length=2),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "array", "items": _PERCENT_SCHEMA, "minItems": 2, "maxItems": 2},
            "minItems": 2,
            "maxItems": 2,
            "description": "[[x1, y1], [x2, y2]] in percent of width and height, 0 to 100",
        }
    ),
]
"""Both ends of a line."""

Points = Annotated[
    list[tuple[Number, Number]],
    Coordinates("xy"),
    BeforeValidator(refuse_other_units("xy")),
    BeforeValidator(_read_points),
    Field(min_length=1, max_length=50),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "array", "items": _PERCENT_SCHEMA, "minItems": 2, "maxItems": 2},
            "minItems": 1,
            "description": "[[x, y], ...] in percent of width and height, 0 to 100",
        }
    ),
]
