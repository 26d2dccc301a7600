"""The stages of a ToolRLJob: one typed block for each type of stage, and the stage that holds exactly one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .controls import NO_PICTURE_FOR_TOOLS, UNUSED_SCOPE, Control, ControlKind, ControlScope
from .pods import SecretRef, StagePods, StageResources
from .resource import (
    Block,
    Checked,
    Distinct,
    Fraction,
    FractionalSeconds,
    LearningRate,
    ListMapKey,
    Nodes,
    NonNegative,
    Positive,
    Processes,
    Questions,
    Rounds,
    Rule,
    Seed,
    StageName,
    Steps,
    Tokens,
    Unit,
    Violation,
    refuse,
    refuse_all,
)
from .rewards import Reward, Scorer, distinct_rewards
from .trainer_args import grpo_args, sft_args
from .uris import ENDPOINT_URL

BASE = "base"
"""The model as `spec.model` names it, before any stage; reserved as a name of stages."""

INHERITED_LIMITS = ("max_rounds", "max_tokens_per_turn", "max_tokens", "max_seconds_per_trajectory")
"""Limits of Synthesize and GRPO that are `spec.agent`'s where a stage does not say them."""

ToolUse = Literal["Enabled", "Disabled"]
StageType = Literal["Synthesize", "SFT", "GRPO", "Evaluate"]


class Endpoint(Block):
    """A model behind an OpenAI-compatible address."""

    base_url: Annotated[str, ENDPOINT_URL]
    """Address up to and including `/v1`."""
    name: str
    """Name of the model, as the endpoint knows it."""
    secret_ref: SecretRef | None = None
    """The API key; default: none is sent."""


_CHAIN = "[a-z0-9]+(-[a-z0-9]+)*"


def _some_weight(chains: dict[str, float]) -> dict[str, float]:
    if chains and sum(chains.values()) == 0:
        refuse("all weights are 0", "Give at least one chain a weight above 0.")
    return chains


_CHAIN_RULES = (
    Rule(
        "self.size() == 0 || self.exists(chain, self[chain] > 0.0)",
        "all weights are 0. Give at least one chain a weight above 0.",
    ),
    Rule(
        f"self.all(chain, chain.size() <= 63 && chain.matches('^{_CHAIN}$'))",
        "a chain is written as names of tools with '-' between them, as in zoom-ocr.",
    ),
)


class Planner(Block):
    """Who decides which tools a cold-start trajectory uses. The calls themselves are always executed for real."""

    cel = (
        Rule(
            "self.type != 'Model' || has(self.model)",
            "a planner of type Model has no model. Give baseUrl and name of the endpoint.",
        ),
        Rule(
            "self.type != 'Model' || !has(self.chains) || self.chains.size() == 0",
            "a planner of type Model plans by itself. Remove chains, or use type: Scripted.",
        ),
        Rule(
            "self.type != 'Scripted' || !has(self.model)",
            "a planner of type Scripted asks no model. Remove model, or use type: Model.",
        ),
    )

    type: Literal["Scripted", "Model"] = "Scripted"
    """`Scripted`: the data set's own plans. `Model`: a large model behind an endpoint."""
    chains: Annotated[
        dict[Annotated[str, Field(pattern=rf"^{_CHAIN}$")], Annotated[float, Field(ge=0)]],
        Field(max_length=100),
        Checked(_some_weight, _CHAIN_RULES),
    ] = Field(default_factory=dict)
    """Scripted: weight of each chain of tools, as in `zoom-ocr: 0.3`; `none` answers at once. Default: equal shares
    of all that the data set knows. Weights need not add up to 1."""
    model: Endpoint | None = None
    """Model: where it is. Needed by that type and refused with the other."""

    @model_validator(mode="after")
    def _fits_type(self) -> Planner:
        violations = []
        if self.type == "Model" and self.model is None:
            violations.append(
                Violation(("model",), "a planner of type Model has no model", "Give baseUrl and name of the endpoint.")
            )
        if self.type == "Model" and self.chains:
            violations.append(
                Violation(
                    ("chains",), "a planner of type Model plans by itself", "Remove chains, or use type: Scripted."
                )
            )
        if self.type == "Scripted" and self.model is not None:
            violations.append(
                Violation(("model",), "a planner of type Scripted asks no model", "Remove it, or use type: Model.")
            )
        refuse_all(violations)
        return self


