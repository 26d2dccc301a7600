"""Conditions as the Kubernetes API conventions have them. Pure: a status goes in, a new one comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

ConditionStatus = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024
"""Bytes of a message; longer ones are cut. The API server allows events no more, and people read no more."""


@dataclass(frozen=True)
class Condition:
    """What is to be said about one condition type now."""

    type: str
    status: ConditionStatus
    reason: str
    """One CamelCase word for programs; each is in `docs/reference/conditions.md`."""
    message: str
    """A sentence for people."""


def merge_conditions(
    previous: Iterable[Mapping[str, Any]], current: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The `status.conditions` to write.

    Types of `current` come in its order; types of `previous` that it does not speak of stay behind them, unchanged.
    `lastTransitionTime` moves only where `status` does, so that the same world always gives the same list.
    """
    before = {str(condition["type"]): dict(condition) for condition in previous}
    merged = []
    for condition in current:
        old = before.pop(condition.type, None)
        flipped = old is None or old.get("status") != condition.status
        since = timestamp(now) if flipped or old is None else old.get("lastTransitionTime", timestamp(now))
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": shortened(condition.message),
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return merged + list(before.values())


def find_condition(body: Mapping[str, Any] | None, type_: str) -> dict[str, Any] | None:
    """The condition of that type in an object's status."""
    conditions = ((body or {}).get("status") or {}).get("conditions") or []
    return next((dict(condition) for condition in conditions if condition.get("type") == type_), None)


def is_true(body: Mapping[str, Any] | None, type_: str) -> bool:
    """Whether the object says that the condition holds. Of any object: Deployments, Jobs and pods have them too."""
    condition = find_condition(body, type_)
    return condition is not None and condition.get("status") == "True"


def shortened(message: str, longest: int = MAX_MESSAGE) -> str:
    """At most `longest` bytes of UTF-8."""
    encoded = message.encode()
    if len(encoded) <= longest:
        return message
    return f"{encoded[: longest - 3].decode(errors='ignore')}…"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """A `metav1.Time` or `MicroTime`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
