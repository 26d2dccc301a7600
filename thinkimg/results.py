"""What is left on disk by a run, a table over seeds, an evaluation, a synthesis: each file as a model.

`thinkimg.jsonfile` reads and writes them. A field that files of earlier versions lack has a default that says what its
absence means. `docs/reference/files.md` is made from these models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, FiniteFloat

from thinkimg.api import ControlKind, ControlScope
from thinkimg.errors import UserError
from thinkimg.identity import Identity, differences, flat
from thinkimg.jsonfile import Figure, File, Part, read_object, validated

Interval = tuple[FiniteFloat, FiniteFloat]
"""Lower and upper bound, with 95 % confidence."""

StageType = Literal["Synthesize", "SFT", "GRPO", "Evaluate"]


# ---- answers ---------------------------------------------------------------------------------------------------------


class AnswerRow(Part):
    """A line of `items.jsonl`: what an evaluation keeps of an answer beside its trajectory."""

    id: str
    """Of the question."""
    picture: str = ""
    """Digest of the question's pictures; empty where there is none, or in files of earlier versions."""
    sample_of: str = ""
    """The question, where each is asked several times; then `id` is NAME@NUMBER."""
    sample_seed: int | None = None
    """What the answer was sampled with."""
    read_as: str | None = None
    """What the answer counts as in the vote of several; null where there is no vote, or no answer."""
    kind: str = "other"
    """Of the question, where the data say one."""
    answer: str | None = None
    reference: str | None = None
    status: str
    """How the trajectory ended: `answered`, a limit (`rounds`, `tokens`), `refused`, or `infrastructure`."""
    correct: bool
    scores: dict[str, Figure] = Field(default_factory=dict)
    """Scorer to 0 … 1; the first one is the task's."""
    judged_by: str = ""
    """Who judged, where a model did."""
    rounds: int = 0
    """How often the model spoke."""
    tools: dict[str, int] = Field(default_factory=dict)
    """Tool to calls."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Kind of error to failed calls."""
    malformed: int = 0
    """Replies that could not be read."""


ScorerRole = Literal["official", "normalised", "judged", ""]
ROLES = ("official", "normalised")


class Score(Part):
    """The mean of one scorer over answers. Where some were lost it is null, and only its bounds are known."""

    role: ScorerRole = ""
    """`official`: the verdicts of a published implementation; `normalised`: ours, which forgives form; `judged`: those
    of a model that is not the benchmark's judge, or is not asked as it is; empty for neither of the benchmark's two."""
    judged_by: str = ""
    """Who judged: model, address, and what else it is sent; empty for a rule."""
    mean: Figure
    ci95: Interval | None = None
    bounds: Interval | None = None
    """The mean if all lost answers have a score of 0, and if all have 1; null when none is lost."""


class SampleFigures(Part):
    """Questions that were asked several times. In intervals the answers to one question are one observation."""

    samples: int
    """Answers to each question."""
    questions: int
    average: Score
    """avg@k: the mean over all answers."""
    pass_at: dict[int, Score] = Field(default_factory=dict)
    """j to the chance that at least one of j answers is right (unbiased, Chen et al., 2021)."""
    majority: Score
    """Whether the most frequent answer is right. A tie counts as the share of the most frequent ones that are right."""
    ties: int = 0
    """Questions with several most frequent answers."""


class PairedDifference(Part):
    """One model minus another on the same questions, seed by seed. Where answers to these were lost it is null, and
    only its bounds are known."""

    difference: Figure
    ci95: Interval | None = None
    p: Figure = None
    bounds: Interval | None = None
    """The difference if all lost answers count against the first, and if all count for it; null when none is lost."""


class ControlFigures(Part):
    """The same questions with changed pictures: what a model owes to its eyes."""

    control: ControlKind
    scope: ControlScope
    """Who has the changed pictures: the model of the question, its tools, or both."""
    n: int
    """Answers that count."""
    true: Figure = None
    """The accuracy with the true pictures; null where answers are lost."""
    bounds_true: Interval | None = None
    accuracy: Figure
    """With the changed pictures; null where answers are lost."""
    ci95: Interval | None = None
    bounds: Interval | None = None
    """As in `AnswerFigures`."""
    owed: PairedDifference | None = None
    """The accuracy with true pictures minus that; null without a question in common."""