class Filters(Block):
    """Which synthesised trajectories are kept."""

    require_correct: bool = True
    """Keep only trajectories whose final answer is right."""
    max_tool_errors: NonNegative = 0
    """Most tool errors that a kept trajectory may contain."""
    min_tool_calls: NonNegative = 0
    """Fewest calls that worked in a kept trajectory."""
    refuse_repeats: bool = False
    """Drop trajectories in which the same call was made twice."""


class Synthesize(Block):
    """Make cold-start trajectories: plan, execute through the live tools, filter."""

    defaulted_elsewhere = INHERITED_LIMITS

    trajectories: Annotated[int, Field(ge=1), Unit("trajectories")] = 1500
    """How many are kept."""
    planner: Planner = Field(default_factory=Planner)
    """Who decides which tools are used."""
    filters: Filters = Field(default_factory=Filters)
    """Which trajectories are kept."""
    max_rounds: Rounds = 4
    """Most rounds of a trajectory. Default: `spec.agent.maxRounds`."""
    concurrency: Positive = 16
    """Trajectories executed at the same time."""
    tool_use: ToolUse = "Enabled"
    """`Disabled`: questions and answers without any call."""


class Gate(Block):
    """Is the cold start strong enough for RL? Below the bar, RL loses its tool use in a few steps, for good."""

    min_sampled_accuracy: Fraction = 0.2
    """Least accuracy of answers sampled at temperature 1 after this stage."""
    questions: Questions = 200
    """How many questions of `data.validation` (of `data.train` where there is none) are asked."""
    extend_once: bool = True
    """Below the bar, train this stage once more as long; then, or when false, the run stops with the reason."""


class FromStage(Block):
    """A length that another stage determines."""

    from_stage: StageName
    """An earlier stage: train for as long as it did."""


class Lora(Block):
    """Train low-rank adapters (arXiv 2106.09685) instead of all weights. They are merged when the stage ends: its model
    is a whole one."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Their output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters; 0 in a GRPO stage, whose loss must see the distribution that was sampled from."""
    target_modules: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=50)] = Field(
        default_factory=list
    )
    """Names of the layers that get adapters, as in q_proj; default: every linear layer of the language model, with all
    experts, but the head."""


ZeroStage = Annotated[int, Field(ge=0, le=3)]


def _one_deepspeed(zero_stage: int, args: dict[str, Any]) -> None:
    if zero_stage and args.get("deepspeed") is not None:
        refuse("zeroStage and args.deepspeed both configure DeepSpeed", "Keep the one that is meant.")


class SFT(Block):
    """Supervised fine-tuning. One of `epochs`, `maxSteps`, `maxTokens` and `maxSeconds` says how long; with none, one
    epoch."""

    cel = (
        Rule(
            "[has(self.epochs), has(self.maxSteps), has(self.maxTokens), has(self.maxSeconds)]"
            ".filter(given, given).size() <= 1",
            "more than one of epochs, maxSteps, maxTokens and maxSeconds is given. Keep the one that is meant.",
        ),
    )

    tool_use: ToolUse = "Enabled"
    """`Disabled`: the same questions with their answers only, no schemas and no calls."""
    epochs: Annotated[float, Field(gt=0), Unit("passes over the data")] | None = None
    """Length in epochs; 1 when nothing else says how long."""
    max_steps: Steps | None = None
    """Length in optimiser steps."""
    max_tokens: FromStage | None = None
    """Length in tokens: as many as the named stage processed, generated and trained on together (`tokens` in its
    `done.json`), padding left out. Makes a comparison of equal cost, the same on every machine."""
    max_seconds: FromStage | None = None
    """Length in time: as long as the named stage took, which depends on what else the machine does."""
    batch_size: Annotated[int, Field(ge=1), Unit("trajectories")] = 32
    """Trajectories of one optimiser step, over all processes."""
    learning_rate: LearningRate = 1e-5
    """Peak learning rate."""
    lora: Lora | None = None
    """Train adapters instead of all weights; default: all weights."""
    length_grouping: bool = False
    """Batches of samples of like length: less padding, at the price of an order that is less random."""
    zero_stage: ZeroStage = 0
    """DeepSpeed ZeRO: 1 shares optimiser states among the processes, 2 gradients too, 3 parameters too; 0 is plain data
    parallelism. A configuration of your own goes into `args.deepspeed`."""
    gate: Gate | None = None
    """Measure after this stage whether RL may start from it; default: no measurement."""
    data_from: StageName | None = None
    """The earlier Synthesize stage whose trajectories are learnt. Default: the nearest earlier one; without any,
    those of `data.trajectories`, or of `data.train`."""
    seed: Seed | None = None
    """Seed of order and dropout; default: `spec.seed`."""
    allow_no_learning: bool = False
    """A training none of whose steps had a gradient is no mistake; by default the run stops there and says why."""
    args: Annotated[dict[str, Any], AfterValidator(sft_args)] = Field(default_factory=dict)
    """More arguments of TRL's SFTConfig by their own names; those that have a field here are refused."""

    @model_validator(mode="after")
    def _one_length(self) -> SFT:
        given = [n for n in ("epochs", "max_steps", "max_tokens", "max_seconds") if getattr(self, n) is not None]
        if len(given) > 1:
            refuse(
                "more than one of epochs, maxSteps, maxTokens and maxSeconds is given", "Keep the one that is meant."
            )
        if not given:
            self.epochs = 1.0
        _one_deepspeed(self.zero_stage, self.args)
        return self

    def rows_per_pass(self, world_size: int) -> int:
        """Trajectories of one forward pass in one process."""
        return self.batch_size // (world_size * self.args.get("gradient_accumulation_steps", 1))


