"""Checkpoints that a later attempt can trust: marked complete once every rank has written its part, checked before they
are begun, and one more when the process is asked to end.

The files are those of transformers' trainer (`checkpoint-STEP/`); here is only what it leaves open: it writes in place
and deletes old ones before the new one is whole.
"""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from thinkimg.errors import UserError
from thinkimg.models.saving import sync_folder

_MARK = "complete.json"


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a trainer's output folder, oldest first."""
    return sorted((mark.parent for mark in folder.glob(f"checkpoint-*/{_MARK}")), key=_step)


@dataclass(frozen=True)
class Mark:
    """What a complete checkpoint says of itself.

    Attributes:
        step: optimiser steps that it holds.
        processes: that saved it; None: it was saved by an earlier version, which did not say.
        seconds: of training until then, without what was lost and done again.
        finished: the training had come to its end.
    """

    step: int
    processes: int | None = None
    seconds: float = 0.0
    finished: bool = False


def mark_of(checkpoint: Path) -> Mark:
    """Of a checkpoint; what it does not say, as one that nobody marked says nothing, has the default."""
    mark = checkpoint / _MARK
    said = json.loads(mark.read_text() or "{}") if mark.exists() else {}
    known = {field.name for field in fields(Mark)}
    return Mark(**{"step": _step(checkpoint), **{name: value for name, value in said.items() if name in known}})


def check_processes(checkpoint: Path, processes: int) -> None:
    """Whether so many processes can go on from it. Without DeepSpeed each process has everything, so that any number
    can; with ZeRO each has its part of the optimiser's state.

    Raises:
        UserError: they cannot.
    """
    saved = mark_of(checkpoint).processes
    if saved not in (None, processes) and any(checkpoint.glob("global_step*")):
        raise UserError(
            f"{checkpoint} was saved by {saved} processes, and with ZeRO each keeps its own part: {processes} cannot "
            f"go on from it. Let nodes × procsPerNode be {saved} again, or delete {checkpoint.parent} to begin the "
            "stage anew",
            "procsPerNode",
        )


def go_on(trainer: Any, checkpoint: Path | None) -> Any:
    """Train from a checkpoint, or from the beginning. Transformers would make one more step after the last one; from a
    checkpoint of a finished training only its state is read."""
    if checkpoint is not None and mark_of(checkpoint).finished:
        trainer._run_epoch = lambda **_: setattr(trainer.control, "should_training_stop", True)
    read_cpu_optimizers()
    return trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete one."""
    return next(reversed(complete_checkpoints(folder)), None)


def remove_checkpoints(folder: Path, keep: int = 0) -> None:
    """Remove complete checkpoints, but for the `keep` newest."""
    checkpoints = complete_checkpoints(folder)
    for old in checkpoints[: len(checkpoints) - keep]:
        (old / _MARK).unlink()  # first: what is half deleted is not complete
        shutil.rmtree(old)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def read_cpu_optimizers() -> None:
    """Let torch load what transformers asks for on `cpu:0`, as it does with several processes on CPUs: torch knows the
    name `cpu` only, and would refuse the optimiser's state. Harmless where it knows more; may be called again."""
    if not any(load is _on_cpu for _, _, load in torch.serialization._package_registry):
        torch.serialization.register_package(5, lambda storage: None, _on_cpu)


def _on_cpu(storage: Any, location: str) -> Any:
    return storage if location.startswith("cpu:") else None


class CheckpointCallback(TrainerCallback):
    """Marks checkpoints complete, removes old ones, and ends the training after a last one when it is asked to;
    `ended` then says that the training is not finished.

    Args:
        keep: how many complete checkpoints stay.
        may_save: called by every rank before a checkpoint is begun; raises when this process must not save any more.
        saved: told the step and the folder of each complete checkpoint, on rank 0.
        asked: whether the training is to end now, saved.
        seconds: of training before this attempt.
    """

    def __init__(
        self,
        keep: int,
        may_save: Callable[[], None] = lambda: None,
        saved: Callable[[int, Path], None] = lambda step, folder: None,
        asked: Callable[[], bool] = lambda: False,
        seconds: float = 0.0,
    ) -> None:
        self.keep, self.may_save, self.saved, self.asked = keep, may_save, saved, asked
        self.ended = False
        self._began = time.monotonic() - seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What a checkpoint says of these may be outdated."""
        state.save_steps, state.logging_steps = args.save_steps, args.logging_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.ended = on_any_rank(self.asked())
        if self.ended:
            control.should_training_stop = True
        if control.should_training_stop:  # also where time ended it
            control.should_save = True
        if control.should_save:
            self.may_save()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every rank has written its part
        if state.is_world_process_zero:
            finished = control.should_training_stop and not self.ended
            seconds = round(time.monotonic() - self._began, 1)
            _mark_complete(folder, Mark(state.global_step, args.world_size, seconds, finished))
            remove_checkpoints(folder.parent, keep=self.keep)
            self.saved(state.global_step, folder)


def on_any_rank(flag: bool) -> bool:
    """Whether it is so in one of the processes that train together; every one of them must ask."""
    if not torch.distributed.is_initialized():
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return bool(shared)


def _mark_complete(folder: Path, mark: Mark) -> None:
    """After everything in the folder is on the disk: a mark that outlives a crash must not outlive the files."""
    sync_folder(folder)
    partial = folder / f"{_MARK}.partial"
    partial.write_text(json.dumps(asdict(mark)) + "\n")
    partial.replace(folder / _MARK)


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since the block began; in it, the first one does nothing else."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and callable(before):
            before(number, frame)
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
