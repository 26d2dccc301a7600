"""What fields are made of: the strict base class, the scalar types with their units, and `refuse`.

Validation is strict (`replicas: "2"` is an error) because the API server is strict too, and one file serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


class Block(BaseModel):
    """A mapping of a manifest: camelCase in YAML, snake_case in Python, unknown keys refused.

    The string below a field is its description; it goes into the reference page and the CRD.
    """

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


def _quantity_text(value: Any) -> Any:
    """Kubernetes writes quantities as strings or numbers: `1`, `0.5`, "500m", "16Gi"."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_quantity(value: str) -> str:
    if not re.fullmatch(r"\+?(\d+(\.\d*)?|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?", value):
        refuse(f'"{value}" is not a quantity', 'Write a number with an optional suffix, as in 1, "500m" or "16Gi".')
    return value


Quantity = Annotated[str, BeforeValidator(_quantity_text), AfterValidator(_is_quantity)]


def dns_label(longest: int, *, first: str = "a-z0-9") -> AfterValidator:
    """Check of a DNS label of at most `longest` characters that begins with one of `first`."""
    begins = "a letter" if first == "a-z" else "a letter or digit"

    def check(value: str) -> str:
        if len(value) > longest or not re.fullmatch(rf"[{first}]([a-z0-9-]*[a-z0-9])?", value):
            refuse(
                f'"{value}" ({len(value)} characters) is not a valid name',
                f"Use 1 to {longest} of a-z, 0-9 and '-', beginning with {begins}, not ending with '-'.",
            )
        return value

    return AfterValidator(check)


ObjectName = Annotated[str, dns_label(63)]
"""Name of another Kubernetes object: Secret, ConfigMap, claim …"""
StageName = Annotated[str, dns_label(16)]
