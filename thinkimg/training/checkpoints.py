"""Checkpoints that a later attempt can trust: marked complete once every rank has written its part, checked before they
are begun, and one more when the process is asked to end.

The files are those of transformers' trainer (`checkpoint-STEP/`); here is only what it leaves open: it writes in place
and deletes old ones before the new one is whole.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

_MARK = "complete.json"


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a trainer's output folder, oldest first."""
    return sorted((mark.parent for mark in folder.glob(f"checkpoint-*/{_MARK}")), key=_step)


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
    """

    def __init__(
        self,
        keep: int,
        may_save: Callable[[], None] = lambda: None,
        saved: Callable[[int, Path], None] = lambda step, folder: None,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.keep, self.may_save, self.saved, self.asked = keep, may_save, saved, asked
        self.ended = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.ended = _on_any_rank(self.asked())
        if self.ended:
            control.should_save = control.should_training_stop = True
        if control.should_save:
            self.may_save()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every rank has written its part
        if state.is_world_process_zero:
            _mark_complete(folder, state.global_step)
            remove_checkpoints(folder.parent, keep=self.keep)
            self.saved(state.global_step, folder)


def _on_any_rank(flag: bool) -> bool:
    if not torch.distributed.is_initialized():
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return bool(shared)


def _mark_complete(folder: Path, step: int) -> None:
    """After everything in the folder is on the disk: a mark that outlives a crash must not outlive the files."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    partial = folder / f"{_MARK}.partial"
    partial.write_text(json.dumps({"step": step}) + "\n")
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
