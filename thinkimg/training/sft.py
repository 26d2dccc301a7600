"""SFT on trajectories: TRL's trainer with our own collator (tool schemas in the prompt, images in message order,
assistant-only loss, every sample checked).

TRL's own path for vision data ignores the tools column and loses tool images, so its data preparation is bypassed: the
data set holds row numbers, and the collator turns them into batches.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from thinkimg import jsonl
from thinkimg.api import SFT
from thinkimg.errors import UserError
from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.adapters import lora_config
from thinkimg.training.checkpoints import read_cpu_optimizers
from thinkimg.training.collator import Collator, Sample
from thinkimg.training.configs import deepspeed_options, without_compiled_collectives
from thinkimg.training.session import Session
from thinkimg.training.whole import make_whole

LONGER_THAN_ANY_TIME = 1_000_000
"""Steps, where time ends the training."""


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
        line = {"step": state.global_step, "total_steps": state.max_steps, "loss": logs["loss"]}
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


def train_sft(
    model: LoadedModel, samples: Sequence[Sample], spec: SFT, session: Session, max_seconds: float | None = None
) -> float:
    """Train `model` in place; returns the mean loss. `max_seconds` is what `spec.max_seconds` comes to.

    Raises:
        UserError: no samples, or a batch size that the processes cannot share.
    """
    if not samples:
        raise UserError("there is nothing to train on: no sample is left", "sft")
    collator = Collator(model.family, model.features, model.processor.tokenizer.pad_token_id)
    trainer = SFTTrainer(
        model=model.model,
        args=sft_config(spec, session, max_seconds),
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
        callbacks=[StepLog(session.log, max_seconds), *session.callbacks],
    )
    # Qwen-VL says that its own loss takes no number of tokens, so that transformers would average over processes and
    # passes whatever their number of tokens; the loss is TRL's, which does take it.
    trainer.model_accepts_loss_kwargs = True
    read_cpu_optimizers()
    trained = trainer.train(resume_from_checkpoint=str(session.resume_from) if session.resume_from else None)
    make_whole(trainer)
    # After a resume the trainer's own mean leaves out what came before.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] if session.resume_from else []
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
    steps = LONGER_THAN_ANY_TIME if max_seconds is not None else spec.max_steps or -1
    options = session.arguments | {
        "per_device_train_batch_size": spec.rows_per_pass(world),
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs or 1.0,
        "max_steps": steps,
        "lr_scheduler_type": "cosine" if max_seconds is None else "constant",
        "logging_steps": 10,
        "train_sampling_strategy": "group_by_length" if spec.length_grouping else "random",
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "gradient_checkpointing": not cpu,
        "use_cpu": cpu,
        "bf16": not cpu,
        "ddp_backend": "gloo" if cpu and world > 1 else None,
        "dataloader_pin_memory": not cpu,
        **deepspeed_options(spec.zero_stage),
        **spec.args,
    }
    without_compiled_collectives(options)
    try:
        return SFTConfig(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the configuration: {error}", "sft.args") from error
