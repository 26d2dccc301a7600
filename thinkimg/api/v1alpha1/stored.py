"""Objects as an API server holds them, which may be of another version than this program.

What people write is read strictly: a field that nobody knows is a mistake. What is stored passed the CRD, so a field
that we do not know is one of a newer version. It is ignored, and kept when we write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .explain import block_of

Model = TypeVar("Model", bound=BaseModel)
_IDENTITIES = ("name", "type", "model")
"""Fields by which items of our lists are told apart, the first that an item has."""


def read_stored(kind: type[Model], document: Mapping[str, Any]) -> Model:
    """The document without the fields that this version does not know, however deep.

    Raises:
        pydantic.ValidationError: a field that we know has a value that we do not.
    """
    return kind.model_validate(document, by_alias=True, by_name=False, extra="ignore")


def unknown_fields(kind: type[BaseModel], document: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of what `read_stored` ignores, `spec.telemetry`."""
    known = _fields(kind)
    for name, value in document.items():
        field, here = known.get(name), f"{path}.{name}" if path else name
        if field is None:
            yield here
            continue
        block = block_of(field.annotation)
        if block is None:
            continue
        if isinstance(value, Mapping):
            yield from unknown_fields(block, value, here)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from unknown_fields(block, item, f"{here}[{number}]")


def with_unknown(kind: type[BaseModel], stored: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """`ours` with the fields of `stored` that this version does not know. Items of lists are found by their name."""
    known, kept = _fields(kind), dict(ours)
    for name, value in stored.items():
        field = known.get(name)
        if field is None:
            kept.setdefault(name, value)
        elif name in kept and (block := block_of(field.annotation)) is not None:
            kept[name] = _nested(block, value, kept[name])
    return kept


def _nested(block: type[BaseModel], stored: Any, ours: Any) -> Any:
    if isinstance(stored, Mapping) and isinstance(ours, Mapping):
        return with_unknown(block, stored, ours)
    if isinstance(stored, list) and isinstance(ours, list):
        before = {_identity(item): item for item in stored}
        return [with_unknown(block, before.get(_identity(item), {}), item) for item in ours]
    return ours


def _identity(item: Any) -> Any:
    return next((item[name] for name in _IDENTITIES if name in item), None) if isinstance(item, Mapping) else None


def _fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in kind.model_fields.items()}