class KindFigures(Part):
    """Answers to one kind of question."""

    accuracy: Figure
    accuracy_sampled: Figure = None
    """Of the sampled answers."""
    n: int
    """Greedy answers that count."""
    bounds: Interval | None = None
    """See `AnswerFigures`."""


class AnswerFigures(Part):
    """What a set of answers says. An answer that the infrastructure ended is nobody's, neither right nor wrong: counted
    in `infrastructure`, not in `n`. With such answers the figures are incomplete: `accuracy` is null, `bounds` say what
    it can be."""

    n: int = 0
    """Answers that count."""
    accuracy: Figure = None
    """Share of them that are right; null when there are none, or answers are lost."""
    bounds: Interval | None = None
    """Share of right answers if all lost ones are wrong, and if all are right; null when none is lost."""
    ci95: Interval | None = None
    """Of the accuracy: Wilson's, with the effective number of answers where several are about one picture."""
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
    samples: SampleFigures | None = None
    """Where each question was asked several times; in a run's table, of the sampled answers."""
    controls: list[ControlFigures] = Field(default_factory=list)
    refused: int = 0
    """Questions that the model's endpoint did not take (a content filter, a picture). They count as wrong."""
    context_full: int = 0
    """Questions that ended because the conversation was longer than the model reads. They count as wrong."""
    by_kind: dict[str, KindFigures] = Field(default_factory=dict)


class ModelFigures(AnswerFigures):
    """One model in a run's table: its greedy answers, and what it does when it is sampled."""

    accuracy_sampled: Figure = None
    """Share of right answers at the stage's temperature; null when none were sampled, or some are lost."""
    n_sampled: int = 0
    infrastructure_sampled: int = 0
    """Sampled answers that were lost."""
    refused_sampled: int = 0
    context_full_sampled: int = 0
    bounds_sampled: Interval | None = None
    """As `bounds`."""
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
    """Whose run a folder holds, and the manifest that was run last. A run of another job is refused there."""

    title = "what a run's folder belongs to"
    path = "RUN/run.json"
    ignores_unknown = False
    private = True

    kind: Literal["run-marker"] = "run-marker"
    manifest: str
    """The text of the manifest."""
    job: str
    seed: int
    folder: str | None = None
    """Of the file that was run: what the path of a local model is relative to."""


class StageIdentity(File):
    """What a stage is made of. It is done again when the manifest, or a file that it names, says something else."""

    title = "what a stage is made of"
    path = "RUN/stages/NAME/identity.json"
    private = True

    kind: Literal["stage-identity"] = "stage-identity"
    made_of: dict[str, Any]
    """Field to value, as in `grpo.learningRate`; a field that nobody has written is left out. Of files it is a digest
    of what they hold, of the stages that it comes from `NAME@DIGEST` of theirs."""


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


class Tokens(Part):
    """What a training processed, padding left out: the same on every machine, whatever else it does."""

    generated: int = 0
    """By the model in rollouts, discarded ones included, lost ones not."""
    trained: int = 0
    """Read by forward and backward passes of the loss, prompts, pictures and observations included."""

    @property
    def total(self) -> int:
        return self.generated + self.trained


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
    """Share of sampled answers that are right on validation questions, lost ones taken as wrong; null without gate."""
    extended: int = 0
    """Further trainings that the gate asked for."""
    tokens: Tokens | None = None
    """Of all of them; null in files of earlier versions."""


class GRPODone(Done):
    """Its figures stand in `log.jsonl`, a line per step."""

    type: Literal["GRPO"] = "GRPO"
    tokens: Tokens | None = None
    """Null in files of earlier versions."""


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


