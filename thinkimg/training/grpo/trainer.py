"""V-ToolRL: GRPO (arXiv 2402.03300) with live tools on TRL's trainer, and text-only RL as the same thing without tools.

`ToolGRPOTrainer` overrides two private methods of `trl.GRPOTrainer` 1.16 (`tests/contracts` watches them):
`_generate_and_score_completions` makes this rank's trajectories, scores them and hands them over; `_generate` only
unpacks them. The loss is TRL's (`thinkimg.training.grpo.loss` computes it), taken on the model's own tokens of all
turns, given all observations and images.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig

from thinkimg.api import GRPO
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.models.generator import NO_FILTERS, Filters
from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.adapters import lora_config, spare_frozen_vision
from thinkimg.training.colocated import ColocatedEngine, check_vllm, engine_options
from thinkimg.training.episodes import Episodes
from thinkimg.training.forking import token_model
from thinkimg.training.grpo.batches import own_tokens
from thinkimg.training.grpo.config import refuse_unfit
from thinkimg.training.grpo.groups import Rollouts, Share
from thinkimg.training.grpo.logits import restore_logits, suppress_logits
from thinkimg.training.grpo.loss import PartwiseGRPOTrainer
from thinkimg.training.grpo.reference import own_reference
from thinkimg.training.grpo.rows import Group, Row, RowMaker
from thinkimg.training.grpo.sampler import EpochSampler
from thinkimg.training.image_processor import with_cached_images
from thinkimg.training.precision import cast_at_each_use, compute_dtype, hold_masters
from thinkimg.training.rollouts import RolloutEngine
from thinkimg.training.step_log import StepLog, StepRecord


def _placeholder_tool() -> None:
    """Makes TRL take the branch for tools; never called."""
    raise AssertionError("tools are called by the agent, not by TRL")


class ToolGRPOTrainer(PartwiseGRPOTrainer):
    """GRPO on trajectories that an agent makes.

    Args:
        model: in this process; the agent's generator must use the same object. The image processor is replaced, in a
            copy of the processor, by one that shares the model's cache of features.
        episodes: who makes trajectories, of which tasks, and what they are worth.
        spec: the stage's block; what it says of rollouts is read here, the rest from `args`.
        args: TRL's configuration (`grpo_config` makes one of the block).
        options: further arguments of `trl.GRPOTrainer` (`peft_config`, `callbacks`, `optimizers`).

    Raises:
        UserError: the family, an option or the number of tasks is none that this can train with.
    """

    num_generations: int
    num_generations_eval: int

    def __init__(self, model: LoadedModel, episodes: Episodes, spec: GRPO, args: GRPOConfig, **options: Any) -> None:
        _refuse(model, episodes, spec, args)
        self.family = model.family
        self.tasks = list(episodes.tasks)
        self.tokens_per_pass = spec.tokens_per_pass
        self.groups: list[Group] = []
        self.step_log: StepLog | None = None
        processor = with_cached_images(model.processor, model.features)
        args.reward_weights = [reward.weight for reward in episodes.rewards]
        hold_masters(model, args, adapters=spec.lora is not None or "peft_config" in options)
        suppress_logits(model.model, self.family.suppressed_ids)
        vllm = engine_options(compute_dtype(args)) if episodes.vllm is not None else nullcontext()
        with vllm, own_reference(model.model):
            super().__init__(
                model=model.model,
                reward_funcs=[self._reward_column(reward.name) for reward in episodes.rewards],
                args=args,
                train_dataset=Dataset.from_dict(
                    {"prompt": [task.question for task in self.tasks], "task": list(range(len(self.tasks)))}
                ),
                processing_class=processor,
                **({"peft_config": lora_config(model.model, spec.lora)} | options),
            )
        cast_at_each_use(self)
        spare_frozen_vision(self.model)
        if spec.importance_correction is not None:
            self.use_vllm = True  # from here on it only decides whether TRL corrects, whatever engine sampled
        self._image_pad_token_id = self.family.image_token_id  # TRL looks for Qwen-VL's; other families have it unused
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_unexpected)
        # TRL's constructor demands a chat template with a slot for tools; afterwards the list only chooses branches.
        self.tools = [_placeholder_tool]
        self.engine = RolloutEngine(
            episodes.agent, args.seed, spec.temperature, spec.concurrency, spec.resample_limit + 1
        )
        pad, video_pad = self._tokenizer.pad_token_id, self._video_pad_token_id
        rows = RowMaker(self.family, processor.image_processor, pad, video_pad, spec.mask_truncated)
        share = Share(args.seed, args.process_index, args.world_size)
        self.rollouts = Rollouts(self.engine, episodes, spec, rows, share)
        self.colocated = ColocatedEngine(self.vllm_generation, episodes.vllm) if episodes.vllm is not None else None

    # ---- the two seams --------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.monotonic()
        step, record = self.state.global_step, StepRecord()
        training = self.model.training
        size = self.num_generations if training else self.num_generations_eval
        tasks = [self.tasks[inputs[first]["task"]] for first in range(0, len(inputs), size)]
        with self.colocated.awake(step) if self.colocated else self._whole_model():
            synced = time.monotonic()
            make = self.rollouts.train if training else self.rollouts.evaluate
            self.groups = make(tasks, size, step, record)
        self._report(record, synced - began, time.monotonic() - synced)
        index = {task.id: number for number, task in enumerate(self.tasks)}
        used = [
            {"prompt": group.task.question, "task": index[group.task.id]} for group in self.groups for _ in group.rows
        ]
        batch: dict[str, Any] = super()._generate_and_score_completions(used)
        if training and self.step_log is not None:
            self.step_log.record.tokens_trained = self._tokens_of_loss(batch)
        batch["real_rows"] = self.accelerator.gather(own_tokens(batch).any(1).sum()).sum()
        return batch

    def _tokens_of_loss(self, batch: dict[str, Any]) -> int:
        """Tokens of the rows that go through the loss, in all processes, without padding."""
        rows = self._live_rows(batch)
        local = batch["prompt_mask"][rows].sum() + batch["completion_mask"][rows].sum()
        return int(self.accelerator.gather(local).sum())

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        theirs: Any = super()._get_train_sampler(dataset)
        return EpochSampler(
            theirs.data_source, theirs.mini_repeat_count, theirs.batch_size, theirs.repeat_count, theirs.shuffle,
            theirs.seed, epoch=lambda: int((self.state.epoch or 0.0) + 1e-6),
        )  # fmt: skip

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
            raise UserError("the engine gives no log-probabilities to correct with", "grpo.importanceCorrection")
        return [logprobs for logprobs in given if logprobs is not None]

    # ---- the model while it generates ------------------------------------------------------------------------------

    def _fit_bias(self, zero_stage: int) -> None:
        """DeepSpeed casts parameters but not our bias, which is a buffer; and TRL's fused LM head asks each tensor
        whether ZeRO-3 has it here, which a buffer always is."""
        for model in filter(None, (self.model, self.ref_model)):
            head = self.accelerator.unwrap_model(model, keep_fp32_wrapper=False).get_output_embeddings()
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
        if self.model.training:
            record.refuse_remnants(self.state.global_step + 1)
        record.seconds_generation, record.seconds_tools = local.seconds_generation, local.seconds_tools
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["tools/call_frequency"].append(record.tool_calls)
        for name, calls in record.tools.items():
            metrics[f"tools/{name}"].append(calls / max(record.trajectories, 1))
        if record.judged:
            metrics["rollout/accuracy"].append(record.correct / record.judged)
        metrics["rollout/flat"].append(record.flat / max(record.groups, 1))
        metrics["rollout/masked"].append(float(record.masked.total()))
        metrics["rollout/resampled"].append(float(record.resampled))
        metrics["rollout/lost"].append(float(record.lost))
        metrics["rollout/seconds"].append(seconds_rollout)
        metrics["rollout/seconds_generation"].append(record.seconds_generation)
        metrics["rollout/seconds_tools"].append(record.seconds_tools)
        metrics["rollout/seconds_sync"].append(seconds_sync)
        lengths = [sum(row.mask) for row in self.rows if row.masked is None]
        metrics["completions/mean_length"].append(sum(lengths) / max(len(lengths), 1))
        if self.step_log is not None:
            self.step_log.record = record
            self.step_log.total.merge(record)
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


def _unexpected(record: logging.LogRecord) -> bool:
    """Drops TRL's warning about rows without a reward: ours are masked on purpose, and counted."""
    return "All reward functions returned None" not in str(record.msg)


def _refuse(model: LoadedModel, episodes: Episodes, spec: GRPO, args: GRPOConfig) -> None:
    refuse_unfit(args, len(episodes.tasks))
    if model.family.grpo_refused is not None:
        raise UserError(model.family.grpo_refused, "model")
    check_vllm(args, episodes.vllm)
    if getattr(episodes.agent, "filters", NO_FILTERS) != Filters.of(vars(args), "grpo.args"):
        raise UserError(
            "the agent samples with other top_p, top_k, min_p or repetition_penalty: give it Filters.of(grpo.args)",
            "grpo.args",
        )
    if spec.fork_groups:
        token_model(episodes.agent)
        if "accuracy" not in {reward.name for reward in episodes.rewards}:
            raise UserError("whether tool calls went wrong is seen by the reward accuracy: add it", "grpo.forkGroups")
