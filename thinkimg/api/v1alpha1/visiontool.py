"""VisionTool: one vision tool as a service."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, model_validator

from .meta import Condition, ObjectMeta
from .pods import Environment, NameRefs, ResourceRequirements, SecretRef
from .resource import (
    Block,
    Checked,
    ListMapKey,
    NonNegative,
    Object,
    ObjectName,
    Positive,
    PositiveSeconds,
    Quantity,
    Rule,
    Seconds,
    Unit,
    Violation,
    dns_label,
    refuse,
    refuse_all,
    suggestion,
)
from .uris import WEIGHTS_URI

ToolName = Literal[
    "GroundingDINO",
    "SAM",
    "OCR",
    "Crop",
    "Point",
    "DrawHorizontalLineByY",
    "DrawVerticalLineByX",
    "DrawLine",
    "ZoominSubplot",
    "SegmentRegionAroundPoint",
    "GroundedSAM",
    "AdjustImage",
    "EstimateDepth",
    "Custom",
]
CUSTOM = "Custom"
BUILT_IN_TOOLS: tuple[str, ...] = tuple(name for name in get_args(ToolName) if name != CUSTOM)


_FUNCTION_NAME = "[A-Za-z][A-Za-z0-9_-]{0,63}"
_FUNCTION_NAMES = "Use 1 to 64 of a-z, A-Z, 0-9, '_' and '-', a letter first."


def _function_name(value: str) -> str:
    if not re.fullmatch(_FUNCTION_NAME, value):
        refuse(f'"{value[:80]}" is not a name of a tool', _FUNCTION_NAMES)
    return value


_FUNCTION_NAME_RULE = Rule(f"self.matches('^{_FUNCTION_NAME}$')", f"it is not a name of a tool. {_FUNCTION_NAMES}")


class Autoscaling(Block):
    """Bounds and target of the HorizontalPodAutoscaler, which then owns `replicas`."""

    cel = (
        Rule(
            "self.maxReplicas >= self.minReplicas",
            "maxReplicas is less than minReplicas. Raise maxReplicas or lower minReplicas.",
        ),
    )

    min_replicas: Positive = 1
    """Fewest replicas."""
    max_replicas: Positive
    """Most replicas."""
    metric: Literal["InFlight", "CPU"] = "InFlight"
    """What is measured: calls in flight per replica, or CPU use in percent of the request."""
    target: Positive = 8
    """Value of the metric to keep to: calls per replica (InFlight) or percent (CPU)."""
    behavior: Object = Field(default_factory=dict)
    """Kubernetes' `HorizontalPodAutoscalerBehavior`: how fast to scale up and down."""

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            refuse(
                f"maxReplicas ({self.max_replicas}) is less than minReplicas ({self.min_replicas})",
                "Raise maxReplicas or lower minReplicas.",
            )
        return self


class Weights(Block):
    """Where a tool that owns weights gets them."""

    uri: Annotated[str, WEIGHTS_URI] | None = None
    """`hf://org/name`, or `pvc://claim/path`; without one, the backend's own default."""
    revision: str | None = None
    """Commit, tag or branch of a hub repository; pin a commit to be reproducible. Default: the main branch."""
    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim that keeps downloaded weights between restarts. Default: an emptyDir."""
    secret_ref: SecretRef | None = None
    """The hub's access token."""


class Auth(Block):
    """The key without which the tool server refuses calls."""

    secret_ref: SecretRef
    """Where the key is. Trainers of this namespace get it handed by reference."""


