"""SFT on trajectories: TRL's trainer with our own collator (tool schemas in the prompt, images in message order,
assistant-only loss, every sample checked).

TRL's own path for vision data ignores the tools column and loses tool images, so its data preparation is bypassed: the
data set holds row numbers, and the collator turns them into batches.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.models.chat import Family
from thinkimg.models.image_features import ImageFeatures
from thinkimg.training.adapters import LoraSettings, lora_config
from thinkimg.training.checkpoints import read_cpu_optimizers
from thinkimg.training.collator import Collator, Sample
from thinkimg.training.configs import without_compiled_collectives
from thinkimg.training.whole import make_whole


@dataclass(frozen=True)
class SFTSettings:
    """Attributes:
    batch_size: samples per optimiser step, over all processes.
    max_steps, epochs, max_seconds: whichever is given and comes first ends the training.
    save_steps: steps between two checkpoints; None saves none. They all stay (see `CheckpointCallback`).
    args: further arguments of TRL's `SFTConfig`.
    length_grouping: batches of samples of like length.
    lora: train adapters, which are merged into the weights at the end.
    report_to: `wandb`, `trackio`, `tensorboard`.
    """

    learning_rate: float
    batch_size: int
    epochs: float | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    seed: int = 0
    save_steps: int | None = None
    args: dict[str, Any] = field(default_factory=dict)
    length_grouping: bool = False
    lora: LoraSettings | None = None
    report_to: Sequence[str] = ()


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
    model: Any,
    processor: Any,
    family: Family,
    samples: Sequence[Sample],
    settings: SFTSettings,
    output_dir: Path,
    log: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume_from: Path | None = None,
) -> float:
    """Train `model` in place, from the checkpoint `resume_from` on if given; returns the mean loss.

    Raises:
        UserError: no samples, or a batch size that the processes cannot share.
    """
    if not samples:
        raise UserError("there is nothing to train on: no sample is left", "sft")
    world = int(torch.distributed.get_world_size()) if torch.distributed.is_initialized() else _world_size()
    if settings.batch_size % world:
        raise UserError(f"batchSize {settings.batch_size} is not a multiple of the {world} processes", "sft.batchSize")
    collator = Collator(family, ImageFeatures(processor.image_processor), processor.tokenizer.pad_token_id)
    trainer = SFTTrainer(
        model=model,
        args=_config(settings, output_dir, world),
        data_collator=lambda rows: collator([samples[row["sample"]] for row in rows]),
        # The column `images` tells TRL that this is vision data, whose preparation it leaves to the collator.
        train_dataset=Dataset.from_dict(
            {
                "images": [[]] * len(samples),
                "sample": list(range(len(samples))),
                "length": [len(sample.tokens) for sample in samples],
            }
        ),
        processing_class=processor,
        peft_config=lora_config(model, settings.lora),
        callbacks=[StepLog(log, settings.max_seconds), *callbacks],
    )
    # Qwen-VL says that its own loss takes no number of tokens, so that transformers would average over processes and
    # passes whatever their number of tokens; the loss is TRL's, which does take it.
    trainer.model_accepts_loss_kwargs = True
    read_cpu_optimizers()
    trained = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    make_whole(trainer)
    # After a resume the trainer's own mean leaves out what came before.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] if resume_from else []
    return sum(losses) / len(losses) if losses else float(trained.training_loss)


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _config(settings: SFTSettings, output_dir: Path, world: int) -> SFTConfig:
    cpu = not torch.cuda.is_available()
    defaults: dict[str, Any] = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": settings.batch_size // world,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs or 1.0,
        "max_steps": settings.max_steps or -1,
        "seed": settings.seed,
        "lr_scheduler_type": "cosine" if settings.max_seconds is None else "constant",
        "logging_steps": 10,
        "report_to": list(settings.report_to) or "none",
        "train_sampling_strategy": "group_by_length" if settings.length_grouping else "random",
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": None,
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "gradient_checkpointing": not cpu,
        "use_cpu": cpu,
        "bf16": not cpu,
        "ddp_backend": "gloo" if cpu and world > 1 else None,
        "dataloader_pin_memory": not cpu,
        "disable_tqdm": True,
    }
    if settings.max_seconds is not None and settings.max_steps is None:
        defaults["max_steps"] = 1_000_000
    options = defaults | settings.args
    without_compiled_collectives(options)
    return SFTConfig(**options)
