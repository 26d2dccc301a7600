"""V-ToolRL: GRPO (arXiv 2402.03300) with live tools on TRL's trainer, and text-only RL as the same thing without tools.

`ToolGRPOTrainer` overrides two private methods of `trl.GRPOTrainer` 1.16 (`tests/contracts` watches them):
`_generate_and_score_completions` makes this rank's trajectories, scores them and hands them over; `_generate` only
unpacks them. The loss is TRL's, taken on the model's own tokens of all turns, given all observations and images.

A row that must not be trained on (the infrastructure failed, the record contradicts itself, nothing was said) becomes a
filler of two tokens with an all-zero mask and no reward, so that neither its group's baseline nor the rest of the batch
notices it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field
from transformers import PrinterCallback, ProgressCallback
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from thinkimg.errors import UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.models.chat import Family
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.checkpoints import read_cpu_optimizers
from thinkimg.training.colocated import ColocatedEngine, check_vllm, engine_options
from thinkimg.training.configs import without_compiled_collectives
from thinkimg.training.forking import Fork, fork_of, token_model
from thinkimg.training.image_processor import CachedImageProcessor, with_cached_images
from thinkimg.training.rewards import Reward, score_group, total
from thinkimg.training.rollouts import Actor, Request, RolloutEngine, seed_of
from thinkimg.training.step_log import StepLog, StepRecord, busy_seconds
from thinkimg.training.whole import make_whole
from thinkimg.trajectory import InvariantError, Task, Trajectory

SUPPRESSED_LOGIT = -1e4
"""Added to suppressed logits: probability exactly 0 in float32, yet finite, so that TRL's kernel never forms a NaN."""

TRUNCATED = ("rounds", "tokens", "time")

logger = logging.getLogger(__name__)


LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


class ImportanceCorrection(BaseModel):
    """Weigh each token by the ratio of the trainer's probability to that of the engine which sampled it.

    Attributes:
        mode: a ratio per token or per sequence; outside of the limits it is cut to them (`truncate`) or leaves the loss
            (`mask`).
    """

    model_config = ConfigDict(extra="forbid")

    mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "sequence_mask"
    clip_min: float | None = Field(None, ge=0)
    clip_max: float | None = Field(3.0, gt=0)


