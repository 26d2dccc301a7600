"""The parts of a pod that both resources let the user set: environment, secrets, resources."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from .resource import Block, Object, ObjectName, Quantity, Violation, refuse, refuse_all

RESERVED_ENV = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
RESERVED_ENV_PREFIXES = ("MASTER_", "PET_", "THINKIMG_")


def _env_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        refuse(f'"{name}" is not a name of an environment variable', "Use letters, digits and '_'; no digit first.")
    if name in RESERVED_ENV or name.startswith(RESERVED_ENV_PREFIXES):
        refuse(
            f'"{name}" is reserved: ThinkIMG sets it itself',
            f"Remove it, or use another name; reserved are {', '.join(RESERVED_ENV)} and "
            f"{', '.join(prefix + '*' for prefix in RESERVED_ENV_PREFIXES)}.",
        )
    return name


class NameRef(Block):
    """A Kubernetes object of the same namespace, by name."""

    name: ObjectName
    """Name of the object."""


class SecretRef(Block):
    """One value of a Secret. Locally it is the content of the file `<secrets-dir>/<name>/<key>`."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")] = "token"
    """Key inside the Secret."""


class EnvVar(Block):
    """An environment variable of the containers."""

    name: Annotated[str, AfterValidator(_env_name)]
    """Name. `RANK`, `WORLD_SIZE`, `MASTER_*`, `PET_*`, `THINKIMG_*` and their relatives are reserved."""
    value: str | None = None
    """The value itself; empty when neither this nor `valueFrom` is given."""
    value_from: Object | None = None
    """Where the value comes from: Kubernetes' `EnvVarSource`."""

    @model_validator(mode="after")
    def _one_source(self) -> EnvVar:
        if self.value is not None and self.value_from is not None:
            refuse(f'"{self.name}" has both value and valueFrom', "Keep one of them.")
        source = (self.value_from or {}).get("secretKeyRef")
        if source is not None and not (isinstance(source, dict) and source.get("name") and source.get("key")):
            place = ("valueFrom", "secretKeyRef")
            refuse_all([Violation(place, "a secret's name and key are needed", "Write {name: …, key: …}.")])
        return self

    @property
    def secret_ref(self) -> SecretRef | None:
        """The Secret's key that `valueFrom.secretKeyRef` names; None for any other source, and for an optional key."""
        source = (self.value_from or {}).get("secretKeyRef")
        if not isinstance(source, dict) or source.get("optional"):
            return None
        return SecretRef(name=source.get("name", ""), key=source.get("key", ""))


class ResourceRequirements(Block):
    """Kubernetes resource requests and limits of a container."""

    limits: dict[str, Quantity] = Field(default_factory=dict)
    """At most this much, by resource name, as in `nvidia.com/gpu: 1`."""
    requests: dict[str, Quantity] = Field(default_factory=dict)
    """At least this much, by resource name; defaults to the limits."""