class Batching(Block):
    """How calls are put together for a backend that computes in batches."""

    max_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most calls in a batch."""
    max_wait_milliseconds: Annotated[float, Field(ge=0, le=10_000), Unit("milliseconds")] = 5
    """How long the first call of a batch waits for others."""


class VisionToolSpec(Block):
    """What a tool is and how it is run."""

    cel = (
        Rule(
            f"self.tool in {[*BUILT_IN_TOOLS, CUSTOM]} || (has(self.image) && self.image != '')",
            f"it is not a tool of ThinkIMG. Those are {', '.join(BUILT_IN_TOOLS)}. A tool of your own needs image: one "
            "with its package.",
            "tool",
        ),
        Rule(
            f"self.tool != '{CUSTOM}' || (has(self.image) && self.image != '')",
            "a Custom tool has no image. Name an image that serves the wire protocol.",
        ),
        Rule(
            f"self.tool != '{CUSTOM}' || !has(self.backend) || self.backend == ''",
            "a Custom tool has no backends. Remove backend; use options or env instead.",
        ),
    )

    tool: Annotated[str, Checked(_function_name, (_FUNCTION_NAME_RULE,), longest=64)]
    """A built-in tool, a tool that an installed package registers in the entry point group `thinkimg.tools` (on a
    cluster: a package in `image`), or `Custom` with an image that serves the wire protocol."""
    backend: str | None = None
    """Which implementation of the tool; default: the one that needs no weights, where there is one."""
    replicas: NonNegative = 1
    """Number of servers. Owned by the autoscaler when `autoscaling` is set; the scale subresource writes it."""
    autoscaling: Autoscaling | None = None
    """Scale by load; without it `replicas` is fixed."""
    image: str | None = None
    """Container image; default: the operator's image for this tool. Needed by `Custom` and by tools of your own."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When to pull the image; default: Kubernetes' own (Always for the tag `latest`, else IfNotPresent)."""
    image_pull_secrets: NameRefs = Field(default_factory=list)
    """Secrets with which the image is pulled."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods; default: one without any permission."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU, memory and GPUs of one replica."""
    weights: Weights | None = None
    """Where the weights come from; default: the backend's own."""
    auth: Auth | None = None
    """Require a key with every call; default: none."""
    options: Object = Field(default_factory=dict)
    """Options of the backend, validated by the server when it starts."""
    call_timeout_seconds: PositiveSeconds = 30
    """Longest time one call may take before it counts as an infrastructure error and is retried elsewhere; callers may
    ask for less. A stage waits for all its tries together as long as its slowest tool may take."""
    batching: Batching = Field(default_factory=Batching)
    """Batches, for backends that compute in batches."""
    update_strategy: Literal["Auto", "Surge", "Replace"] = "Auto"
    """How servers are replaced when the tool changes. Surge: the new one is ready before an old one ends, which takes
    room for one more. Replace: one old server ends first; with one replica there is none for a while. Auto: Replace
    where a replica asks for devices (GPUs, resource claims), mounts a claim, or waits in a queue; else Surge."""
    drain_seconds: Seconds = 30
    """On termination, how long the server finishes what it has."""
    shm_size: Quantity | None = None
    """Size of /dev/shm; default: the container runtime's (64Mi)."""
    env: Environment = Field(default_factory=list)
    """Environment variables of the server."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: list[Object] = Field(default_factory=list)
    """Taints that the pods tolerate: Kubernetes' `Toleration`s."""
    affinity: Object = Field(default_factory=dict)
    """Kubernetes' `Affinity`."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    pod_template_patch: Object = Field(default_factory=dict)
    """Strategic merge patch of the pod template, applied last: for everything that has no field here."""

    def server_options(self, claim_folder: str = "") -> dict[str, Any]:
        """`options` as the server gets them: what `weights` says about where they are is among them.

        Args:
            claim_folder: where the claim of a `pvc://claim/path` is mounted.
        """
        if self.weights is None:
            return dict(self.options)
        found: dict[str, Any] = {}
        if self.weights.uri:
            scheme, _, rest = self.weights.uri.partition("://")
            path = rest.partition("/")[2]
            found["weights"] = f"{claim_folder}/{path}".rstrip("/") if scheme == "pvc" else self.weights.uri
        if self.weights.revision:
            found["revision"] = self.weights.revision
        return {**found, **self.options}

    @model_validator(mode="after")
    def _can_be_served(self, info: ValidationInfo) -> VisionToolSpec:
        """A name that is not ours needs an image, which may hold anything, or must be in `context["own_tools"]`: the
        tools of other packages that whoever validates can serve."""
        violations = []
        known = (*BUILT_IN_TOOLS, CUSTOM, *(info.context or {}).get("own_tools", ()))
        if self.tool not in known and not self.image:
            remedy = f"{suggestion(self.tool, known)} A tool of your own needs its package installed here, or `image`."
            violations.append(Violation(("tool",), f'"{self.tool}" is not a tool of ThinkIMG', remedy))
        if self.tool == CUSTOM and not self.image:
            violations.append(
                Violation(("image",), "a Custom tool has no image", "Name an image that serves the wire protocol.")
            )
        if self.tool == CUSTOM and self.backend:
            violations.append(
                Violation(("backend",), "a Custom tool has no backends", "Remove it; use options or env instead.")
            )
        names = [variable.name for variable in self.env]
        violations += [
            Violation(("env", i, "name"), f'"{name}" is there twice', "Keep one of them.")
            for i, name in enumerate(names)
            if name in names[:i]
        ]
        refuse_all(violations)
        return self


class VisionToolStatus(Block):
    """What the operator has seen of a tool. Conditions: Accepted, Available, Progressing, HeldByJobs."""

    observed_generation: NonNegative | None = None
    """`metadata.generation` that this status speaks of."""
    replicas: NonNegative = 0
    """Servers that exist."""
    ready_replicas: NonNegative = 0
    """Servers whose model is loaded."""
    selector: str = ""
    """Label selector of the pods, for the scale subresource."""
    url: str = ""
    """Address of the Service."""
    servers_service: str = ""
    """Headless Service whose name is resolved to every ready server."""
    image: str = ""
    """Image in use."""
    default_image_of: str = ""
    """Tool, or tool and backend, whose default image of the operator that is; empty where the spec names the image."""
    tools: list[str] = Field(default_factory=list)
    """Names of the functions that the server offers to models."""
    conditions: Annotated[list[Condition], ListMapKey("type")] = Field(default_factory=list)
    """Accepted, Available, Progressing, HeldByJobs."""


class VisionToolMeta(ObjectMeta):
    name: Annotated[str, dns_label(63, first="a-z")]
    """Name of the tool, and of its Service: at most 63 characters."""


class VisionTool(Block):
    """One vision tool as a service: on a cluster a Deployment behind a Service, locally a supervised process."""

    api_version: Literal["thinkimg.dev/v1alpha1"] = "thinkimg.dev/v1alpha1"
    kind: Literal["VisionTool"] = "VisionTool"
    metadata: VisionToolMeta
    spec: VisionToolSpec
    status: VisionToolStatus | None = None

    @property
    def name(self) -> str:
        return self.metadata.name