class GRPOSettings(BaseModel):
    """How to train. Rows are trajectories; a step makes `prompts_per_step * generations` of them over all ranks.

    Attributes:
        micro_batch: rows per forward pass and rank; None for all of a rank's rows at once.
        length_buckets: one process only: the loss is computed in so many parts of rows of like length (less padding).
        warmup_steps: of the learning rate, linear; then `scheduler`.
        beta: weight of the KL term to the starting model; 0 needs no reference model.
        mask_truncated: trajectories that a limit ended get neither loss nor reward.
        loss_type: one of TRL's. `bnpo` divides by one process's tokens, and is refused with several.
        importance_correction: None leaves it to TRL: on where vLLM samples, off elsewhere.
        longest_completion: tokens; the constant that `dr_grpo` divides by. None: TRL's default.
        fork_groups: most groups of a step and rank whose tool calls are sampled again (see `forking`).
        report_to: `wandb`, `trackio`, `tensorboard`.
        refill: replace groups of equal rewards by other tasks (DAPO, arXiv 2503.14476), at most `refill_groups` a step
            and rank.
        attempts: how often a trajectory is tried when the infrastructure fails.
        trajectories_every: whole trajectories of every k-th step are kept; 0 for none.
        alarm_fraction: a warning when the tool rate falls below this share of its start.
        trl: further options of `trl.GRPOConfig`, by name.
    """

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0)
    prompts_per_step: int = Field(8, gt=0)
    generations: int = Field(8, gt=1)
    micro_batch: int | None = Field(None, gt=0)
    learning_rate: float = Field(1e-6, gt=0)
    scheduler: str = "constant_with_warmup"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = Field(1.0, gt=0)
    length_buckets: int = Field(4, gt=0)
    beta: float = Field(0.0, ge=0)
    epsilon: float = 0.2
    loss_type: LossType = "dapo"
    importance_correction: ImportanceCorrection | None = None
    longest_completion: int | None = Field(None, gt=0)
    scale_rewards: Literal["group", "batch", "none"] = "group"
    seed: int = 0
    mask_truncated: bool = False
    refill: bool = False
    refill_groups: int = Field(4, gt=0)
    fork_groups: int = Field(0, ge=0)
    attempts: int = Field(3, gt=0)
    concurrency: int = Field(256, gt=0)
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_steps: int | None = Field(None, gt=0)
    save_total_limit: int | None = 2
    trajectories_every: int = Field(20, ge=0)
    alarm_fraction: float = Field(0.3, ge=0, le=1)
    report_to: list[str] = Field(default_factory=list)
    trl: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A trajectory as TRL takes it: token ids, 1 where the model's own, pictures in order; `masked` says why not.
    `logprobs` are those that were sampled with, one per token of the completion."""

    prompt: list[int]
    completion: list[int]
    mask: list[int]
    images: list[Image] = field(default_factory=list)
    masked: str | None = None
    logprobs: list[float] | None = None


@dataclass
class Group:
    """The generations of one task; `rewards` are there once they are scored."""

    task: Task
    trajectories: list[Trajectory]
    rows: list[Row]
    rewards: list[float | None] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        """No two rewards differ: the group has no advantage to learn from."""
        return len({reward for reward in self.rewards if reward is not None}) < 2

    @property
    def tools_failed(self) -> bool:
        """Tools were called, and no rollout that called one is right."""
        users = [t for t, row in zip(self.trajectories, self.rows, strict=True) if t.tool_results and not row.masked]
        return bool(users) and not any(user.correct for user in users)


def suppress_logits(model: Any, ids: Sequence[int]) -> None:
    """Give the LM head a fixed bias that makes `ids` impossible, in sampling and in TRL's fused loss alike.

    The bias is a buffer that is never saved. Undone by `restore_logits`.

    Raises:
        UserError: the head has a bias of its own.
    """
    restore_logits(model)
    head = model.get_output_embeddings()
    if head.bias is not None:
        raise UserError("models whose LM head has a bias are not supported", "model")
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[list(ids)] = SUPPRESSED_LOGIT
    del head._parameters["bias"]
    head.register_buffer("bias", bias, persistent=False)


def restore_logits(model: Any) -> None:
    """Undo `suppress_logits`."""
    head = model.get_output_embeddings()
    if "bias" in head._buffers:
        del head._buffers["bias"]
        head.register_parameter("bias", None)


def spoken(trajectory: Trajectory) -> Trajectory:
    """`trajectory` up to the model's last word: what a limit cut off behind it has no tokens and no loss."""
    last = max((n for n, turn in enumerate(trajectory.turns) if turn.role == "assistant"), default=-1)
    return trajectory.model_copy(update={"turns": trajectory.turns[: last + 1]})


def _placeholder_tool() -> None:
    """Makes TRL take the branch for tools; never called."""
    raise AssertionError("tools are called by the agent, not by TRL")


