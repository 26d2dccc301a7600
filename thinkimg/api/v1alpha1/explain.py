"""pydantic's findings in our words: the field's path, what is wrong, what would be right."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .resource import Violation, suggestion

Loc = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def explain(error: ValidationError, resource: type[BaseModel]) -> Iterator[Violation]:
    """Everything that `error` says about a `resource`, one violation for each thing to correct."""
    for detail in error.errors(include_url=False):
        loc: Loc = tuple(part for part in detail["loc"] if part != "[key]")
        context = detail.get("ctx", {})
        kind = detail["type"]
        if kind == "rules":
            for violation in context["violations"]:
                yield Violation((*loc, *violation.loc), violation.message, violation.remedy)
        elif kind == "extra_forbidden":
            message = f'there is no field "{loc[-1]}"'
            yield Violation(loc, message, suggestion(str(loc[-1]), fields_at(resource, loc[:-1])))
        elif kind == "invalid_key":
            yield Violation(loc, f"expected a string as key, got {shown(loc[-1])}", "Put it in quotes.")
        elif kind == "missing":
            yield Violation(loc, "it is missing", f"Add it. {described_at(resource, loc)}".strip())
        elif kind == "literal_error":
            allowed = [part.strip().strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            given = detail["input"]
            message = f"expected {_listed(allowed)}, got {shown(given)}"
            yield Violation(loc, message, suggestion(str(given), allowed) if len(allowed) > 1 else "Correct it.")
        elif kind in _EXPECTED:
            remedy = described_at(resource, loc) or "Write a value of that type."
            yield Violation(loc, f"expected {_EXPECTED[kind]}, got {shown(detail['input'])}", remedy)
        else:
            message = detail["msg"].replace("Input should", "it should").replace("List should", "the list should")
            remedy = described_at(resource, loc) or "Write a value that fits."
            yield Violation(loc, f"{message[0].lower()}{message[1:]}, got {shown(detail['input'])}", remedy)


def shown(value: Any) -> str:
    """A given value, short enough for a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | BaseModel):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:76]}…"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def block_of(annotation: Any) -> type[BaseModel] | None:
    """The block inside `Block`, `Block | None`, `list[Block]`, `Annotated[…]`; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType, list):
        return next((block for part in get_args(annotation) if (block := block_of(part))), None)
    return None


def field_at(block: type[BaseModel], loc: Loc) -> FieldInfo | None:
    """The field at `loc` below `block`, None when the path leaves the declared fields."""
    names = [part for part in loc if isinstance(part, str)]
    field: FieldInfo | None = None
    current: type[BaseModel] | None = block
    for name in names:
        if current is None:
            return None
        field = next((f for f in current.model_fields.values() if f.alias == name), None)
        current = block_of(field.annotation) if field else None
    return field


def fields_at(block: type[BaseModel], loc: Loc) -> list[str]:
    """Names, as in YAML, of the fields of the mapping at `loc`."""
    field = field_at(block, loc)
    inner = block if not loc else block_of(field.annotation) if field else None
    return [f.alias or name for name, f in inner.model_fields.items()] if inner else []


def described_at(block: type[BaseModel], loc: Loc) -> str:
    """The description of the field at `loc`, as one line."""
    field = field_at(block, loc)
    return " ".join((field.description or "").split()) if field else ""
