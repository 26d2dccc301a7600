"""Metadata and conditions, as the Kubernetes API conventions have them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from .resource import Block, NonNegative, Object, ObjectName

GROUP = "thinkimg.dev"
API_VERSION = f"{GROUP}/v1alpha1"

Time = Annotated[datetime, Field(strict=False)]
"""RFC 3339 in YAML and JSON."""


class ObjectMeta(Block):
    """`metadata` of a resource. The second half is written by the API server and never by people."""

    name: str
    """Name of the object, unique in its namespace."""
    namespace: ObjectName | None = None
    """Namespace; without one, that of the current context. A local run has none."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels. Those of `kueue.x-k8s.io/` are copied from a ToolRLJob to its Jobs."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations."""

    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[Object] = Field(default_factory=list)
    managed_fields: list[Object] = Field(default_factory=list)


class Condition(Block):
    """One condition of a status; `type` is unique within a resource."""

    type: str
    """What the condition is about, as in `Accepted` or `Complete`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = ""
    """Why, as one CamelCase word for programs."""
    message: str = ""
    """Why, as a sentence for people."""
    last_transition_time: Time | None = None
    """When `status` last changed."""
    observed_generation: NonNegative | None = None
    """`metadata.generation` that this condition speaks of."""