class ImportanceCorrection(Block):
    """Weigh each token by how much likelier the trainer finds it than the engine that sampled it did: two programs
    compute slightly different probabilities."""

    mode: Literal["TokenTruncate", "TokenMask", "SequenceTruncate", "SequenceMask"] = "SequenceMask"
    """A ratio per token or per trajectory; ratios outside of the limits are cut to them (Truncate) or leave the loss
    (Mask)."""
    clip_min: Annotated[float, Field(ge=0)] | None = None
    """Lower limit of the ratio; default: none."""
    clip_max: Annotated[float, Field(gt=0)] | None = 3.0
    """Upper limit of the ratio."""


LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


class GRPO(Block):
    """Reinforcement learning with group-relative advantages: V-ToolRL with live tools, the baseline without."""

    defaulted_elsewhere = INHERITED_LIMITS
    cel = (
        Rule(
            "!has(self.lora) || !has(self.lora.dropout) || self.lora.dropout == 0.0",
            "lora.dropout would train another distribution than the one that was sampled from. Remove it.",
        ),
    )

    tool_use: ToolUse = "Enabled"
    """`Disabled`: text-only RL, the same trainer without tools."""
    max_steps: Steps = 100
    """Length in optimiser steps."""
    prompts_per_step: Annotated[int, Field(ge=1), Unit("questions")] = 16
    """Questions of one optimiser step, over all processes; a multiple of the number of processes."""
    num_generations: Annotated[int, Field(ge=2), Unit("rollouts")] = 8
    """Rollouts per question: the size of a group."""
    learning_rate: LearningRate = 1e-6
    """Peak learning rate."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of rollouts."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL term; 0 keeps no reference model."""
    loss_type: LossType = "dapo"
    """How token losses become one: TRL's loss types, each divided by what the whole step trains on (`bnpo`, which TRL
    divides by the tokens of one process's pass, is `dapo` then)."""
    importance_correction: ImportanceCorrection | None = None
    """Correct for the difference between engine and trainer. Default: TRL's own (SequenceMask, 3.0) where vLLM samples,
    none where transformers does: there it is the same program."""
    lora: Lora | None = None
    """Train adapters instead of all weights; default: all weights."""
    zero_stage: ZeroStage = 0
    """DeepSpeed ZeRO, as in an SFT stage."""
    max_rounds: Rounds = 4
    """Most rounds of a rollout. Default: `spec.agent.maxRounds`."""
    max_tokens_per_turn: Tokens = 512
    """Most tokens of one turn. Default: `spec.agent.maxTokensPerTurn`."""
    max_tokens: Tokens = 32_768
    """Most tokens of a rollout. Default: `spec.agent.maxTokens`."""
    max_seconds_per_trajectory: FractionalSeconds = 300.0
    """When a rollout counts as hung. Default: `spec.agent.maxSecondsPerTrajectory`."""
    rewards: Annotated[
        list[Reward], Field(min_length=1, max_length=20), AfterValidator(distinct_rewards), ListMapKey("name")
    ] = Field(default_factory=lambda: [Reward(name="accuracy", weight=1.0), Reward(name="format", weight=0.1)])
    """What is rewarded: the reward is the weighted sum."""
    tokens_per_pass: Annotated[int, Field(ge=1), Unit("tokens")] = 16_384
    """Most tokens of one forward and backward pass in one process, pictures and padding included: fewer take less
    memory and more time, and the gradient is the same. A longer rollout has a pass of its own."""
    micro_batch: Annotated[int, Field(ge=1), Unit("rollouts")] | None = None
    """Most rollouts of one forward and backward pass in one process, beside `tokensPerPass`. A divisor of
    promptsPerStep ÷ processes × numGenerations; default: all of them, as far as their tokens allow. Says the same as
    `args.gradient_accumulation_steps` (how many passes), and is refused together with it."""
    concurrency: Positive = 256
    """Rollouts under way at the same time, per process."""
    tool_concurrency: Positive = 32
    """Tool calls in flight at the same time, per process."""
    resample_limit: NonNegative = 2
    """How often a rollout spoilt by the infrastructure is run again, with its seed, before it counts as lost and leaves
    the loss. A step most of whose rollouts are lost ends the stage as a failure of the infrastructure."""
    refill: bool = False
    """Replace groups whose rewards are all equal by other questions, and those of them that are flat again, until none
    is left or `refillGroups` are sampled (DAPO's dynamic sampling, arXiv 2503.14476)."""
    refill_groups: Annotated[Positive, Unit("groups per step and process")] | None = None
    """With `refill`: most groups that are sampled in place of others. Default: as many as the step has in one process,
    so that a step never samples more than twice as much."""
    fork_groups: Annotated[NonNegative, Unit("groups per step and process")] = 0
    """Groups in which every rollout that called a tool went wrong: keep what one of them said up to its first call, and
    sample the call and all that follows again, once per rollout (as AXPO does, arXiv 2605.28774); at most so many."""
    mask_truncated: bool = False
    """Rollouts that a limit ended get neither loss nor reward; by default they are rewarded like any other."""
    allow_no_learning: bool = False
    """A training none of whose steps had a gradient (every rollout left out, all rewards of each group equal) is no
    mistake; by default the run stops there and says why."""
    args: Annotated[dict[str, Any], AfterValidator(grpo_args)] = Field(default_factory=dict)
    """More arguments of TRL's GRPOConfig by their own names; those that have a field here are refused."""

    @model_validator(mode="after")
    def _sound(self) -> GRPO:
        violations = []
        if self.lora and self.lora.dropout:
            message = "it would train another distribution than the one that was sampled from"
            violations.append(Violation(("lora", "dropout"), message, "Remove it."))
        if self.micro_batch is not None and "gradient_accumulation_steps" in self.args:
            message = "microBatch and args.gradient_accumulation_steps both say how a step is cut into passes"
            violations.append(Violation(("microBatch",), message, "Keep the one that is meant."))
        refuse_all(violations)
        _one_deepspeed(self.zero_stage, self.args)
        return self

    def rows_per_process(self, world_size: int) -> int:
        """Rollouts of one step in one process."""
        return self.prompts_per_step // world_size * self.num_generations

    def rows_per_pass(self, world_size: int) -> int:
        """Rollouts of one forward and backward pass in one process."""
        rows = self.rows_per_process(world_size)
        return self.micro_batch or rows // self.args.get("gradient_accumulation_steps", 1)


