"""A JSON file as a model: read leniently, written whole.

Every file says its `kind` and the `version` of its form. A file of an earlier version may have neither, and lacks
fields: they get the model's defaults. Fields that only a later version knows are left out, which is said once. A file
of another kind is refused with what reads it. On writing a model is strict: it takes no field that it does not declare,
and a number that is not finite is written as `null` (`Figure`).
"""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from thinkimg.errors import UserError
from thinkimg.private import write_private

VERSION = 1
"""Of all files' forms. It grows when a reader of this version could misread what a later one writes."""
MISSING = "there is no such file"

logger = logging.getLogger(__name__)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[FiniteFloat | None, BeforeValidator(_finite)]
"""A measured number, or None (`null`): it was not measured, or what came out is no finite number, for which JSON has no
word. Files of earlier versions that say `NaN` or `Infinity` are read so, too."""


class Part(BaseModel):
    """A part of a file."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class File(Part):
    """A whole file. A subclass that declares its `kind`, with the kind as the default, is in `KINDS`."""

    title: ClassVar[str]
    """What it holds, in a few words."""
    path: ClassVar[str]
    """Where it stands, for the reference."""
    remedy: ClassVar[str] = ""
    """What reads it, for somebody who gave it to something else."""
    signature: ClassVar[frozenset[str]] = frozenset()
    """Fields by which a file of an earlier version, without `kind`, is known among those of the same name."""
    ignores_unknown: ClassVar[bool] = True
    """Whether fields of a later version are left out; otherwise they are refused."""
    private: ClassVar[bool] = False
    """Whether it may hold secrets, so that only its owner reads it."""

    kind: str
    version: int = VERSION
    """Of the file's form. 0: it was written before there were versions."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if isinstance(kind := cls.model_fields["kind"].default, str):
            KINDS.setdefault(kind, cls)

    @classmethod
    def of_earlier(cls, document: dict[str, Any]) -> dict[str, Any]:
        """A document that was written before files had kinds, in today's form."""
        return {**document, "version": 0}


KINDS: dict[str, type[File]] = {}
"""Kind to the model of its files, or the first of their models."""

F = TypeVar("F", bound=File)


def read(path: Path, model: type[F], missing: str = MISSING) -> F:
    """The file as a model.

    Args:
        missing: what to say when it is not there.

    Raises:
        UserError: it is not there, is not JSON, is a file of another kind, or a field is wrong; all by name.
    """
    return validated(path, model, read_object(path, missing))


def write(path: Path, model: File) -> None:
    """Atomically: a reader sees the old file or the new one."""
    text = model.model_dump_json(indent=1) + "\n"
    if model.private:
        write_private(path, text)
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_object(path: Path, missing: str = MISSING) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(missing, str(path)) from error
    except ValueError as error:
        raise UserError(f"not JSON: {error}", str(path)) from error
    if not isinstance(document, dict):
        raise UserError(f"expected an object, found {type(document).__name__}", str(path))
    return document


def validated(path: Path, model: type[F], document: dict[str, Any]) -> F:
    """The document of `path` as a model; see `read`."""
    _check_kind(path, model, document)
    known = document if "kind" in document else model.of_earlier(document)
    try:
        return model.model_validate(known)
    except ValidationError as error:
        unknown = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if not unknown or not model.ignores_unknown:
            raise UserError(reasons(error), str(path)) from error
    for place in unknown:
        _forget(known, place)
    _say_once(path, model, [_dotted(place) for place in unknown])
    try:
        return model.model_validate(known)
    except ValidationError as error:
        raise UserError(reasons(error), str(path)) from error


def _check_kind(path: Path, model: type[File], document: Mapping[str, Any]) -> None:
    wanted = model.model_fields["kind"].default
    kind = document.get("kind", _earlier_kind(document) if model.signature else wanted)
    if kind == wanted:
        return
    found = KINDS.get(str(kind))
    if found is None:
        known = "does not say its kind" if kind is None else f"is of kind {kind!r}, which this version does not know"
        raise UserError(f"it {known}; expected {model.title}", str(path))
    remedy = f"; {found.remedy}" if found.remedy else ""
    raise UserError(f"it holds {found.title}, not {model.title}{remedy}", str(path))


def _earlier_kind(document: Mapping[str, Any]) -> str | None:
    """Of the files that share a name, which one this is."""
    return next((kind for kind, one in KINDS.items() if one.signature and one.signature <= document.keys()), None)


_said: set[tuple[str, str]] = set()


def _say_once(path: Path, model: type[File], fields: list[str]) -> None:
    new = sorted({field for field in fields if (model.__name__, field) not in _said})
    _said.update((model.__name__, field) for field in new)
    if new:
        logger.warning("%s: fields that this version does not know are left out: %s", path, ", ".join(new))


def _forget(document: Any, place: tuple[int | str, ...]) -> None:
    for name in place[:-1]:
        document = document[name]
    document.pop(place[-1], None)


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(str(name) for name in place)


def reasons(error: Exception) -> str:
    """What is wrong, field by field, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = [f"{_dotted(problem['loc'])}: {problem['msg']}".removeprefix(": ") for problem in error.errors()]
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
