"""What is left on disk by a run, a table over seeds, an evaluation, a synthesis: each file as a model.

`thinkimg.jsonfile` reads and writes them. A field that files of earlier versions lack has a default that says what its
absence means. `docs/reference/files.md` is made from these models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, FiniteFloat

from thinkimg.errors import UserError
from thinkimg.jsonfile import Figure, File, Part, read_object, validated

Interval = tuple[FiniteFloat, FiniteFloat]
"""Lower and upper bound, with 95 % confidence."""

StageType = Literal["Synthesize", "SFT", "GRPO", "Evaluate"]


# ---- answers ---------------------------------------------------------------------------------------------------------


class AnswerRow(Part):
    """A line of `items.jsonl`: what an evaluation keeps of an answer beside its trajectory."""

    id: str
    """Of the question."""
    kind: str = "other"
    """Of the question, where the data say one."""
    answer: str | None = None
    reference: str | None = None
    status: str
    """How the trajectory ended: `answered`, a limit, or `infrastructure`."""
    correct: bool
    scores: dict[str, Figure] = Field(default_factory=dict)
    """Scorer to 0 … 1; the first one is the task's."""
    rounds: int = 0
    """How often the model spoke."""
    tools: dict[str, int] = Field(default_factory=dict)
    """Tool to calls."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Kind of error to failed calls."""
    malformed: int = 0
    """Replies that could not be read."""


class Score(Part):
    """The mean of one scorer over answers."""

    mean: Figure
    ci95: Interval | None = None


class KindFigures(Part):
    """Answers to one kind of question."""

    accuracy: Figure
    accuracy_sampled: Figure = None
    """Of the sampled answers."""
    n: int
    """Greedy answers that count."""


class AnswerFigures(Part):
    """What a set of answers says. An answer that the infrastructure ended is nobody's: counted in `infrastructure`, not
    in `n`."""

    n: int = 0
    """Answers that count."""
    accuracy: Figure = None
    """Share of them that are right; null when there are none."""
    ci95: Interval | None = None
    """Of the accuracy (Wilson)."""
    scores: dict[str, Score] = Field(default_factory=dict)
    """Scorer to its mean; the first one decides what is right."""
    tool_calls_per_answer: Figure = None
    rounds_per_answer: Figure = None
    """How often the model spoke."""
    tools: dict[str, int] = Field(default_factory=dict)
    """Tool to calls, the most used one first."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Kind of error to failed calls."""
    malformed: int = 0
    """Replies that could not be read."""
    status: dict[str, int] = Field(default_factory=dict)
    """How trajectories ended."""
    infrastructure: int = 0
    """Answers that were lost, and are in none of the other figures."""
    by_kind: dict[str, KindFigures] = Field(default_factory=dict)


class ModelFigures(AnswerFigures):
    """One model in a run's table: its greedy answers, and what it does when it is sampled."""

    accuracy_sampled: Figure = None
    """Share of right answers at the stage's temperature; null when none were sampled."""
    n_sampled: int = 0
    seconds: Figure = None
    """Wall time of the evaluation."""


# ---- tools -----------------------------------------------------------------------------------------------------------


class ToolErrors(Part):
    """Failed calls by whose fault they are."""

    model: int = 0
    infrastructure: int = 0


class ToolFigures(Part):
    """What happened to the calls of one tool."""

    http_calls: int = 0
    """Calls that went to a server, each counted once however often it was tried."""
    retries: int = 0
    """Further attempts of those calls."""
    hedges: int = 0
    """Second replicas that were asked because the first took long."""
    cache_hits: int = 0
    """Calls answered without a request of their own."""
    errors: ToolErrors = Field(default_factory=ToolErrors)
    p50_ms: Figure = None
    """Half of the calls over HTTP took at most so many milliseconds; null without calls."""
    p95_ms: Figure = None
    p99_ms: Figure = None
    latency_buckets: dict[int, int] = Field(default_factory=dict)
    """Bucket to calls, from which percentiles are computed; each bucket is 5 % wide."""


class ToolCalls(File):
    """The tool calls of one stage."""

    title = "the tool calls of a stage"
    path = "RUN/stages/NAME/tools.json"

    kind: Literal["tool-calls"] = "tool-calls"
    tools: dict[str, ToolFigures] = Field(default_factory=dict)

    @classmethod
    def of_earlier(cls, document: dict[str, Any]) -> dict[str, Any]:
        """The file was the mapping itself."""
        return {"version": 0, "tools": document}


# ---- a run -----------------------------------------------------------------------------------------------------------


