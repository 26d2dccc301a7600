"""ToolRLJob: one experiment, from the base model to the table, as an ordered list of stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .data import REVISION_OF_A_REPOSITORY, Data, revision_without_repository
from .failurepolicy import FailurePolicy
from .jobstatus import ToolRLJobStatus
from .meta import ObjectMeta
from .pods import Environment, NameRef, NameRefs, Pods, SecretRef
from .resource import (
    Block,
    Distinct,
    FractionalSeconds,
    ListMapKey,
    MemorySize,
    Object,
    ObjectName,
    PositiveSeconds,
    Quantity,
    Rounds,
    Rule,
    Seconds,
    Seed,
    Steps,
    Tokens,
    Unit,
    Violation,
    dns_label,
    refuse_all,
)
from .rewards import Scorer
from .rules import JOB_RULES, violations_of_job
from .stages import GRPO, INHERITED_LIMITS, Evaluate, Stage, Synthesize
from .uris import MODEL_URI

Pixels = Annotated[int, Field(ge=1, le=2**31 - 1), Unit("pixels")]
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]


class Model(Block):
    """The model that the experiment starts from."""

    cel = (
        REVISION_OF_A_REPOSITORY,
        Rule(
            "!has(self.minPixels) || !has(self.maxPixels) || self.minPixels <= self.maxPixels",
            "minPixels is more than maxPixels. Lower it.",
        ),
    )

    uri: Annotated[str, MODEL_URI]
    """`hf://org/name`, `pvc://claim/path`, or `preset://tiny`: a small model made from scratch. A local run also takes
    a folder or a stage of another run, relative to the manifest's folder; a cluster refuses it."""
    revision: str | None = None
    """Commit, tag or branch of a hub repository; pin a commit to be reproducible. Default: the main branch."""
    min_pixels: Pixels | None = None
    """Pictures of fewer pixels are enlarged to so many before the model sees them. Default: the model's own."""
    max_pixels: Pixels | None = None
    """Pictures of more pixels are reduced to so many before the model sees them; tools get them whole. Default: the
    model's own."""
    image_cache_size: Annotated[MemorySize, Unit("bytes")] = "2Gi"
    """How much memory each process spends on pictures as the model sees them, so that one which is shown again is not
    processed again: 24 MiB for one of 1024×1024 pixels. The least recently shown go first; 0 keeps none."""
    thinking: Literal["Enabled", "Disabled"] | None = None
    """Whether turns begin with a thought, `<think>`, in every stage, where the model's chat template lets one choose
    (Qwen3.5); a template without the choice is refused. Default: what the template does by itself."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    secret_ref: SecretRef | None = None
    """The hub's access token."""

    @property
    def thinks(self) -> bool | None:
        return None if self.thinking is None else self.thinking == "Enabled"

    @model_validator(mode="after")
    def _revision_of_a_repository(self) -> Model:
        refuse_all(revision_without_repository(self.uri, self.revision))
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            message = f"minPixels ({self.min_pixels}) is more than maxPixels ({self.max_pixels})"
            refuse_all([Violation(("minPixels",), message, "Lower it.")])
        return self


class ToolRef(Block):
    """A VisionTool that the model may call."""

    name: Annotated[str, dns_label(63, first="a-z")]
    """Name of a VisionTool of the same namespace; locally, of the same file."""