class Evaluate(Block):
    """Measure models on held-out questions and compare them."""

    cel = (
        Rule(
            "!has(self.samples) || self.samples == 1 || !has(self.sampled) || self.sampled",
            "samples counts sampled answers, and sampled is false. Remove one of the two.",
        ),
        Rule(
            "has(self.control) || !has(self.controlScope) || self.controlScope == 'question'",
            f"controlScope: {UNUSED_SCOPE.message}. {UNUSED_SCOPE.remedy}",
        ),
        Rule(
            "!has(self.control) || self.control != 'none' || !has(self.controlScope) || self.controlScope != 'tools'",
            f"controlScope: {NO_PICTURE_FOR_TOOLS.message}. {NO_PICTURE_FOR_TOOLS.remedy}",
        ),
    )

    models: Annotated[list[StageName], Field(min_length=1, max_length=13), Distinct()]
    """Names of earlier SFT and GRPO stages, or `base`; the rows of the table."""
    split: Literal["test", "validation", "train"] = "test"
    """Which part of `spec.data`."""
    questions: Questions | None = None
    """How many questions, from the beginning of the split; default: all."""
    sampled: bool = True
    """Also measure sampled answers; greedy ones are always measured."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Temperature of the sampled answers."""
    samples: Annotated[int, Field(ge=1, le=1024), Unit("answers per question")] = 1
    """Sampled answers to each question; above 1 with avg@k, pass@k and majority vote."""
    control: ControlKind | None = None
    """Ask greedily once more with changed pictures, for what a model owes to its eyes: `grey` ones, those of an `other`
    question of the same kind with another answer, or `none`. Default: not asked."""
    control_scope: ControlScope = "question"
    """Who has the changed pictures: the model of the question, its tools, or all."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000), Unit("resamples")] = 2000
    """Resamples of the bootstraps over questions in `thinkimg table`: of differences, and of scores between right and
    wrong; of several Evaluate stages, the largest number counts."""
    concurrency: Positive = 128
    """Questions answered at the same time."""

    @model_validator(mode="after")
    def _sound(self) -> Evaluate:
        if self.samples > 1 and not self.sampled:
            message = "samples counts sampled answers, and sampled is false"
            refuse_all([Violation(("samples",), message, "Remove one of the two.")])
        unused = UNUSED_SCOPE if self.control is None and self.control_scope != "question" else None
        if found := self.changed_pictures.refused() if self.changed_pictures else unused:
            refuse_all([Violation(("controlScope",), *found)])
        return self

    @property
    def answers_per_question(self) -> int:
        """Of one model: the greedy one, the sampled ones, and that to changed pictures."""
        return 1 + (self.samples if self.sampled else 0) + (self.changed_pictures is not None)

    @property
    def changed_pictures(self) -> Control | None:
        return None if self.control is None else Control(self.control, self.control_scope)


BLOCK_OF_TYPE: dict[str, str] = {"Synthesize": "synthesize", "SFT": "sft", "GRPO": "grpo", "Evaluate": "evaluate"}
TRAINED_TYPES = ("SFT", "GRPO")


def _not_base(name: str) -> str:
    if name == BASE:
        refuse(f'"{BASE}" is reserved: it names the model before any stage', "Use another name.")
    return name


_NOT_BASE = Checked(
    _not_base,
    (Rule(f"self != '{BASE}'", f'"{BASE}" is reserved: it names the model before any stage. Use another name.'),),
)


def _block_rules() -> tuple[Rule, ...]:
    """For each block: it is there exactly when the stage is of its type."""
    return tuple(
        Rule(
            f"(self.type == '{type_}') == has(self.{block})",
            f"{block} belongs to stages of type {type_}, which need it; no other stage has it. Correct one of the two.",
        )
        for type_, block in BLOCK_OF_TYPE.items()
    )


_STAGE_RULES = (
    *_block_rules(),
    Rule(
        f"self.type in {list(TRAINED_TYPES)} || self.from == '{BASE}'",
        "only stages of type SFT and GRPO start from a model. Remove from; use evaluate.models or synthesize.planner.",
    ),
    Rule(
        "!has(self.sft) || self.sft.batchSize % (self.nodes * self.procsPerNode) == 0",
        "sft.batchSize cannot be shared equally by nodes × procsPerNode processes. Use a multiple of their number.",
    ),
    Rule(
        "!has(self.grpo) || self.grpo.promptsPerStep % (self.nodes * self.procsPerNode) == 0",
        "grpo.promptsPerStep cannot be shared equally by nodes × procsPerNode processes. Use a multiple of their "
        "number.",
    ),
    Rule(
        "!has(self.grpo) || !has(self.grpo.microBatch) || self.grpo.promptsPerStep % (self.nodes * self.procsPerNode) "
        "!= 0 || self.grpo.promptsPerStep / (self.nodes * self.procsPerNode) * self.grpo.numGenerations % "
        "self.grpo.microBatch == 0",
        "grpo.microBatch does not divide the rollouts of a process. Use a divisor of promptsPerStep ÷ processes × "
        "numGenerations.",
    ),
)


class Stage(Block):
    """One step of the experiment: exactly the block that belongs to its type is set."""

    cel = _STAGE_RULES

    name: Annotated[StageName, _NOT_BASE]
    """Name of the stage, of its checkpoint and of its row; at most 16 characters."""
    type: StageType
    """What the stage does."""
    from_: StageName = Field(default=BASE, alias="from")
    """SFT and GRPO: the model to start from, an earlier SFT or GRPO stage or `base`."""
    nodes: Nodes = 1
    """Number of pods; locally, of groups of processes on this machine."""
    procs_per_node: Processes = 1
    """Processes in each: one per GPU."""
    resources: StageResources = Field(default_factory=StageResources)
    """CPU, memory and GPUs of one pod."""
    pods: StagePods = Field(default_factory=StagePods)
    """Where the pods of this stage run, and how, where that is not as in `spec.pods`."""
    scorer: Scorer | None = None
    """What is right: for the reward `accuracy`, a gate, an evaluation, `requireCorrect`. Default: `spec.scorer`."""
    synthesize: Synthesize | None = None
    """Settings of a Synthesize stage."""
    sft: SFT | None = None
    """Settings of an SFT stage."""
    grpo: GRPO | None = None
    """Settings of a GRPO stage."""
    evaluate: Evaluate | None = None
    """Settings of an Evaluate stage."""

    @property
    def world_size(self) -> int:
        """Processes of the whole stage; a synthesis is one."""
        return 1 if self.type == "Synthesize" else self.nodes * self.procs_per_node

    @property
    def uses_tools(self) -> bool:
        """Whether the stage calls tools while it runs (SFT learns from calls that were made before)."""
        block = self.synthesize or self.grpo
        return block is not None and block.tool_use == "Enabled"

    @property
    def trains_with_tools(self) -> bool:
        """Whether its model learns to call tools."""
        block = self.sft or self.grpo
        return block is not None and block.tool_use == "Enabled"

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        violations = [*_union(self), *_start(self), *_divisible(self)]
        refuse_all(violations)
        return self


def _union(stage: Stage) -> list[Violation]:
    wanted = BLOCK_OF_TYPE[stage.type]
    violations = [
        Violation((block,), f"a stage of type {stage.type} has no {block}", f"Remove it, or use type: {type_}.")
        for type_, block in BLOCK_OF_TYPE.items()
        if block != wanted and getattr(stage, block) is not None
    ]
    if getattr(stage, wanted) is None:
        violations.append(
            Violation(
                (wanted,), f"a stage of type {stage.type} needs {wanted}", f"Add {wanted}: {{…}} with its settings."
            )
        )
    return violations


def _start(stage: Stage) -> list[Violation]:
    if stage.type in TRAINED_TYPES or stage.from_ == BASE:
        return []
    instead = "evaluate.models" if stage.type == "Evaluate" else "synthesize.planner"
    return [Violation(("from",), f"a stage of type {stage.type} starts from no model", f"Remove it and use {instead}.")]


def _divisible(stage: Stage) -> list[Violation]:
    """Every process gets the same share, no group of rollouts straddles two of them, and passes are equally large."""
    block = stage.sft or stage.grpo
    if block is None:
        return []
    name, field = ("grpo", "promptsPerStep") if isinstance(block, GRPO) else ("sft", "batchSize")
    share = block.prompts_per_step if isinstance(block, GRPO) else block.batch_size
    if share % stage.world_size:
        return [
            Violation(
                (name, field),
                f"{share} cannot be shared equally by {stage.world_size} processes (nodes × procsPerNode)",
                f"Use a multiple of {stage.world_size}.",
            )
        ]
    rows = share // stage.world_size * (block.num_generations if isinstance(block, GRPO) else 1)
    if isinstance(block, GRPO) and block.micro_batch is not None:
        return _divides((name, "microBatch"), rows, block.micro_batch, "passes of {}")
    passes = block.args.get("gradient_accumulation_steps", 1)
    return _divides((name, "args", "gradient_accumulation_steps"), rows, passes, "{} passes")


def _divides(loc: tuple[str | int, ...], rows: int, divisor: int, parts: str) -> list[Violation]:
    if divisor >= 1 and rows % divisor == 0:
        return []
    message = f"{rows} rows of a process cannot be split into {parts.format(divisor)}"
    return [Violation(loc, message, f"Use a divisor of {rows}.")]