def is_complete(done: AnyDone) -> bool:
    """False for an evaluation some of whose answers the infrastructure lost: run again, it asks those alone."""
    models = done.models.values() if isinstance(done, EvaluateDone) else ()
    lost = [(one.bounds, one.bounds_sampled, *(control.bounds for control in one.controls)) for one in models]
    return not any(any(bounds) for bounds in lost)


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
    """One model over several seeds; `SeedsMean.intervals` says over what its intervals are."""

    n: int
    """Questions of all seeds together."""
    accuracy: Figure
    ci95: Interval | None = None
    per_seed: list[FiniteFloat] | None = None
    lost: int = 0
    """Answers of all seeds that the infrastructure lost, greedy and sampled; they are in none of the other figures."""
    refused: int = 0
    """Greedy answers of all seeds that count as wrong because the endpoint did not take the question."""
    context_full: int = 0
    """Greedy answers of all seeds that count as wrong because the context was full."""
    refused_sampled: int = 0
    context_full_sampled: int = 0
    bounds: Interval | None = None
    """Where greedy answers are lost: the accuracy, which is then null, at least and at most."""
    bounds_sampled: Interval | None = None
    accuracy_sampled: Figure = None
    ci95_sampled: Interval | None = None
    per_seed_sampled: list[FiniteFloat] | None = None
    tool_calls_per_answer: Figure = None
    seconds: Figure = None
    """Mean wall time of the evaluation."""
    training_seconds: Figure = None
    scores: dict[str, Score] = Field(default_factory=dict)
    """Scorer to its mean over the greedy answers, of those that scored all of them; the first one decides what is
    right."""
    samples: SampleFigures | None = None
    """Of the sampled answers, where each question was asked several times."""
    controls: list[ControlFigures] = Field(default_factory=list)
    """Of those controls under which every seed was asked."""


class ComparedModels(Part):
    model: str
    other: str
    accuracy: PairedDifference | None = None
    accuracy_sampled: PairedDifference | None = None
    scores: dict[str, PairedDifference] = Field(default_factory=dict)
    """Scorer to the difference in it, of the greedy answers, where both models have it."""


class SeedsMean(Part):
    models: dict[str, SeedsFigures]
    differences: list[ComparedModels] = Field(default_factory=list)
    """The first model minus the other: what was trained with GRPO and tools against all else."""
    intervals: Literal["seeds", "questions"] | None = None
    """Over what all intervals and p-values are: `seeds` (Student's t, or over the questions' pictures where that is
    wider), or of one seed its `questions`, clustered by picture. Null in files of earlier versions: two-level
    bootstraps."""


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
    lmms_eval: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Of a task `lmms:NAME`: task to metric (with its filter) to what lmms-eval's own aggregation gives."""


class Settings(File):
    """What the answers in a folder were asked with. Other settings are refused there, by name.

    Attributes:
        spelled: a field that holds a thing itself -> those that name it, which are not compared while it is the same.
    """

    ignores_unknown = False
    spelled: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Setting to its value here and there, where they are not the same; `extra.top_p` of a mapping. What is
        `unknown` here is no difference."""
        known = self.model_fields_set
        same = [name for name in self.spelled if name in known and getattr(self, name) == getattr(other, name)]
        left_out = {"kind", "version", *self.unknown(), *(told for name in same for told in self.spelled[name])}
        here, there = (one.model_dump(exclude=left_out) for one in (self, other))
        return differences(_flat(here), _flat(there))

    def unknown(self) -> list[str]:
        """Those that the version which wrote the file did not write down. A default with a value is what it was."""
        fields = type(self).model_fields
        left = [name for name in fields if name not in ("kind", "version", *self.model_fields_set)]
        return [name for name in left if fields[name].get_default(call_default_factory=True) in (None, [], {})]


def _flat(fields: Mapping[str, Any]) -> Identity:
    return {path: one for name, value in fields.items() for path, one in flat(name, value).items()}


class AskedSettings(Settings):
    """How a model is asked: what an evaluation and a synthesis have in common."""

    backend: str | None = None
    model: str | None = None
    """As it was named. Compared where `source` is not known."""
    source: list[str] = Field(default_factory=list)
    """The model itself: an endpoint's name of it, the hub's repository and commit, or the digest of a folder's files;
    of an adapter also its base's."""
    base_url: str | None = None
    """Of an endpoint, in one spelling, without keys."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Those that change answers, as `extra.top_p`, without keys."""
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    format: str | None = None
    """Syntax of calls."""
    prompt: str | None = None
    system_prompt: str | None = None
    """The user's own words of it."""
    wording: str | None = None
    """Digest of the whole system prompt, with the descriptions of tools."""
    max_rounds: int | None = None
    max_tokens: int | None = None
    max_context: int | None = None
    seed: int | None = None
    tools: list[str] = Field(default_factory=list)
    tool_versions: dict[str, str] = Field(default_factory=dict)
    """Tool to its version, and a digest of its declaration with what its server computes it with."""