class Agent(Block):
    """The loop of model and tools: wording and limits, the same in every stage."""

    format: Literal["openthinkimg", "hermes"] = "openthinkimg"
    """Syntax of tool calls: OpenThinkIMG's JSON with thought and actions, or `<tool_call>` blocks."""
    prompt: Literal["compact", "full"] = "full"
    """How tools are explained to the model: names only, or with their whole schemas and the syntax of calls."""
    system_prompt: Annotated[str, Field(min_length=1, max_length=50_000)] | None = None
    """The system prompt in words of your own. The tools that are connected, and the syntax, take the place of `{tools}`
    in it, or stand behind it. Default: words of ours."""
    max_rounds: Rounds = 4
    """Most rounds of a trajectory."""
    max_tokens_per_turn: Tokens = 512
    """Most tokens of one turn."""
    max_tokens: Tokens = 32_768
    """Most tokens of one trajectory, prompt, pictures and observations included. One that needs more ends there."""
    max_seconds_per_trajectory: FractionalSeconds = 300.0
    """After so long without any sign of life (of the engine or a tool, for whichever trajectory) the one that waits is
    hung: it is run again with its seed, and if that hangs too counted as lost to the infrastructure. Waiting for its
    turn is no hang, and no clock decides an answer."""


class Code(Block):
    """The user's own Python: rewards and tasks."""

    config_map_ref: NameRef
    """ConfigMap whose keys are file names; they are put on the import path of every stage."""


class Checkpoint(Block):
    """When a training stage saves, and how much it keeps."""

    every_steps: Steps = 50
    """Steps between two checkpoints; the last step is always saved."""
    keep: Annotated[int, Field(ge=1), Unit("checkpoints")] = 3
    """How many of a stage are kept while it runs."""


