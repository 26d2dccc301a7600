"""The allow list of the operator's chart, which its ValidatingAdmissionPolicies are made of."""

from functools import cache
from typing import Any

import yaml

from tests.support import REPOSITORY

FILE = REPOSITORY / "charts" / "thinkimg-operator" / "files" / "admission.yaml"


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return document


def levels(kind: str) -> list[dict[str, Any]]:
    """`path` and fields (`allowed`, `refused`, `checked`) of each object of a resource."""
    found: list[dict[str, Any]] = _document()[kind]
    return found


def refused(kind: str) -> set[str]:
    """Paths of the fields that are refused whatever they say."""
    return {f"{level['path']}.{name}" for level in levels(kind) for name in level.get("refused", [])}


def checked(kind: str) -> dict[str, str]:
    """Path -> check, of the fields of which the value decides."""
    return {
        f"{level['path']}.{name}": check for level in levels(kind) for name, check in level.get("checked", {}).items()
    }