class EvaluationSettings(AskedSettings):
    """All that an answer depends on. An evaluation with other settings is refused in the same folder. Scorers are not
    among them: answers are scored again."""

    title = "what an evaluation asked of whom"
    path = "OUT/TASK/settings.json"
    spelled = {"source": ("model",), "data_content": ("data", "split", "limit")}  # noqa: RUF012

    kind: Literal["evaluation-settings"] = "evaluation-settings"
    task: str
    name: str
    """Of the model, in tables."""
    temperature: float | None = None
    samples: int = 1
    """Answers to each question."""
    control: ControlKind | None = None
    """How the pictures of the questions were changed."""
    control_scope: ControlScope | None = None
    """For whom."""
    stop: str | None = None
    """A text that ends a reply."""
    data: str | None = None
    """Instead of the task's. Compared where `data_content` is not known; so are `split` and `limit`."""
    split: str | None = None
    limit: int | None = None
    questions: int | None = None
    data_content: str | None = None
    """Digest of all questions, answers and pictures, in order."""
    shards: int = 1


class SynthesisSettings(AskedSettings):
    """All that a trajectory depends on. A synthesis with other settings is refused in the same folder. Filters are not
    among them: they are applied to what is there. Each question is compared by itself."""

    title = "what a synthesis asked of whom"
    path = "OUT/settings.json"
    spelled = {"source": ("model",)}  # noqa: RUF012

    kind: Literal["synthesis-settings"] = "synthesis-settings"
    task: str
    chains: dict[str, float] = Field(default_factory=dict)
    """Of the scripted planner, with their weights."""
    data: str | None = None
    """Instead of the task's; of files the whole path."""
    split: str | None = None


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


# ---- weights of tools -----------------------------------------------------------------------------------------------


class WeightsFile(Part):
    """A file of some weights, as it was fetched."""

    sha256: str
    """Hex."""
    size: int
    """Bytes."""
    said_by: str
    """Who stated the digest; or that it was recorded from what came first."""


class WeightsRecord(File):
    """What `thinkimg weights fetch` brought of a repository of the hub."""

    title = "what was fetched of some weights"
    path = "WEIGHTS/ORG/NAME@REVISION/thinkimg-weights.json"
    remedy = "`thinkimg weights verify` reads it"

    kind: Literal["weights"] = "weights"
    source: str
    """`org/name`."""
    revision: str
    """As it was asked for."""
    commit: str = ""
    """What the revision meant then."""
    whole: bool = False
    """Whether all that is needed of the repository is here; otherwise single files of it."""
    code: bool = False
    """Whether its Python code, if it has any, is here too."""
    files: dict[str, WeightsFile] = Field(default_factory=dict)
    """Path in the repository to the file."""


class ExportedSAM(File):
    """A model of the first SAM as files of ONNX, which `thinkimg weights export` wrote."""

    title = "what is known of an exported model"
    path = "EXPORTED/thinkimg-onnx.json"
    remedy = "the backend onnx reads it"

    kind: Literal["exported-sam"] = "exported-sam"
    source: str
    """What was exported."""
    side: int
    """Pixels of the square that the encoder takes; a picture's longer side is brought to it."""
    mean: tuple[float, float, float]
    """Of red, green and blue, 0 to 1; taken off before the encoder."""
    std: tuple[float, float, float]
    """By which they are divided then."""
    differs: float
    """The largest difference between torch and onnxruntime that was seen after the export, of features, logits and
    scores, as a share of the largest value."""
    files: dict[str, WeightsFile]
    """`encoder.onnx` and `decoder.onnx`."""
