"""SFT on trajectories: TRL's trainer with our own collator (tool schemas in the prompt, images in message order,
assistant-only loss, every sample checked).

TRL's own path for vision data ignores the tools column and loses tool images, so its data preparation is bypassed: the
data set holds row numbers, and the collator turns them into batches.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig, SFTTrainer

from thinkimg import jsonl
from thinkimg.api import SFT
from thinkimg.errors import UserError
from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.adapters import lora_config, spare_frozen_vision
from thinkimg.training.checkpoints import go_on
from thinkimg.training.collator import Collator, Sample
from thinkimg.training.configs import build, deepspeed_options, without_compiled_collectives
from thinkimg.training.precision import cast_at_each_use, hold_masters, precision_options
from thinkimg.training.session import Session
from thinkimg.training.soundness import Soundness
from thinkimg.training.whole import make_whole

LONGER_THAN_ANY_BUDGET = 1_000_000
"""Steps, where time or tokens end the training."""


class LengthGroups(LengthGroupedSampler):
    """Rows of like length together, in an order that follows from the seed and the epoch's number alone. The library's
    own takes its chances from the process: a resumed run would draw another order, and see some samples twice."""

    def __init__(self, theirs: LengthGroupedSampler, seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(theirs.batch_size, lengths=theirs.lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        return iter(super().__iter__())


class Trainer(SFTTrainer):
    """TRL's, with an order of samples that a resumed run goes on with."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        theirs = super()._get_train_sampler(train_dataset)
        if not isinstance(theirs, LengthGroupedSampler):
            return theirs
        return LengthGroups(theirs, self.args.seed, lambda: int((self.state.epoch or 0.0) + 1e-6))


class StepLog(TrainerCallback):
    """One JSON line per logged step; stops at `max_seconds`."""

    def __init__(self, path: Path | None, max_seconds: float | None) -> None:
        self.path = path
        self.max_seconds = max_seconds
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a resume: forget the lines of steps that are done again, and go on counting the time."""
        if not state.global_step or self.path is None or not self.path.exists():
            return
        done = [jsonl.parse(line.text) for line in jsonl.lines(self.path) if line.whole]
        while done and done[-1]["step"] > state.global_step:
            done.pop()
        if state.is_world_process_zero:
            jsonl.write(done, self.path)
        if done:
            self.began = time.monotonic() - done[-1]["seconds"]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or self.path is None or not state.is_world_process_zero or "loss" not in logs:
            return
        total = state.max_steps if state.max_steps < LONGER_THAN_ANY_BUDGET else None
        line = {"step": state.global_step, "total_steps": total, "loss": logs["loss"]}
        line |= {"token_accuracy": logs.get("mean_token_accuracy"), "seconds": time.monotonic() - self.began}
        jsonl.append(line, self.path)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.max_seconds is None:
            return control
        over = torch.tensor(float(time.monotonic() - self.began >= self.max_seconds))
        if torch.distributed.is_initialized():  # all ranks stop at the same step
            torch.distributed.all_reduce(over, torch.distributed.ReduceOp.MAX)
        if over:
            control.should_training_stop = True
        return control


class TokenCount(TrainerCallback):
    """Counts the tokens that are trained on, over all processes and resumes, padding left out.

    Args:
        limit: ends the training at the first step that reaches it.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.trained = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.trained = state.num_input_tokens_seen
        if self.limit is not None and self.trained >= self.limit:
            control.should_training_stop = True
        return control


def train_sft(
    model: LoadedModel, samples: Sequence[Sample], spec: SFT, session: Session, max_seconds: float | None = None
) -> float:
    """Train `model` in place; returns the mean loss. `max_seconds` is what `spec.max_seconds` comes to.

    Raises:
        UserError: no samples, or a batch size that the processes cannot share; see `Soundness`.
    """
    if not samples:
        raise UserError("there is nothing to train on: no sample is left", "sft")
    args = sft_config(spec, session, max_seconds)
    hold_masters(model, args, adapters=spec.lora is not None)
    collator = Collator(model.family, model.features, model.processor.tokenizer.pad_token_id)
    sound = Soundness("sft", spec.allow_no_learning, lambda: f"{len(samples)} samples were given")
    trainer = Trainer(
        model=model.model,
        args=args,
        data_collator=lambda rows: collator([samples[row["sample"]] for row in rows]),
        # The column `images` tells TRL that this is vision data, whose preparation it leaves to the collator.
        train_dataset=Dataset.from_dict(
            {
                "images": [[]] * len(samples),
                "sample": list(range(len(samples))),
                "length": [len(sample.tokens) for sample in samples],
            }
        ),
        processing_class=model.processor,
        peft_config=lora_config(model.model, spec.lora),
        callbacks=[sound, StepLog(session.log, max_seconds), *session.callbacks],
    )
    # Qwen-VL says that its own loss takes no number of tokens, so that transformers would average over processes and
    # passes whatever their number of tokens; the loss is TRL's, which does take it.
    trainer.model_accepts_loss_kwargs = True
    cast_at_each_use(trainer)
    spare_frozen_vision(trainer.model)
    trained = go_on(trainer, session.resume_from)
    sound.conclude(trainer)
    make_whole(trainer, model)
    # The trainer's own mean leaves out what came before a resume.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return sum(losses) / len(losses) if losses else float(trained.training_loss)


def sft_config(spec: SFT, session: Session, max_seconds: float | None = None) -> SFTConfig:
    """TRL's configuration. What `spec.args` says wins.

    Raises:
        UserError: a batch size that the processes cannot share; a value in `spec.args` that TRL refuses.
    """
    world = session.world_size
    if spec.batch_size % world:
        raise UserError(f"batchSize {spec.batch_size} is not a multiple of the {world} processes", "sft.batchSize")
    cpu = not torch.cuda.is_available()
    endless = max_seconds is not None or spec.max_tokens is not None
    options = session.arguments | {
        "per_device_train_batch_size": spec.rows_per_pass(world),
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs or 1.0,
        "max_steps": LONGER_THAN_ANY_BUDGET if endless else spec.max_steps or -1,
        "lr_scheduler_type": "constant" if endless else "cosine",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it shows a loss that is not finite as 0
        "train_sampling_strategy": "group_by_length" if spec.length_grouping else "random",
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "gradient_checkpointing": not cpu,
        "use_cpu": cpu,
        "ddp_backend": "gloo" if cpu and torch.distributed.is_initialized() else None,
        "ddp_find_unused_parameters": True if world > 1 else None,  # samples of a pass may all be without pictures
        "dataloader_pin_memory": not cpu,
        **deepspeed_options(spec.zero_stage),
        **precision_options(spec.args, "sft.args"),
        **spec.args,
        "include_num_input_tokens_seen": "non_padding",
    }
    without_compiled_collectives(options)
    return build(SFTConfig, options, spec.args, "sft.args")