class Storage(Block):
    """The volume that all stages share: data, checkpoints, results."""

    cel = tuple(
        Rule(
            f"!(has(self.claimName) && has(self.{field}))",
            f"{field} says how to make a claim, but claimName names one. Remove one of the two.",
        )
        for field in ("size", "storageClassName")
    )

    claim_name: ObjectName | None = None
    """An existing PersistentVolumeClaim; without it one is made."""
    size: Quantity | None = None
    """Size of the claim that is made. Default: 100Gi."""
    storage_class_name: str | None = None
    """StorageClass of the claim that is made; default: the cluster's."""
    access_modes: Annotated[list[AccessMode], Field(min_length=1)] = Field(default=["ReadWriteMany"])
    """Access modes of the claim that is made. Stages of several nodes on different machines need ReadWriteMany."""
    retention_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the claim that was made when the job is deleted, be it by its TTL."""

    @model_validator(mode="after")
    def _existing_or_made(self) -> Storage:
        if self.claim_name is not None:
            refuse_all(
                Violation(
                    (alias,), f"{alias} says how to make a claim, but claimName names one", "Remove one of the two."
                )
                for name, alias in (("size", "size"), ("storage_class_name", "storageClassName"))
                if getattr(self, name) is not None
            )
        return self


class Scheduling(Block):
    """How the pods of a stage are placed."""

    gang: Literal["None", "Coscheduling", "Volcano"] = "None"
    """Who makes sure that all pods of a stage start together or none."""


class ToolRLJobSpec(Block):
    """The experiment."""

    cel = JOB_RULES

    model: Model
    """The model to start from."""
    tools: Annotated[list[ToolRef], Field(max_length=100), ListMapKey("name")] = Field(default_factory=list)
    """Tools the model may call; on a cluster the job waits until they are Available."""
    data: Data
    """Where questions come from."""
    agent: Agent = Field(default_factory=Agent)
    """Syntax and limits of the loop of model and tools."""
    scorer: Scorer = Field(default_factory=lambda: Scorer(name="relaxed_normalised"))
    """What decides in every stage whether an answer is right, unless the stage says otherwise."""
    stages: Annotated[list[Stage], Field(min_length=1, max_length=12), ListMapKey("name")]
    """The steps, run in this order."""
    seed: Seed = 0
    """Seed of everything random in the run."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=10), Distinct()] = Field(
        default_factory=lambda: [0, 1, 2]
    )
    """Seeds of `make table`, which repeats the whole run with each."""

    image: str | None = None
    """Container image of the stages; default: the operator's runtime image."""
    image_pull_secrets: NameRefs = Field(default_factory=list)
    """Secrets with which the image is pulled."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods; default: one without any permission."""
    env: Environment = Field(default_factory=list)
    """Environment variables of every stage."""
    secret_refs: NameRefs = Field(default_factory=list)
    """Secrets whose keys become environment variables of every stage, as in HF_TOKEN or WANDB_API_KEY."""
    report_to: Annotated[list[Literal["tensorboard", "trackio", "wandb"]], Field(max_length=3), Distinct()] = Field(
        default_factory=list
    )
    """Programs that the curves of SFT and GRPO are sent to, beside the log; they are configured by their own
    environment variables, as in WANDB_PROJECT."""
    code: Code | None = None
    """The user's own rewards and tasks."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """When training stages save."""
    storage: Storage = Field(default_factory=Storage)
    """The volume that all stages share."""
    failure_policy: FailurePolicy = Field(default_factory=FailurePolicy)
    """What happens after failures."""
    suspend: bool = False
    """Stop the pods, after saving, and start no others until it is false again."""
    start_deadline_seconds: PositiveSeconds | None = None
    """Fail when tools and pods are not ready this long after the start; default: wait for ever."""
    active_deadline_seconds: PositiveSeconds | None = None
    """Fail after this long, suspended time not counted; default: never."""
    ttl_seconds_after_finished: Seconds | None = None
    """Delete the job this long after its end; default: never."""
    managed_by: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._/-]+$")] | None = None
    """Another controller, as `domain/name`; this operator then leaves the job alone."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """How pods are placed."""
    pods: Pods = Field(default_factory=Pods)
    """Where the pods of all stages run, and how; a stage's own `pods` replace it field by field."""
    pod_template_patch: Object = Field(default_factory=dict)
    """Strategic merge patch of every stage's pod template, applied last: for everything that has no field here."""

    @model_validator(mode="after")
    def _consistent(self) -> ToolRLJobSpec:
        refuse_all(violations_of_job(self))
        self._inherit()
        return self

    def _inherit(self) -> None:
        """A stage's limit that nobody wrote is the agent's, its scorer the job's."""
        for stage in self.stages:
            stage.scorer = stage.scorer or self.scorer
            block: Synthesize | GRPO | None = stage.synthesize or stage.grpo
            for limit in INHERITED_LIMITS:
                if block and limit in type(block).model_fields and limit not in block.model_fields_set:
                    setattr(block, limit, getattr(self.agent, limit))

    def stage(self, name: str) -> Stage:
        """The stage of that name; KeyError when there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def resamples(self) -> int:
        """Resamples of the intervals over seeds: the most that an Evaluate stage asks for."""
        asked = [stage.evaluate.bootstrap for stage in self.stages if stage.evaluate]
        return max(asked, default=Evaluate.model_fields["bootstrap"].default)

    def data_stage(self, stage: Stage) -> Stage | None:
        """The Synthesize stage whose trajectories an SFT stage learns; None: they are ready-made, in
        `data.trajectories` or `data.train`."""
        if stage.sft and stage.sft.data_from:
            return self.stage(stage.sft.data_from)
        earlier = self.stages[: self.stages.index(stage)]
        return next((s for s in reversed(earlier) if s.type == "Synthesize"), None)


class ToolRLJobMeta(ObjectMeta):
    name: Annotated[str, dns_label(30, first="a-z")]
    """Name of the job: at most 30 characters, because pods append stage, attempt and index to it."""


class ToolRLJob(Block):
    """One experiment: the same file runs on a laptop (`thinkimg run`) and on a cluster (`kubectl apply`)."""

    api_version: Literal["thinkimg.dev/v1alpha1"] = "thinkimg.dev/v1alpha1"
    kind: Literal["ToolRLJob"] = "ToolRLJob"
    metadata: ToolRLJobMeta
    spec: ToolRLJobSpec
    status: ToolRLJobStatus | None = None

    @property
    def name(self) -> str:
        return self.metadata.name