def select_rows(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """These rows of TRL's batch, their images with them, padding trimmed to what they need.

    `num_items_in_batch` stays, so that losses of parts that are normalised by it add up to the loss of the whole.
    """
    index = torch.tensor(rows, device=batch["prompt_ids"].device)
    kept = {
        name: value[index] if isinstance(value, torch.Tensor) and value.ndim and name not in _PER_IMAGE else value
        for name, value in batch.items()
    }
    if batch.get("num_images") is not None and "pixel_values" in batch:
        kept = without_empty_images(kept | _select_images(batch, rows))
    left = int(kept["prompt_mask"].any(0).long().argmax())
    width = int(kept["completion_mask"].any(0).sum())
    for name, value in kept.items():
        if name.startswith("prompt_"):
            kept[name] = value[:, left:]
        elif name in ("mm_token_type_ids", "token_type_ids"):
            kept[name] = value[:, left : batch["prompt_ids"].shape[1] + width]
        elif isinstance(value, torch.Tensor) and value.ndim == 2 and name not in _PER_IMAGE:
            kept[name] = value[:, :width]
    return kept


def without_empty_images(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch none of whose rows has an image has no image features at all: the vision tower takes no empty input."""
    if any(batch.get("num_images") or [True]):
        return batch
    return {name: value for name, value in batch.items() if name not in (*_PER_IMAGE, "num_images", "num_tiles")}


def drop_idle_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """Leave out rows whose advantage is 0 (masked, or their group is flat): they have no gradient. One row is always
    kept, so that there is a loss."""
    rows = batch["advantages"].nonzero()[:, 0].tolist()
    return select_rows(batch, rows or [0])


def by_length(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut into at most `parts` batches of rows of like length: less padding to compute."""
    lengths = (batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1)).tolist()
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = -(-len(order) // parts)
    return [select_rows(batch, sorted(order[start : start + size])) for start in range(0, len(order), size)]


_PER_IMAGE = ("pixel_values", "image_grid_thw")


def _select_images(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    counts = batch["num_images"]
    if "image_grid_thw" not in batch:  # tiles (InternVL); TRL counts them where a picture may have several
        tiles = batch["pixel_values"].split(batch.get("num_tiles", counts))
        kept = {"num_images": [counts[row] for row in rows], "pixel_values": torch.cat([tiles[row] for row in rows])}
        return kept | ({"num_tiles": [batch["num_tiles"][row] for row in rows]} if "num_tiles" in batch else {})
    grids = batch["image_grid_thw"].split(counts)
    patches = batch["pixel_values"].split([int(grid.prod(-1).sum()) for grid in grids])
    return {
        "num_images": [counts[row] for row in rows],
        "pixel_values": torch.cat([patches[row] for row in rows]),
        "image_grid_thw": torch.cat([grids[row] for row in rows]),
    }


class EpochSampler(RepeatSampler):
    """TRL's order of rows, but that of an epoch follows from the seed and the epoch's number alone. TRL's own goes on
    from the epoch before, which a resumed run does not draw: it would train on other questions than it would have."""

    def __init__(self, *args: Any, epoch: Callable[[], int], **options: Any) -> None:
        super().__init__(*args, **options)
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + self.epoch())
        yield from super().__iter__()


class ToolGRPOTrainer(GRPOTrainer):
    """GRPO on trajectories that an agent makes.

    Args:
        model: in this process; the agent's generator must use the same object.
        processor: Hugging Face's processor; its image processor is replaced, in a copy, by one that caches.
        family: the model family's adapter.
        agent: makes trajectories with tokens; see `RolloutEngine`.
        tasks: to train on, at least as many as one step takes.
        rewards: see `thinkimg.training.rewards`.
        args: TRL's configuration (`grpo_config` makes one).
        settings: ours.
        image_features: the cache to share with the generator; its own by default.
        vllm: the generator of `agent`, if it is to run on TRL's vLLM engine in this process (`args.use_vllm`).
        before_rollouts: called with the step's number before each step's rollouts (weight sync, progress).
        options: further arguments of `trl.GRPOTrainer` (`peft_config`, `callbacks`, `optimizers`).

    Raises:
        UserError: `mask_truncated_completions`; groups that straddle ranks; too few tasks.
    """

    model: Any
    args: GRPOConfig
    num_generations: int
    num_generations_eval: int

    def __init__(
        self,
        model: Any,
        processor: Any,
        family: Family,
        agent: Actor,
        tasks: Sequence[Task],
        rewards: Sequence[Reward],
        args: GRPOConfig,
        settings: GRPOSettings,
        image_features: ImageFeatures | None = None,
        before_rollouts: Callable[[int], None] | None = None,
        vllm: VLLMGenerator | None = None,
        **options: Any,
    ) -> None:
        _refuse(args, len(tasks))
        if family.grpo_refused is not None:
            raise UserError(family.grpo_refused, "model")
        check_vllm(args, vllm)
        if settings.fork_groups:
            token_model(agent)
            if "accuracy" not in {reward.name for reward in rewards}:
                raise UserError("whether tool calls went wrong is seen by the reward accuracy: add it", "fork_groups")
        if len({task.id for task in tasks}) < len(tasks):
            raise UserError("two tasks have the same id; their trajectories would get the same random numbers", "tasks")
        self.family = family
        self.tasks = list(tasks)
        self.rewards = list(rewards)
        self.settings = settings
        self.before_rollouts = before_rollouts
        self.groups: list[Group] = []
        self.step_log: StepLog | None = None
        self._suppressed = frozenset(family.suppressed_ids)
        features = image_features or ImageFeatures(processor.image_processor)
        processor = with_cached_images(processor, features)
        self.image_processor: CachedImageProcessor = processor.image_processor
        args.reward_weights = [reward.weight for reward in rewards]
        suppress_logits(model, family.suppressed_ids)
        with engine_options(model) if vllm is not None else nullcontext():
            super().__init__(
                model=model,
                reward_funcs=[self._reward_column(reward.name) for reward in rewards],
                args=args,
                train_dataset=Dataset.from_dict(
                    {"prompt": [task.question for task in tasks], "task": list(range(len(tasks)))}
                ),
                processing_class=processor,
                **options,
            )
        if self.ref_model is not None:
            suppress_logits(self.accelerator.unwrap_model(self.ref_model), family.suppressed_ids)
        if settings.importance_correction is not None:
            self.use_vllm = True  # from here on it only decides whether TRL corrects, whatever engine sampled
        self._image_pad_token_id = family.image_token_id  # TRL looks for Qwen-VL's, which other families have unused
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_unexpected)
        # TRL's constructor demands a chat template with a slot for tools; afterwards the list only chooses branches.
        self.tools = [_placeholder_tool]
        self.engine = RolloutEngine(agent, settings.seed, settings.temperature, settings.concurrency, settings.attempts)
        self.colocated = ColocatedEngine(self.vllm_generation, vllm) if vllm is not None else None

    # ---- the two seams --------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.monotonic()
        if self.before_rollouts is not None:
            self.before_rollouts(self.state.global_step)
        size = self.num_generations if self.model.training else self.num_generations_eval
        tasks = [self.tasks[inputs[first]["task"]] for first in range(0, len(inputs), size)]
        record = StepRecord()
        with self.colocated.awake(self.state.global_step) if self.colocated else self._whole_model():
            synced = time.monotonic()
            self.groups = self._roll_out(tasks, size, record)
        self._report(record, synced - began, time.monotonic() - synced)
        index = {task.id: number for number, task in enumerate(self.tasks)}
        used = [
            {"prompt": group.task.question, "task": index[group.task.id]} for group in self.groups for _ in group.rows
        ]
        batch = super()._generate_and_score_completions(used)
        return drop_idle_rows(batch) if self._rows_are_independent else batch

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's loss, computed in parts of rows of like length where that gives the same gradient."""
        inputs = without_empty_images(inputs)
        if not self._rows_are_independent or self.settings.length_buckets == 1:
            whole: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return whole
        parts = by_length(inputs, self.settings.length_buckets)
        return torch.stack([super(ToolGRPOTrainer, self).compute_loss(model, part) for part in parts]).sum()

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        theirs: Any = super()._get_train_sampler(dataset)
        return EpochSampler(
            theirs.data_source, theirs.mini_repeat_count, theirs.batch_size, theirs.repeat_count, theirs.shuffle,
            theirs.seed, epoch=lambda: int((self.state.epoch or 0.0) + 1e-6),
        )  # fmt: skip

    @property
    def _rows_are_independent(self) -> bool:
        """Whether the loss is a sum over rows with a fixed divisor and no other terms, all in one batch.

        And in one process: TRL gathers a metric per row, which wants as many rows on each rank.
        """
        whole = self.args.steps_per_generation == 1 and self.num_iterations == 1 and self.args.world_size == 1
        other_terms = self.beta or self._entropy_bonus_enabled or self.aux_loss_enabled
        return self.model.training and whole and not other_terms and self.loss_type in ("dapo", "cispo")

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        rows = self.rows
        images: list[list[Image]] | None = [row.images for row in rows]
        tool_images: list[list[Image]] = [row.images for row in rows]
        if not any(tool_images):
            images = None
        return (
            [row.prompt for row in rows],
            [row.completion for row in rows],
            [row.mask for row in rows],
            [""] * len(rows),  # completions as text: only TRL's own logs and reward signatures want them
            self._sampling_logprobs(),
            {},
            images,
            tool_images,
        )

    @property
    def rows(self) -> list[Row]:
        """This rank's rows of the last generation, in TRL's order."""
        return [row for group in self.groups for row in group.rows]

    def _sampling_logprobs(self) -> list[list[float]] | None:
        """What the engine says of each token of the completions; only the importance correction wants it."""
        if not (self.use_vllm and self.vllm_importance_sampling_correction):
            return None
        given = [row.logprobs for row in self.rows]
        if any(logprobs is None for logprobs in given):
            raise UserError("the engine gives no log-probabilities to correct with", "importance_correction")
        return [logprobs for logprobs in given if logprobs is not None]

    # ---- rollouts -------------------------------------------------------------------------------------------------

    def _fit_bias(self, zero_stage: int) -> None:
        """DeepSpeed casts parameters but not our bias, which is a buffer; and TRL's fused LM head asks each tensor
        whether ZeRO-3 has it here, which a buffer always is."""
        head = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).get_output_embeddings()
        head.bias.data = head.bias.data.to(head.weight.dtype)
        if zero_stage == 3:
            from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

            head.bias.ds_status = ZeroParamStatus.AVAILABLE

    def _whole_model(self) -> AbstractContextManager[Any]:
        """Under ZeRO-3 a rank that generates needs all parameters, and must not wait for others at each layer."""
        if not self.is_deepspeed_enabled:
            return nullcontext()
        zero_stage = self.accelerator.state.deepspeed_plugin.zero_stage
        self._fit_bias(zero_stage)
        if zero_stage != 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = unwrap_model_for_generation(self.model_wrapped, self.accelerator)
        return gathered

    def _roll_out(self, tasks: list[Task], size: int, record: StepRecord) -> list[Group]:
        """Groups of `size` trajectories for `tasks`, with tool calls sampled again and flat groups refilled if so
        configured; how many were is written to `record`."""
        step = f"{self.state.global_step}"
        groups = self._make_groups([self._requests(task, size, step) for task in tasks], record)
        if not self.model.training:
            return groups
        if self.settings.fork_groups:
            self._fork(groups, size, record)
        if self.settings.refill:
            self._refill(groups, size, record)
        return groups

    def _requests(self, task: Task, size: int, visit: str, fork: Fork | None = None) -> list[Request]:
        return [Request(task, f"{visit}/{task.id}", number, fork) for number in range(size)]

    def _fork(self, groups: list[Group], size: int, record: StepRecord) -> None:
        """Replace groups whose tool calls all went wrong by groups that go on from one of their thoughts, where those
        have something to learn from."""
        forks: dict[int, Fork] = {}
        for number, group in enumerate(groups):
            states = [state for one in group.trajectories if (state := fork_of(one, self.family)) is not None]
            if group.tools_failed and states and len(forks) < self.settings.fork_groups:
                seed = seed_of(self.settings.seed, f"fork/{self.state.global_step}/{group.task.id}", 0, 0)
                forks[number] = random.Random(seed).choice(states)
        visit = f"{self.state.global_step}/fork"
        made = self._make_groups(
            [self._requests(groups[n].task, size, visit, fork) for n, fork in forks.items()], record
        )
        record.fork_attempts += len(made)
        for number, group in zip(forks, made, strict=True):
            if not group.flat:
                groups[number] = group
                record.forked += 1

    def _refill(self, groups: list[Group], size: int, record: StepRecord) -> None:
        """Replace flat groups by other tasks."""
        flat = [number for number, group in enumerate(groups) if group.flat]
        visit = f"{self.state.global_step}/refill"
        reserve = self._reserve([group.task for group in groups], min(len(flat), self.settings.refill_groups))
        fresh = self._make_groups([self._requests(task, size, visit) for task in reserve], record)
        useful = [group for group in fresh if not group.flat]
        for number, group in zip(flat, useful, strict=False):
            groups[number] = group
        record.refilled += len(useful)
        record.flat += len(flat)

    def _make_groups(self, requests: Sequence[Sequence[Request]], record: StepRecord) -> list[Group]:
        """One group for each list of requests."""
        began = time.monotonic()
        made = iter(self.engine.run([request for group in requests for request in group]))
        groups = []
        for asked in requests:
            trajectories = [next(made) for _ in asked]
            groups.append(Group(asked[0].task, trajectories, [self._row(trajectory) for trajectory in trajectories]))
        whole = time.monotonic() - began
        generating = busy_seconds([trajectory for group in groups for trajectory in group.trajectories])
        record.seconds_generation += min(generating, whole)
        record.seconds_tools += max(0.0, whole - generating)
        self.engine.call(self._score(groups))
        return groups

    async def _score(self, groups: Sequence[Group]) -> None:
        await asyncio.gather(*(self._score_group(group) for group in groups))

    async def _score_group(self, group: Group) -> None:
        numbers = [number for number, row in enumerate(group.rows) if row.masked is None]
        failures = await score_group([group.trajectories[number] for number in numbers], self.rewards)
        for number, failure in zip(numbers, failures, strict=True):
            if failure is not None:
                logger.error("trajectory %s is not trained on: %s", group.trajectories[number].id, failure)
                group.rows[number] = self._filler("reward")
        for trajectory, row in zip(group.trajectories, group.rows, strict=True):
            if row.masked is not None:
                trajectory.rewards = {}
                trajectory.meta["masked"] = row.masked
        group.rewards = [total(trajectory, self.rewards) for trajectory in group.trajectories]

    def _reserve(self, tasks: Sequence[Task], count: int) -> list[Task]:
        """Other tasks of this rank's share, chosen by step and rank alone."""
        args = self.args
        taken = {task.id for task in tasks}
        share = [task for task in self.tasks[args.process_index :: args.world_size] if task.id not in taken]
        seed = seed_of(self.settings.seed, f"reserve/{self.state.global_step}", args.process_index, 0)
        return random.Random(seed).sample(share, min(count, len(share)))

    def _row(self, trajectory: Trajectory) -> Row:
        try:
            return self._unmasked_row(trajectory)
        except _MaskedError as reason:
            return self._filler(str(reason))

    def _filler(self, reason: str) -> Row:
        token = self._tokenizer.pad_token_id
        return Row([token], [token], [0], masked=reason, logprobs=[0.0])

    def _unmasked_row(self, trajectory: Trajectory) -> Row:
        if trajectory.status == "infrastructure":
            raise _MaskedError("infrastructure")
        if self.settings.mask_truncated and trajectory.status in TRUNCATED:
            raise _MaskedError("truncated")
        said = spoken(trajectory)
        try:
            said.check(self.family.image_token_id, self._image_tokens)
            tokens, mask = said.tokens, said.mask
            self._check_own_tokens(tokens, mask)
        except (InvariantError, ImageDecodeError) as error:
            logger.error("trajectory %s is not trained on: %s", trajectory.id, error)
            trajectory.meta["invariant"] = str(error)
            raise _MaskedError("invariant") from error
        first = sum(len(turn.tokens or ()) for turn in said.turns[: said.prompt_turns])
        if not any(mask[first:]):
            raise _MaskedError("empty")
        known = all(turn.logprobs is not None for turn in said.turns)
        return Row(
            tokens[:first],
            tokens[first:],
            [int(flag) for flag in mask[first:]],
            said.ordered_images,
            logprobs=said.logprobs[first:] if known else None,
        )

    def _image_tokens(self, image: Image) -> int:
        """How many placeholders the image fills, counted from the features that the loss will see."""
        return self.family.feature_tokens(self.image_processor.cached_features([image]))

    def _check_own_tokens(self, tokens: list[int], mask: list[bool]) -> None:
        if self._video_pad_token_id in tokens:
            raise InvariantError("a video placeholder without a video")
        for token, own in zip(tokens, mask, strict=True):
            if own and token in self._suppressed:
                raise InvariantError(f"the model sampled token {token}, which is impossible under the loss")

    # ---- rewards and reports --------------------------------------------------------------------------------------

    def _reward_column(self, name: str) -> Callable[..., list[float | None]]:
        def column(**_: Any) -> list[float | None]:
            return [trajectory.rewards.get(name) for group in self.groups for trajectory in group.trajectories]

        column.__name__ = name
        return column

    def _report(self, record: StepRecord, seconds_sync: float, seconds_rollout: float) -> None:
        """Merge the ranks' records; the seconds are this rank's."""
        for group in self.groups:
            for trajectory, row, reward in zip(group.trajectories, group.rows, group.rewards, strict=True):
                record.add(trajectory, reward, row.masked)
        local, record = record, StepRecord()
        for other in gather_object([local]):
            record.merge(other)
        record.seconds_generation, record.seconds_tools = local.seconds_generation, local.seconds_tools
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["tools/call_frequency"].append(record.tool_calls)
        for name, calls in record.tools.items():
            metrics[f"tools/{name}"].append(calls / max(record.trajectories, 1))
        metrics["rollout/masked"].append(float(record.masked.total()))
        metrics["rollout/resampled"].append(float(record.resampled))
        metrics["rollout/seconds"].append(seconds_rollout)
        metrics["rollout/seconds_generation"].append(record.seconds_generation)
        metrics["rollout/seconds_tools"].append(record.seconds_tools)
        metrics["rollout/seconds_sync"].append(seconds_sync)
        lengths = [sum(row.mask) for row in self.rows if row.masked is None]
        metrics["completions/mean_length"].append(sum(lengths) / max(len(lengths), 1))
        if self.step_log is not None:
            self.step_log.record = record
            self.step_log.trajectories = [trajectory for group in self.groups for trajectory in group.trajectories]
            self.step_log.seconds_rollout += seconds_rollout
            self.step_log.seconds_sync += seconds_sync

    def close(self) -> None:
        """Stop the rollout thread and give the model its plain LM head and forward pass back.

        TRL's patched forward holds on to this very model: a deep copy of it would compute with the old weights.
        """
        self.engine.close()
        if self.colocated is not None:
            self.colocated.close()
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        restore_logits(model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        vars(base).pop("forward", None)


class _MaskedError(Exception):
    """Why a row is masked."""


def _unexpected(record: logging.LogRecord) -> bool:
    """Drops TRL's warning about rows without a reward: ours are masked on purpose, and counted."""
    return "All reward functions returned None" not in str(record.msg)


def _refuse(args: GRPOConfig, tasks: int) -> None:
    if args.mask_truncated_completions:
        raise UserError(
            "TRL's mask_truncated_completions shifts image grids between samples; set mask_truncated instead",
            "trl.mask_truncated_completions",
        )
    per_rank = args.per_device_train_batch_size * (args.steps_per_generation or 1)
    size = args.num_generations or 1
    if per_rank % size:
        raise UserError(
            f"{per_rank} rows per rank are not whole groups of {size}: a group would straddle ranks; "
            "make prompts_per_step a multiple of the number of processes",
            "prompts_per_step",
        )
    groups = (args.generation_batch_size or per_rank) // size
    if tasks < groups:
        raise UserError(f"a step takes {groups} tasks, but there are {tasks}", "prompts_per_step")


def _refuse_unequal(settings: GRPOSettings) -> None:
    """What is a mean over one process's tokens: the gradient would depend on who got which question."""
    remedy = "the processes' tokens are not equally many, so that the gradient would depend on who got which question"
    if settings.loss_type == "bnpo":
        raise UserError(f"bnpo divides by the tokens of one process: {remedy}; use dapo or one process", "loss_type")
    if any(settings.trl.get(name) for name in ("entropy_coef", "use_adaptive_entropy")):
        raise UserError(f"the entropy bonus is a mean over one process's tokens: {remedy}", "trl.entropy_coef")


def grpo_config(settings: GRPOSettings, output_dir: Path, world_size: int = 1) -> GRPOConfig:
    """TRL's configuration: one optimiser step per generation batch, on policy, nothing written but checkpoints.

    Raises:
        UserError: rows that do not divide evenly; a loss that several processes would not compute alike; an option in
            `settings.trl` that TRL does not know.
    """
    if settings.prompts_per_step % world_size:
        raise UserError(
            f"{settings.prompts_per_step} is not a multiple of {world_size} processes: a group would straddle ranks",
            "prompts_per_step",
        )
    if world_size > 1:
        _refuse_unequal(settings)
    rows = settings.prompts_per_step // world_size * settings.generations
    micro = settings.micro_batch or rows
    if rows % micro:
        raise UserError(f"{rows} rows per process cannot be cut into batches of {micro}", "micro_batch")
    options: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": settings.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": rows // micro,
        "num_generations": settings.generations,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
        "loss_type": settings.loss_type,
        "scale_rewards": settings.scale_rewards,
        "seed": settings.seed,
        "bf16": settings.bf16,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "disable_dropout": True,  # the loss must see the distribution that was sampled from
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": settings.save_total_limit,
        "logging_steps": 1,
        "report_to": settings.report_to or "none",
        "log_multimodal": False,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    if settings.longest_completion is not None:
        options["max_completion_length"] = settings.longest_completion
    if settings.loss_type == "luspo":
        options["importance_sampling_level"] = "sequence"  # what the loss is made for
    if settings.importance_correction is not None:
        correction = settings.importance_correction.model_dump()
        options |= {f"vllm_importance_sampling_{name}": value for name, value in correction.items()}
    options |= settings.trl
    without_compiled_collectives(options)
    try:
        return GRPOConfig(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the configuration: {error}", "trl") from error


def train_grpo(
    model: Any,
    processor: Any,
    family: Family,
    agent: Actor,
    tasks: Sequence[Task],
    rewards: Sequence[Reward],
    settings: GRPOSettings,
    output_dir: Path,
    image_features: ImageFeatures | None = None,
    before_rollouts: Callable[[int], None] | None = None,
    resume_from: Path | None = None,
    world_size: int = 1,
    callbacks: Sequence[Any] = (),
    connect: Callable[[], Coroutine[Any, Any, None]] | None = None,
    disconnect: Callable[[], Coroutine[Any, Any, None]] | None = None,
    **options: Any,
) -> ToolGRPOTrainer:
    """Train `model` in place with GRPO; the trainer is returned, closed, with its last rollouts.

    Writes `output_dir/log.jsonl` (one line per step, see `StepLog`), `output_dir/trajectories/step-*.jsonl` and, if
    `settings.save_steps` is set, TRL's checkpoints. `connect` and `disconnect` run on the rollouts' event loop, to
    which a tool client belongs. The other arguments are those of `ToolGRPOTrainer`.
    """
    trainer = ToolGRPOTrainer(
        model,
        processor,
        family,
        agent,
        tasks,
        rewards,
        grpo_config(settings, output_dir, world_size),
        settings,
        image_features,
        before_rollouts,
        callbacks=list(callbacks),
        **options,
    )
    trainer.step_log = StepLog(
        output_dir / "log.jsonl",
        output_dir / "trajectories",
        settings.trajectories_every,
        settings.alarm_fraction,
    )
    trainer.add_callback(trainer.step_log)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    try:
        if connect is not None:
            trainer.engine.call(connect())
        read_cpu_optimizers()
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        if disconnect is not None:
            trainer.engine.call(disconnect())
    finally:
        trainer.close()
    make_whole(trainer)
    return trainer