class RunMarker(File):
    """Whose run a folder holds. A run of another manifest, job or seed is refused there."""

    title = "what a run's folder belongs to"
    path = "RUN/run.json"
    ignores_unknown = False

    kind: Literal["run-marker"] = "run-marker"
    manifest: str
    """The text of the manifest."""
    job: str
    seed: int
    folder: str | None = None
    """Of the file that was run: what the path of a local model is relative to."""

    def same_run(self, other: "RunMarker") -> bool:
        return (self.manifest, self.job, self.seed) == (other.manifest, other.job, other.seed)


class Origin(Part):
    """Where a stage's model comes from, as the manifest says it."""

    type: StageType
    started_from: str | None = Field(
        default=None, validation_alias=AliasChoices("from", "started_from"), serialization_alias="from"
    )
    """The stage whose model it started from, or `base`."""
    tools: bool = False
    """Whether it had tools while it was trained."""


class RunResults(File):
    """The results of a run: one job, one seed."""

    title = "the results of a run"
    path = "RUN/results.json"
    remedy = "`thinkimg table` makes one table of several seeds' runs, `thinkimg view` shows the run"
    signature = frozenset({"models"})

    kind: Literal["run"] = "run"
    job: str | None = None
    seed: int | None = None
    models: dict[str, ModelFigures]
    """Every model that an Evaluate stage measured: `base`, or the stage that trained it."""
    stages: dict[str, Origin] = Field(default_factory=dict)
    """Every stage of the job, in its order. Empty in files of earlier versions."""
    tools: dict[str, ToolFigures] = Field(default_factory=dict)
    """The tool calls of all stages together."""
    tools_by_stage: dict[str, dict[str, ToolFigures]] = Field(default_factory=dict)
    seconds: dict[str, Figure] = Field(default_factory=dict)
    """Stage to wall time; `base` and, where somebody measured it, `setup` beside them."""


# ---- a finished stage ------------------------------------------------------------------------------------------------


class Done(File):
    """That a stage is finished, and what it found. It is written last."""

    title = "that a stage is finished"
    path = "RUN/stages/NAME/done.json"

    kind: Literal["done"] = "done"
    seconds: Figure = None
    """Wall time of the attempt that finished the stage."""


class BaseDone(Done):
    """The model before any stage. Figures are those of the preset's pre-training, whenever that was done; a downloaded
    model has none."""

    path = "RUN/base/done.json"

    type: Literal["base"] = "base"
    loss: Figure = None
    seed: int | None = None


class SynthesizeDone(Done):
    type: Literal["Synthesize"] = "Synthesize"
    kept: int = 0
    """Trajectories."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason to trajectories."""


class SFTDone(Done):
    type: Literal["SFT"] = "SFT"
    samples: int = 0
    """That it learned from."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason to samples that cannot be learned from."""
    broken: int = 0
    """Samples of ready-made data that are left out; `broken.json` has the reasons."""
    loss: Figure = None
    """Mean over the training."""
    gate_accuracy: Figure = None
    """Share of sampled answers that are right on validation questions; null without a gate."""
    extended: int = 0
    """Further trainings that the gate asked for."""


class GRPODone(Done):
    """Its figures stand in `log.jsonl`, a line per step."""

    type: Literal["GRPO"] = "GRPO"


class EvaluateDone(Done):
    type: Literal["Evaluate"] = "Evaluate"
    models: dict[str, ModelFigures] = Field(default_factory=dict)


AnyDone = BaseDone | SynthesizeDone | SFTDone | GRPODone | EvaluateDone
DONE: dict[str, type[AnyDone]] = {
    "base": BaseDone,
    "Synthesize": SynthesizeDone,
    "SFT": SFTDone,
    "GRPO": GRPODone,
    "Evaluate": EvaluateDone,
}


def read_done(path: Path, base: bool = False) -> AnyDone:
    """A `done.json`; which stage's it is, the file says. One of an earlier version is known by its fields.

    Args:
        base: that it stands in the base's folder.
    """
    document = read_object(path)
    stage = document.get("type", "base" if base else _earlier_stage(document))
    if stage not in DONE:
        raise UserError(f"a stage of type {stage!r} is not known here; {', '.join(DONE)} are", str(path))
    return validated(path, DONE[stage], document)


def _earlier_stage(document: Mapping[str, Any]) -> str:
    for stage, field in (("Evaluate", "models"), ("Synthesize", "kept"), ("SFT", "samples")):
        if field in document:
            return stage
    return "GRPO"


class BrokenSamples(File):
    """Samples of ready-made data that training leaves out."""

    title = "samples that are left out"
    path = "RUN/stages/NAME/broken.json"

    kind: Literal["broken-samples"] = "broken-samples"
    samples: dict[str, str]
    """Sample to the reason."""


