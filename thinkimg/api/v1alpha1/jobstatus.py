"""Status of a ToolRLJob: what the operator has seen. Figures are strings, because CRDs should not hold floats."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .meta import Condition, Time
from .resource import Block, ListMapKey, NonNegative


class Metric(Block):
    """One number of a stage's progress."""

    name: str
    """Name, as in `reward`."""
    value: str
    """Decimal figure, as in "0.61"."""


class Progress(Block):
    """How far a stage is; for people, nothing is decided by it."""

    step: NonNegative = 0
    """Steps done: of an optimiser, or the trajectories of a synthesis, or the answers of an evaluation."""
    total_steps: NonNegative | None = None
    """Steps to do, where it is known."""
    observed_time: Time | None = None
    """When this was read."""
    metrics: list[Metric] = Field(default_factory=list)
    """Latest figures."""


class CheckpointStatus(Block):
    """The newest complete checkpoint of a stage."""

    step: NonNegative
    """Optimiser step it holds."""
    path: str
    """Where it is, below the storage root."""
    time: Time | None = None
    """When it was complete."""


class StageStatus(Block):
    """One stage as it stands."""

    name: str
    """Name of the stage."""
    state: Literal["Pending", "Running", "Restarting", "Succeeded", "Failed"] = "Pending"
    """Where it stands."""
    attempt: NonNegative = 0
    """Number of the current attempt."""
    restarts: NonNegative = 0
    """Restarts after failures, counted or not; the pause before the next one grows with them."""
    job_name: str = ""
    """Job of the current attempt."""
    attempt_start_time: Time | None = None
    """When that Job was made."""
    start_time: Time | None = None
    """Start of the first attempt."""
    completion_time: Time | None = None
    """End of the last attempt."""
    restart_time: Time | None = None
    """Restarting: before this no new attempt starts."""
    failure: str = ""
    """Why the last attempt failed; empty when none did."""
    ready_pods: NonNegative = 0
    """Pods of the attempt that are ready."""
    checkpoint: CheckpointStatus | None = None
    """Newest complete checkpoint."""
    progress: Progress | None = None
    """How far it is."""


class Result(Block):
    """One row of the table."""

    model: str
    """Stage name, or `base`."""
    accuracy: str
    """Greedy accuracy, 0 to 1, as in "0.778"; empty where answers were lost to the infrastructure."""
    ci95: Annotated[list[str], Field(max_length=2)] = Field(default_factory=list)
    """Lower and upper end of the 95 % interval; where answers were lost, what the accuracy is at least and at most."""
    tool_calls_per_answer: str = ""
    """Mean number of calls, as in "1.4"."""


class ChildNames(Block):
    """Names of the job's own objects. They do not change while the job is there."""

    service: str
    """Service, below which rank 0 has its name, and NetworkPolicy."""
    manifest: str
    """ConfigMap that every attempt reads: written once, when the job starts."""


class Pinned(Block):
    """What the first attempt began with. Later ones have it too, also after an upgrade of the operator."""

    image: str
    """Image of stages that name none: the operator's default when the job started."""
    operator_version: str = ""
    """Version of the operator that started the job; empty where it was started before versions were noted."""
    contract_version: NonNegative | None = None
    """Version of the contract between operator and stages."""
    manifest_digest: str = ""
    """Digest of what the manifest's ConfigMap holds."""


class ImageStatus(Block):
    """An image of the job, and what it was when a pod first ran it."""

    image: str
    """Image, as the job or the operator names it."""
    digest: str = ""
    """Digest that the node reported, as in "sha256:…": later attempts run image@digest. Empty: it is not pinned."""
    message: str = ""
    """Why it is not pinned."""


class ToolRLJobStatus(Block):
    """What the operator has seen of a job. Conditions: Accepted, ToolsReady, PodsReady, Suspended, Complete, Failed."""

    observed_generation: NonNegative | None = None
    """`metadata.generation` that this status speaks of."""
    start_time: Time | None = None
    """When the first stage began; from then on stages are immutable."""
    completion_time: Time | None = None
    """When the last stage ended."""
    current_stage: str = ""
    """Stage that runs now."""
    restarts: NonNegative = 0
    """Counted restarts so far."""
    suspended_seconds: NonNegative = 0
    """How long the job was suspended, without the time since it was suspended last."""
    stages: Annotated[list[StageStatus], ListMapKey("name")] = Field(default_factory=list)
    """Every stage as it stands."""
    names: ChildNames | None = None
    """Names of the job's own objects."""
    pinned: Pinned | None = None
    """What the first attempt began with, which later attempts have too."""
    images: Annotated[list[ImageStatus], ListMapKey("image"), Field(max_length=64)] = Field(default_factory=list)
    """The images that pods have run, with their digests."""
    results: Annotated[list[Result], Field(max_length=20)] = Field(default_factory=list)
    """The table."""
    conditions: Annotated[list[Condition], ListMapKey("type")] = Field(default_factory=list)
    """Accepted, ToolsReady, PodsReady, Suspended, Complete, Failed."""
