"""What fields are made of: the strict base class, the scalar types with their units, and `refuse`.

Validation is strict (`replicas: "2"` is an error) because the API server is strict too, and one file serves both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, NoReturn, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """What the API server checks, in CEL: the CRD's side of a check that Python makes here."""

    cel: str
    """True when the value, called `self`, is right. An update sees the value before it as `oldSelf`."""
    message: str
    """What is wrong and what would be right; the server puts the field's path and value before it."""
    field: str = ""
    """The field of `self` that the server blames, as YAML has it; empty: the value itself."""

    def as_validation(self) -> dict[str, str]:
        place = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **place}


@dataclass(frozen=True)
class Checked:
    """A value's check in both places: `check` raises (see `refuse`) where `rules` are false."""

    check: Callable[[Any], Any]
    rules: tuple[Rule, ...]
    longest: int = 1024
    """Most characters of a text, because the server bounds what a rule may cost."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler(source)
        if inner["type"] == "str":
            cast(core_schema.StringSchema, inner)["max_length"] = self.longest
        return core_schema.no_info_after_validator_function(self.check, inner)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        rules = [*described.get(VALIDATIONS, ()), *(rule.as_validation() for rule in self.rules)]
        longest = {"maxLength": self.longest} if described.get("type") == "string" else {}
        return described | longest | {VALIDATIONS: rules}


@dataclass(frozen=True)
class ListMapKey:
    """The field that is unique among a list's items; on the server, that makes the list a map."""

    name: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.name]}


@dataclass(frozen=True)
class Distinct:
    """No value of the list is there twice."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "set"}


class Block(BaseModel):
    """A mapping of a manifest: camelCase in YAML, snake_case in Python, unknown keys refused.

    The string below a field is its description; it goes into the reference page and the CRD.
    """

    cel: ClassVar[tuple[Rule, ...]] = ()
    """Checks between the fields of this block, as the API server makes them."""
    defaulted_elsewhere: ClassVar[tuple[str, ...]] = ()
    """Fields whose default depends on other fields: the API server must leave them out when the user does."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,  # Python code writes snake_case; the loader of manifests switches this off
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any) -> Any:
        """A key without a value (`replicas:`) takes its default, as the API server has it."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    @classmethod
    def default_of(cls, name: str) -> Any:
        """The default that the API server writes for the field, as YAML has it; None where it leaves it out."""
        info = cls.model_fields[name]
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        return None if default in (None, "", [], {}) or name in cls.defaulted_elsewhere else _as_written(default)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(schema))
        if cls.cel:
            described[VALIDATIONS] = [rule.as_validation() for rule in cls.cel]
        for name, info in cls.model_fields.items():
            described["properties"][info.alias or name].pop("default", None)
            if (default := cls.default_of(name)) is not None:
                described["properties"][info.alias or name]["default"] = default
        return described


def _as_written(default: Any) -> Any:
    """A default as YAML has it. Blocks are written out: the API server checks a default before it fills it up."""
    if isinstance(default, Block):
        fields = {info.alias or name: default.default_of(name) for name, info in type(default).model_fields.items()}
        given = default.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in fields.items() if value is not None} | given
    if isinstance(default, list):
        return [_as_written(item) for item in default]
    return default


@dataclass(frozen=True)
class Violation:
    """A broken rule, with its place relative to the block that checks it; `explain` makes it a `Problem`."""

    loc: tuple[str | int, ...]
    message: str
    remedy: str


def refuse(message: str, remedy: str) -> NoReturn:
    """Refuse the value being validated: what is wrong (no full stop), and a sentence that says what would be right."""
    raise _error([Violation((), message, remedy)])


def refuse_all(violations: Iterable[Violation]) -> None:
    """Refuse the block being validated for all of `violations` at once; with none, accept it."""
    broken = list(violations)
    if broken:
        raise _error(broken)


def _error(broken: list[Violation]) -> PydanticCustomError:
    text = " ".join(f"{path_of(v.loc)}{': ' if v.loc else ''}{v.message}. {v.remedy}" for v in broken)
    return PydanticCustomError("rules", "{text}", {"text": text, "violations": broken})


def path_of(loc: Sequence[str | int]) -> str:
    """`("spec", "stages", 2, "from")` as people write it: `spec.stages[2].from`; keys with dots go in brackets."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            path += f".{part}" if path else part
        else:
            path += f"[{part!r}]"
    return path