class BasePretraining(File):
    """How the preset's base model was made. It stands beside the model in the cache."""

    title = "how the preset's base model was made"
    path = "RUN/base/base.json"

    kind: Literal["base-pretraining"] = "base-pretraining"
    seconds: Figure
    loss: Figure
    seed: int


# ---- a table over seeds ----------------------------------------------------------------------------------------------


class SeedsFigures(Part):
    """One model over several seeds. Intervals are two-level bootstraps over seeds and questions."""

    n: int
    """Questions of all seeds together."""
    accuracy: Figure
    ci95: Interval | None = None
    per_seed: list[FiniteFloat] | None = None
    accuracy_sampled: Figure = None
    ci95_sampled: Interval | None = None
    per_seed_sampled: list[FiniteFloat] | None = None
    tool_calls_per_answer: Figure = None
    seconds: Figure = None
    """Mean wall time of the evaluation."""
    training_seconds: Figure = None


class PairedDifference(Part):
    """One model minus another on the same questions, by a paired bootstrap."""

    difference: FiniteFloat
    ci95: Interval
    p: FiniteFloat


class ComparedModels(Part):
    model: str
    other: str
    accuracy: PairedDifference | None = None
    accuracy_sampled: PairedDifference | None = None


class SeedsMean(Part):
    models: dict[str, SeedsFigures]
    differences: list[ComparedModels] = Field(default_factory=list)
    """The first model minus the other: what was trained with GRPO and tools against all else."""


class TableResults(File):
    """One table over runs of the same job with different seeds."""

    title = "a table over several seeds"
    path = "TABLE/results.json"
    remedy = "its results.md shows it; each seed's run has a folder of its own beside it"
    signature = frozenset({"seeds", "mean"})

    kind: Literal["table"] = "table"
    seeds: dict[str, RunResults]
    mean: SeedsMean


# ---- an evaluation ---------------------------------------------------------------------------------------------------


class EvaluationResults(AnswerFigures, File):
    """The figures of one model on one task."""

    title = "the results of an evaluation"
    path = "OUT/TASK/results.json"
    remedy = "`thinkimg compare` makes a table of evaluations"
    signature = frozenset({"task", "model"})

    kind: Literal["evaluation"] = "evaluation"
    task: str
    model: str


class EvaluationSettings(File):
    """All that an answer depends on. An evaluation with other settings is refused in the same folder. Scorers are not
    among them: answers can be scored again."""

    title = "what an evaluation asked of whom"
    path = "OUT/TASK/settings.json"
    ignores_unknown = False

    kind: Literal["evaluation-settings"] = "evaluation-settings"
    task: str
    name: str
    """Of the model, in tables."""
    backend: str | None = None
    model: str | None = None
    format: str | None = None
    """Syntax of calls."""
    prompt: str | None = None
    max_rounds: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    data: str | None = None
    """Instead of the task's."""
    split: str | None = None
    limit: int | None = None
    tools: list[str] = Field(default_factory=list)
    shards: int = 1

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Setting to its value here and there, where they are not the same."""
        return {
            name: (getattr(self, name), getattr(other, name))
            for name in type(self).model_fields
            if name not in ("kind", "version") and getattr(self, name) != getattr(other, name)
        }


class Percentiles(Part):
    """Of times, in seconds."""

    mean: Figure = None
    p50: Figure = None
    p95: Figure = None


class EvaluationCosts(File):
    """Time, tokens and money: what differs from one evaluation to the next with the same answers."""

    title = "what an evaluation cost"
    path = "OUT/TASK/costs.json"

    kind: Literal["evaluation-costs"] = "evaluation-costs"
    wall_seconds: Figure = None
    """Of the last process; null where several shards worked."""
    seconds_per_answer: Percentiles | None = None
    tool_seconds: dict[str, Percentiles | None] = Field(default_factory=dict)
    """Tool to the time of its calls that were sent."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Figure = 0.0
    """By the prices that were given."""


class EvaluationShard(File):
    """That one of several processes is done."""

    title = "that a shard of an evaluation is done"
    path = "OUT/TASK/shard.I-of-N.json"

    kind: Literal["evaluation-shard"] = "evaluation-shard"
    questions: int
    seconds: Figure = None


class SynthesisResults(File):
    """What `thinkimg synthesize` made of its questions."""

    title = "the results of a synthesis"
    path = "OUT/synthesis.json"

    kind: Literal["synthesis"] = "synthesis"
    tasks: int
    kept: int
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason to trajectories, the most common one first."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Figure = 0.0
    """By the prices that were given."""
