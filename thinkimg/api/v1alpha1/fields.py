"""What becomes of every field: honoured, ignored with a warning, or refused, in a local run and on a cluster.

A row that is ignored or refused stands for everything below it. Honoured rows stand for themselves only, so a new
field is in no row until somebody has decided, and a test fails until then. `check_local` and the reference page read
this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .explain import block_of
from .resource import Unit
from .toolrljob import ToolRLJob
from .visiontool import VisionTool

Treatment = Literal["honoured", "ignored", "refused"]
Place = Literal["local", "cluster"]


@dataclass(frozen=True)
class Row:
    """What a field does in each place, and why it does not where it does not."""

    local: Treatment = "honoured"
    cluster: Treatment = "honoured"
    reason: str = ""
    """A sentence; empty when both places honour the field."""


def honoured(*paths: str) -> dict[str, Row]:
    return {path: Row() for path in paths}


def ignored_locally(reason: str, *paths: str) -> dict[str, Row]:
    return {path: Row(local="ignored", reason=reason) for path in paths}


def refused_locally(reason: str, *paths: str) -> dict[str, Row]:
    return {path: Row(local="refused", reason=reason) for path in paths}


def ignored_on_cluster(reason: str, *paths: str) -> dict[str, Row]:
    return {path: Row(cluster="ignored", reason=reason) for path in paths}


NO_PODS = "A local run has processes, not pods."

VISION_TOOL: dict[str, Row] = {
    **honoured("spec.tool", "spec.backend", "spec.options", "spec.callTimeoutSeconds", "spec.drainSeconds"),
    **honoured("spec.env", "spec.env[].name", "spec.env[].value", "spec.env[].valueFrom"),
    **ignored_locally("A local run has one process for each tool.", "spec.replicas", "spec.autoscaling"),
    **ignored_locally(
        NO_PODS,
        "spec.image",
        "spec.imagePullPolicy",
        "spec.imagePullSecrets",
        "spec.serviceAccountName",
        "spec.runtimeClassName",
        "spec.resources",
        "spec.updateStrategy",
        "spec.shmSize",
        "spec.nodeSelector",
        "spec.tolerations",
        "spec.affinity",
        "spec.priorityClassName",
        "spec.podTemplatePatch",
    ),
    **honoured("spec.weights", "spec.weights.uri", "spec.weights.revision"),
    **honoured("spec.weights.secretRef", "spec.weights.secretRef.name", "spec.weights.secretRef.key"),
    **ignored_locally(
        "Downloads stay in the folder of weights here: thinkimg weights fetch.", "spec.weights.claimName"
    ),
    **ignored_locally("Local tool servers listen on 127.0.0.1 only.", "spec.auth"),
    **honoured("spec.batching", "spec.batching.maxSize", "spec.batching.maxWaitMilliseconds"),
}

TOOL_RL_JOB: dict[str, Row] = {
    **honoured("spec.model", "spec.model.uri", "spec.model.revision", "spec.model.trustRemoteCode"),
    **honoured("spec.model.minPixels", "spec.model.maxPixels", "spec.model.imageCacheSize", "spec.reportTo"),
    **honoured("spec.model.thinking"),
    **honoured("spec.model.secretRef", "spec.model.secretRef.name", "spec.model.secretRef.key"),
    **honoured("spec.tools", "spec.tools[].name", "spec.seed"),
    **honoured("spec.data", *(f"spec.data.{split}" for split in ("train", "validation", "trajectories", "test"))),
    **honoured(
        *(
            f"spec.data.{split}.{name}"
            for split in ("train", "validation", "trajectories", "test")
            for name in ("uri", "revision")
        ),
        *(f"spec.data.{split}.template" for split in ("train", "validation", "test")),
    ),
    **honoured("spec.agent", "spec.agent.format", "spec.agent.prompt", "spec.agent.maxRounds"),
    **honoured("spec.agent.systemPrompt"),
    **honoured("spec.agent.maxTokensPerTurn", "spec.agent.maxTokens", "spec.agent.maxSecondsPerTrajectory"),
    **ignored_on_cluster("Only `make table` repeats a run; a cluster runs one ToolRLJob per seed.", "spec.seeds"),
    **honoured("spec.stages", "spec.stages[].name", "spec.stages[].type", "spec.stages[].from"),
    **honoured("spec.stages[].nodes", "spec.stages[].procsPerNode"),
    **ignored_locally(NO_PODS, "spec.stages[].resources", "spec.stages[].pods"),
    **honoured(
        *(
            f"{owner}.scorer{name}"
            for owner in ("spec", "spec.stages[]")
            for name in (
                "",
                ".name",
                ".judge",
                ".judge.baseUrl",
                ".judge.model",
                ".judge.apiKeyVariable",
                ".judge.criteria",
            )
        )
    ),
    **honoured(
        "spec.stages[].synthesize",
        "spec.stages[].synthesize.trajectories",
        "spec.stages[].synthesize.planner",
        "spec.stages[].synthesize.planner.type",
        "spec.stages[].synthesize.planner.chains",
        "spec.stages[].synthesize.planner.model",
        "spec.stages[].synthesize.planner.model.baseUrl",
        "spec.stages[].synthesize.planner.model.name",
        "spec.stages[].synthesize.planner.model.secretRef",
        "spec.stages[].synthesize.planner.model.secretRef.name",
        "spec.stages[].synthesize.planner.model.secretRef.key",
        "spec.stages[].synthesize.filters",
        "spec.stages[].synthesize.filters.requireCorrect",
        "spec.stages[].synthesize.filters.maxToolErrors",
        "spec.stages[].synthesize.filters.minToolCalls",
        "spec.stages[].synthesize.filters.refuseRepeats",
        "spec.stages[].synthesize.maxRounds",
        "spec.stages[].synthesize.concurrency",
        "spec.stages[].synthesize.toolUse",
    ),
    **honoured(
        "spec.stages[].sft",
        "spec.stages[].sft.toolUse",
        "spec.stages[].sft.epochs",
        "spec.stages[].sft.maxSteps",
        "spec.stages[].sft.maxTokens",
        "spec.stages[].sft.maxTokens.fromStage",
        "spec.stages[].sft.maxSeconds",
        "spec.stages[].sft.maxSeconds.fromStage",
        "spec.stages[].sft.batchSize",
        "spec.stages[].sft.learningRate",
        "spec.stages[].sft.lora",
        "spec.stages[].sft.lora.rank",
        "spec.stages[].sft.lora.alpha",
        "spec.stages[].sft.lora.dropout",
        "spec.stages[].sft.lora.targetModules",
        "spec.stages[].sft.lengthGrouping",
        "spec.stages[].sft.zeroStage",
        "spec.stages[].sft.gate",
        "spec.stages[].sft.gate.minSampledAccuracy",
        "spec.stages[].sft.gate.questions",
        "spec.stages[].sft.gate.extendOnce",
        "spec.stages[].sft.dataFrom",
        "spec.stages[].sft.seed",
        "spec.stages[].sft.allowNoLearning",
        "spec.stages[].sft.args",
    ),
    **honoured(
        "spec.stages[].grpo",
        "spec.stages[].grpo.toolUse",
        "spec.stages[].grpo.maxSteps",
        "spec.stages[].grpo.promptsPerStep",
        "spec.stages[].grpo.numGenerations",
        "spec.stages[].grpo.learningRate",
        "spec.stages[].grpo.temperature",
        "spec.stages[].grpo.beta",
        "spec.stages[].grpo.lossType",
        "spec.stages[].grpo.importanceCorrection",
        "spec.stages[].grpo.importanceCorrection.mode",
        "spec.stages[].grpo.importanceCorrection.clipMin",
        "spec.stages[].grpo.importanceCorrection.clipMax",
        "spec.stages[].grpo.lora",
        "spec.stages[].grpo.lora.rank",
        "spec.stages[].grpo.lora.alpha",
        "spec.stages[].grpo.lora.dropout",
        "spec.stages[].grpo.lora.targetModules",
        "spec.stages[].grpo.zeroStage",
        "spec.stages[].grpo.maxRounds",
        "spec.stages[].grpo.maxTokensPerTurn",
        "spec.stages[].grpo.maxTokens",
        "spec.stages[].grpo.maxSecondsPerTrajectory",
        "spec.stages[].grpo.rewards",
        "spec.stages[].grpo.rewards[].name",
        "spec.stages[].grpo.rewards[].weight",
        "spec.stages[].grpo.rewards[].targetRate",
        "spec.stages[].grpo.rewards[].maxTokens",
        "spec.stages[].grpo.rewards[].judge",
        "spec.stages[].grpo.rewards[].judge.baseUrl",
        "spec.stages[].grpo.rewards[].judge.model",
        "spec.stages[].grpo.rewards[].judge.apiKeyVariable",
        "spec.stages[].grpo.rewards[].judge.criteria",
        "spec.stages[].grpo.tokensPerPass",
        "spec.stages[].grpo.microBatch",
        "spec.stages[].grpo.concurrency",
        "spec.stages[].grpo.toolConcurrency",
        "spec.stages[].grpo.resampleLimit",
        "spec.stages[].grpo.refill",
        "spec.stages[].grpo.refillGroups",
        "spec.stages[].grpo.forkGroups",
        "spec.stages[].grpo.maskTruncated",
        "spec.stages[].grpo.allowNoLearning",
        "spec.stages[].grpo.args",
    ),
    **honoured(
        "spec.stages[].evaluate",
        "spec.stages[].evaluate.models",
        "spec.stages[].evaluate.split",
        "spec.stages[].evaluate.questions",
        "spec.stages[].evaluate.sampled",
        "spec.stages[].evaluate.temperature",
        "spec.stages[].evaluate.samples",
        "spec.stages[].evaluate.control",
        "spec.stages[].evaluate.controlScope",
        "spec.stages[].evaluate.concurrency",
    ),
    **ignored_on_cluster(
        "Only `thinkimg table` puts runs together; one run's intervals are Wilson's, which resample nothing.",
        "spec.stages[].evaluate.bootstrap",
    ),
    **ignored_locally(NO_PODS, "spec.image", "spec.imagePullSecrets", "spec.serviceAccountName"),
    **ignored_locally(NO_PODS, "spec.pods", "spec.podTemplatePatch"),
    "spec.scheduling": Row("ignored", "refused", "This version has no gang scheduling, and a local run no pods."),
    **honoured("spec.env", "spec.env[].name", "spec.env[].value", "spec.env[].valueFrom"),
    **honoured("spec.secretRefs", "spec.secretRefs[].name"),
    **ignored_locally("A local run imports the modules from PYTHONPATH.", "spec.code"),
    **honoured("spec.checkpoint", "spec.checkpoint.everySteps", "spec.checkpoint.keep"),
    **ignored_locally("A local run keeps everything in its run folder.", "spec.storage"),
    **ignored_locally("A local run stops at a failure; started again, it goes on.", "spec.failurePolicy"),
    **refused_locally("A local run begins when it is started; Ctrl-C suspends it.", "spec.suspend"),
    **ignored_locally("A local run has no deadlines.", "spec.startDeadlineSeconds", "spec.activeDeadlineSeconds"),
    **ignored_locally("A local run is never deleted by itself.", "spec.ttlSecondsAfterFinished"),
    **ignored_locally("No controller is at work here.", "spec.managedBy"),
}

_ENDS = "It says only whether a training without any gradient ends the run; tests/training/test_soundness.py tries it."
CHANGES_NOTHING: dict[str, str] = {
    "spec.stages[].sft.allowNoLearning": _ENDS,
    "spec.stages[].grpo.allowNoLearning": _ENDS,
    "spec.stages[].grpo.lora.dropout": "Every value but 0 is refused: the loss must see what was sampled from.",
}
"""Fields of the stages' blocks that change nothing in what a stage makes, each with the reason. All others do: a test
walks them."""

TABLES: dict[type[BaseModel], dict[str, Row]] = {VisionTool: VISION_TOOL, ToolRLJob: TOOL_RL_JOB}

_ALWAYS_MUTABLE = ("spec.suspend", "spec.activeDeadlineSeconds", "spec.ttlSecondsAfterFinished", "spec.failurePolicy")
WHILE_SUSPENDED = "until status.startTime is set, and while spec.suspend is true"
_MUTABLE_WHILE_SUSPENDED = ("spec.pods", "spec.stages[].pods", "spec.stages[].resources")


def row_of(resource: type[BaseModel], path: str) -> Row | None:
    """The row that decides about the field at `path` (list positions as `[]`); None when nobody has decided."""
    table = TABLES[resource]
    if path in table:
        return table[path]
    while "." in path:
        path = path.rpartition(".")[0].removesuffix("[]")
        row = table.get(path)
        if row:
            return row if (row.local, row.cluster) != ("honoured", "honoured") else None
    return None


def mutability(resource: type[BaseModel], path: str) -> str:
    """When the field at `path` may be changed on a cluster."""
    if resource is VisionTool:
        return "never" if path == "spec.tool" else "always"
    if path.startswith(_ALWAYS_MUTABLE):
        return "always"
    if any(path == field or path.startswith(f"{field}.") for field in _MUTABLE_WHILE_SUSPENDED):
        return WHILE_SUSPENDED
    return "never" if path == "spec.managedBy" else "until status.startTime is set"


@dataclass(frozen=True)
class DeclaredField:
    """One field of a resource, as its model declares it."""

    path: str
    """As in `spec.stages[].from`."""
    info: FieldInfo = field(repr=False)

    @property
    def type(self) -> str:
        return _type_name(self.info.annotation)

    @property
    def unit(self) -> str:
        return _unit(self.info.annotation, self.info.metadata)

    @property
    def default(self) -> str:
        """As in YAML; `required` or, where the description says what applies, empty."""
        if self.info.is_required():
            return "required"
        value = self.info.get_default(call_default_factory=True)
        if isinstance(value, BaseModel) or value is None or value == {} or value == []:
            return ""
        if isinstance(value, list):
            return f"[{', '.join(_scalar(item) for item in value)}]"
        return _scalar(value)

    @property
    def description(self) -> str:
        return " ".join((self.info.description or "").split())


def declared_fields(resource: type[BaseModel]) -> Iterator[DeclaredField]:
    """Every field below `spec`, parents before children, in the order of declaration."""
    spec = block_of(resource.model_fields["spec"].annotation)
    assert spec is not None
    yield from _below(spec, "spec")


def _below(block: type[BaseModel], path: str) -> Iterator[DeclaredField]:
    for name, info in block.model_fields.items():
        here = f"{path}.{info.alias or name}"
        yield DeclaredField(here, info)
        inner = block_of(info.annotation)
        if inner:
            yield from _below(inner, f"{here}[]" if _is_list(info.annotation) else here)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))


def _scalar(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"{{{', '.join(f'{k}: {_scalar(v)}' for k, v in value.model_dump().items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unit(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        if isinstance(item, Unit):
            return item.name
    if get_origin(annotation) is Annotated:
        return _unit(get_args(annotation)[0], list(get_args(annotation)[1:]))
    return next((unit for part in get_args(annotation) if (unit := _unit(part, []))), "")


def _plural(name: str) -> str:
    return name if "|" in name else f"{name}s"


_TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _type_name(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in _TYPE_NAMES:
        return _TYPE_NAMES[annotation]
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is list:
        return f"list of {_plural(_type_name(parts[0]))}"
    if origin is dict:
        return "object" if parts[1] is Any else f"map of {_plural(_type_name(parts[1]))}"
    present = [part for part in parts if part is not type(None)]
    if present:
        return _type_name(present[0])
    return "mapping" if block_of(annotation) else "any"