def suggestion(word: str, known: Iterable[str]) -> str:
    """ "Did you mean "x"?" when `known` has a near name, otherwise the list of what is known."""
    names = list(known)
    by_folded = {name.replace("_", "").replace("-", "").lower(): name for name in names}
    near = get_close_matches(word.replace("_", "").replace("-", "").lower(), by_folded, n=1, cutoff=0.6)
    if near:
        return f'Did you mean "{by_folded[near[0]]}"?'
    return f"Known are: {', '.join(names)}." if names else "None is known here."


@dataclass(frozen=True)
class Unit:
    """The unit of a number, attached to its type with `Annotated`; the reference page prints it."""

    name: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-unit": self.name}


Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[int, Field(ge=0), Unit("seconds")]
PositiveSeconds = Annotated[int, Field(ge=1), Unit("seconds")]
FractionalSeconds = Annotated[float, Field(gt=0), Unit("seconds")]
Milliseconds = Annotated[float, Field(ge=0), Unit("milliseconds")]
Steps = Annotated[int, Field(ge=1), Unit("optimiser steps")]
Tokens = Annotated[int, Field(ge=1), Unit("tokens")]
Rounds = Annotated[int, Field(ge=1, le=64), Unit("rounds")]
Questions = Annotated[int, Field(ge=1), Unit("questions")]
Nodes = Annotated[int, Field(ge=1, le=1024), Unit("pods")]
Processes = Annotated[int, Field(ge=1, le=64), Unit("processes")]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Object = dict[str, Any]
"""A piece of Kubernetes' own API, or options that only their consumer understands: passed on as it is."""


_QUANTITY = r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?"
_QUANTITIES = 'Write a whole number, or a number with an optional suffix in quotes, as in 1, "0.5", "500m" or "16Gi".'


def _quantity_text(value: Any) -> Any:
    """A custom resource's quantity is a string or an integer; the API server knows no other way to write it."""
    if isinstance(value, float):
        refuse(f"{value} is a number without quotes", _QUANTITIES)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_quantity(value: str) -> str:
    if len(value) > 32 or not re.fullmatch(_QUANTITY, value):
        refuse(f'"{value}" is not a quantity', _QUANTITIES)
    return value


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Checked(_is_quantity, ()),
    # No rule: what a rule costs on a value of either type cannot be bounded.
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": 32, "pattern": f"^{_QUANTITY}$"}),
]


_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SIZE = r"[0-9]+(\.[0-9]+)?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
_SIZES = "Write bytes as a whole number, or with a suffix, as in 2Gi, 512Mi or 0."


def _is_size(value: str) -> str:
    if len(value) > 32 or not re.fullmatch(_SIZE, value):
        refuse(f'"{value}" is no amount of memory', _SIZES)
    return value


def bytes_of(size: str) -> int:
    """Of a `MemorySize`, as in 2Gi."""
    number = size.rstrip("kKMGTPEi")
    return int(Decimal(number) * (_BINARY | _DECIMAL)[size.removeprefix(number)])


MemorySize = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Checked(_is_size, ()),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": 32, "pattern": f"^{_SIZE}$"}),
]
"""Bytes, as Kubernetes writes them."""
Quantities = Annotated[dict[str, Quantity], Field(max_length=32)]
"""Amounts by name of the resource."""


def dns_label(longest: int, *, first: str = "a-z0-9") -> Checked:
    """Check of a DNS label of at most `longest` characters that begins with one of `first`."""
    begins = "a letter" if first == "a-z" else "a letter or digit"
    pattern = f"[{first}]([a-z0-9-]*[a-z0-9])?"
    remedy = f"Use 1 to {longest} of a-z, 0-9 and '-', beginning with {begins}, not ending with '-'."

    def check(value: str) -> str:
        if len(value) > longest or not re.fullmatch(pattern, value):
            refuse(f'"{value}" ({len(value)} characters) is not a valid name', remedy)
        return value

    rule = Rule(f"self.size() <= {longest} && self.matches('^{pattern}$')", f"it is not a valid name. {remedy}")
    return Checked(check, (rule,), longest=253)


ObjectName = Annotated[str, dns_label(63)]
"""Name of another Kubernetes object: Secret, ConfigMap, claim …"""
StageName = Annotated[str, dns_label(16)]
