"""The parts of a pod that both resources let the user set: environment, secrets, resources, placement."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from .resource import (
    Block,
    Checked,
    ListMapKey,
    Object,
    ObjectName,
    Quantities,
    Rule,
    Seconds,
    Violation,
    refuse,
    refuse_all,
)

RESERVED_ENV = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
RESERVED_ENV_PREFIXES = ("MASTER_", "PET_", "THINKIMG_")
_RESERVED = f"{', '.join(RESERVED_ENV)} and {', '.join(prefix + '*' for prefix in RESERVED_ENV_PREFIXES)}"
_NAME = "[A-Za-z_][A-Za-z0-9_]*"


def _env_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        refuse(f'"{name}" is not a name of an environment variable', "Use letters, digits and '_'; no digit first.")
    if name in RESERVED_ENV or name.startswith(RESERVED_ENV_PREFIXES):
        refuse(
            f'"{name}" is reserved: ThinkIMG sets it itself',
            f"Remove it, or use another name; reserved are {_RESERVED}.",
        )
    return name


_ENV_NAME = Checked(
    _env_name,
    (
        Rule(
            f"self.matches('^{_NAME}$')",
            "it is not a name of an environment variable. Use letters, digits and '_'; no digit first.",
        ),
        Rule(
            f"!(self in {list(RESERVED_ENV)}) && !{list(RESERVED_ENV_PREFIXES)}.exists(p, self.startsWith(p))",
            f"it is reserved: ThinkIMG sets it itself. Use another name; reserved are {_RESERVED}.",
        ),
    ),
)
EnvVarSource = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "secretKeyRef": {
                    "type": "object",
                    "description": "One value of a Secret.",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "required": ["name", "key"],
                    "properties": {
                        "name": {"type": "string", "minLength": 1, "description": "Name of the Secret."},
                        "key": {"type": "string", "minLength": 1, "description": "Key inside the Secret."},
                    },
                }
            },
        }
    ),
]


class NameRef(Block):
    """A Kubernetes object of the same namespace, by name."""

    name: ObjectName
    """Name of the object."""


NameRefs = Annotated[list[NameRef], Field(max_length=20)]


class SecretRef(Block):
    """One value of a Secret. Locally it is the content of the file `<secrets-dir>/<name>/<key>`."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "token"
    """Key inside the Secret."""


class EnvVar(Block):
    """An environment variable of the containers."""

    cel = (Rule("!(has(self.value) && has(self.valueFrom))", "it has both value and valueFrom. Keep one of them."),)

    name: Annotated[str, _ENV_NAME]
    """Name. `RANK`, `WORLD_SIZE`, `MASTER_*`, `PET_*`, `THINKIMG_*` and their relatives are reserved."""
    value: str | None = None
    """The value itself; empty when neither this nor `valueFrom` is given."""
    value_from: EnvVarSource | None = None
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


Environment = Annotated[list[EnvVar], Field(max_length=100), ListMapKey("name")]


class ResourceRequirements(Block):
    """Kubernetes resource requests and limits of a container."""

    limits: Quantities = Field(default_factory=dict)
    """At most this much, by resource name, as in `nvidia.com/gpu: 1`."""
    requests: Quantities = Field(default_factory=dict)
    """At least this much, by resource name; defaults to the limits."""


class ClaimRequest(Block):
    """A claim of the pod's `resourceClaims` that the container uses."""

    name: ObjectName
    """Name of the entry in `resourceClaims`."""
    request: str | None = None
    """Which request of the claim; default: all."""


class StageResources(ResourceRequirements):
    """Kubernetes resource requests, limits and claims of a stage's container."""

    claims: Annotated[list[ClaimRequest], Field(max_length=32), ListMapKey("name")] = Field(default_factory=list)
    """Devices of dynamic resource allocation, by entries of `pods.resourceClaims`."""


ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]


class Pods(Block):
    """Where pods run, and how."""

    node_selector: dict[str, str] | None = None
    """Labels that a node must have."""
    tolerations: list[Object] | None = None
    """Taints that the pods tolerate: Kubernetes' `Toleration`s."""
    affinity: Object | None = None
    """Kubernetes' `Affinity`."""
    topology_spread_constraints: list[Object] | None = None
    """How the pods are spread: Kubernetes' `TopologySpreadConstraint`s."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    scheduler_name: str | None = None
    """Scheduler of the pods; default: the cluster's own."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""
    image_pull_policy: ImagePullPolicy | None = None
    """When to pull the image; default: Kubernetes' own (Always for the tag `latest`, else IfNotPresent)."""
    resource_claims: list[Object] | None = None
    """Claims of dynamic resource allocation: Kubernetes' `PodResourceClaim`s, which stages use by
    `resources.claims`."""
    host_network: bool | None = None
    """Use the node's network. Ranks then meet at a port of the attempt's own, which the pods declare, so that each node
    has one pod of a stage of several processes; NetworkPolicies do not hold there."""
    termination_grace_period_seconds: Seconds | None = None
    """How long a pod has to save and end when it is told to: the step under way ends first. Default: 60."""


class StagePods(Pods):
    """Where the pods of one stage run, and how: each field replaces the job's of the same name."""

    image: str | None = None
    """Container image of this stage; default: the job's."""
    pod_template_patch: Object | None = None
    """Strategic merge patch of this stage's pod template, applied after the job's."""
