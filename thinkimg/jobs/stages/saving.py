"""How a training stage saves, goes on from what it saved, and says how far it is."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from thinkimg.api.pod_contract import SavedCheckpoint
from thinkimg.jobs.attempt import check_attempt
from thinkimg.jobs.stages.context import Context
from thinkimg.training.checkpoints import (
    CheckpointCallback,
    asked_to_end,
    check_processes,
    mark_of,
    newest_checkpoint,
)
from thinkimg.training.session import Session
from thinkimg.training.sft import LONGER_THAN_ANY_BUDGET

PROGRESS_EVERY = 5
"""Steps between two lines of progress, where the trainer logs them."""
_SHOWN = {
    "reward": "reward",
    "rollout/accuracy": "accuracy",
    "tools/call_frequency": "tool_calls",
    "rollout/flat": "flat",
    "loss": "loss",
}
"""Name in the trainer's logs to name in a line of progress."""


@dataclass
class Saving:
    """How often a training stage saves (in steps), where it goes on, its newest complete checkpoint, and how many
    tokens end it."""

    every: int
    resume_from: Path | None = None
    newest: SavedCheckpoint | None = None
    tokens: int | None = None
    callbacks: Sequence[TrainerCallback] = ()


@contextmanager
def training_session(
    context: Context,
    name: str,
    folder: Path,
    seed: int | None = None,
    engine: Mapping[str, Any] | None = None,
    tokens: int | None = None,
) -> Iterator[Session]:
    """One training of stage `name` that writes checkpoints into `folder` and its log into the stage's. SIGTERM in the
    block ends it after one more checkpoint.

    Args:
        seed: None for the job's.
        engine: see `Session`.
        tokens: that end the training, if its steps do not.

    Raises:
        KeyboardInterrupt: at the block's end, when SIGTERM came.
    """
    spec = context.job.spec
    with _checkpoints(context, name, folder) as saving:
        saving.tokens = tokens
        yield Session(
            folder,
            spec.seed if seed is None else seed,
            context.world_size,
            saving.every,
            saving.resume_from,
            [*saving.callbacks, Progress(context, name, saving)],
            tuple(spec.report_to),
            engine or {},
            context.run.stage(name),
        )


def seconds_until(folder: Path) -> float:
    """How long a training took until its newest checkpoint; what came after it is done again."""
    newest = newest_checkpoint(folder)
    return 0.0 if newest is None else mark_of(newest).seconds


@contextmanager
def _checkpoints(context: Context, name: str, folder: Path) -> Iterator[Saving]:
    settings = context.job.spec.checkpoint
    saving = Saving(settings.every_steps, newest_checkpoint(folder))
    if saving.resume_from is not None:
        check_processes(saving.resume_from, context.world_size)
        context.progress(name, message=f"going on from {saving.resume_from.name}")

    def saved(step: int, path: Path) -> None:
        where = os.path.relpath(path, context.data_folder.resolve())
        saving.newest = SavedCheckpoint(step, where, datetime.now(UTC))

    with asked_to_end() as asked:
        callback = CheckpointCallback(
            settings.keep, lambda: check_attempt(context.run.stage(name)), saved, asked, seconds_until(folder)
        )
        saving.callbacks = [callback]
        yield saving
    if callback.ended:
        raise KeyboardInterrupt


class Progress(TrainerCallback):
    """Every line says all that is known: whoever reads the log may see the last one only."""

    def __init__(self, context: Context, name: str, saving: Saving) -> None:
        self.context, self.name, self.saving = context, name, saving
        self.shown: dict[str, float] = {}
        self.lost = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self.lost += (logs or {}).get("rollout/lost", 0.0)
        if logs and state.global_step % PROGRESS_EVERY == 0:
            self.shown |= {name: logs[key] for key, name in _SHOWN.items() if key in logs}
            self.shown |= {"lost": self.lost} if self.lost else {}
            self._say(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._say(state)

    def _say(self, state: Any) -> None:
        self.context.progress(
            self.name, state.global_step, self._total(state), checkpoint=self.saving.newest, figures=self.shown
        )

    def _total(self, state: Any) -> int | None:
        """Steps to do: where tokens end the training as many as those before would take, None where time does."""
        if state.max_steps < LONGER_THAN_ANY_BUDGET:
            return int(state.max_steps)
        limit, seen = self.saving.tokens, state.num_input_tokens_seen
        return max(state.global_step, round(state.global_step * limit / seen)) if limit and seen else None
