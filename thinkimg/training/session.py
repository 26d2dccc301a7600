"""Where one training runs, what it writes and what it goes on from: all that its block of the manifest leaves open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


@dataclass(frozen=True)
class Session:
    """One training.

    Attributes:
        folder: of the trajectories and the checkpoints.
        seed: of the order of questions or samples, of dropout and of all sampling.
        world_size: processes that train together.
        save_every: steps between two checkpoints; None saves none. They all stay (see `CheckpointCallback`).
        resume_from: a checkpoint to go on from.
        callbacks: of transformers' trainer.
        report_to: `wandb`, `trackio`, `tensorboard`.
        engine: GRPO: TRL's options for rollouts on vLLM (see `chosen_engine`); none: transformers samples.
        log_folder: of `log.jsonl`; None: `folder`.
    """

    folder: Path
    seed: int = 0
    world_size: int = 1
    save_every: int | None = None
    resume_from: Path | None = None
    callbacks: Sequence[TrainerCallback] = ()
    report_to: Sequence[str] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    log_folder: Path | None = None

    @property
    def log(self) -> Path:
        return (self.log_folder or self.folder) / "log.jsonl"

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' trainers that follow from it."""
        return {
            "output_dir": str(self.folder),
            "seed": self.seed,
            "report_to": list(self.report_to) or "none",
            "save_strategy": "steps" if self.save_every else "no",
            "save_steps": self.save_every or 500,
            "save_total_limit": None,
            "disable_tqdm": True,
        }
