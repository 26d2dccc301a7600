"""Room for what the stages will write: their models, and the checkpoints of the largest of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkimg.api import Stage
from thinkimg.figures import size
from thinkimg.jobs.preflight.findings import Finding, Plan
from thinkimg.jobs.preflight.models import Known

_WEIGHT = 2
"""Bytes of a saved weight, at the least."""
_TRAINED_WEIGHT = 12
"""Bytes of a trained weight in a checkpoint: itself and Adam's two moments, in float32."""


def check_disk(plan: Plan, known: Known) -> Iterator[Finding]:
    """An estimate from below: only what surely does not fit is refused."""
    trained = [stage for _, stage in plan.stages() if stage.sft or stage.grpo]
    if not trained:
        return
    models = len(trained) * _WEIGHT * _parameters(known.skeleton)
    checkpoints = max(_checkpoint(stage, known.skeleton) for stage in trained) * (plan.job.spec.checkpoint.keep + 1)
    needed, free = models + checkpoints, shutil.disk_usage(_there(plan.run)).free
    if needed > free:
        message = (
            f"{size(needed)} are needed in {plan.run} ({size(models)} for {len(trained)} models, "
            f"{size(checkpoints)} for checkpoints), {size(free)} are free"
        )
        remedy = "Make room, name another folder with --run, or keep fewer checkpoints (spec.checkpoint.keep)."
        yield plan.found(("spec", "checkpoint", "keep"), message, remedy, passing=True)


def _checkpoint(stage: Stage, skeleton: Any) -> int:
    """Bytes of one checkpoint; of adapters hardly anything."""
    block = stage.sft or stage.grpo
    return 0 if block is None or block.lora else _TRAINED_WEIGHT * _parameters(skeleton)


def _parameters(skeleton: Any) -> int:
    return sum(parameter.numel() for parameter in skeleton.parameters())


def _there(path: Path) -> Path:
    """The folder, or the nearest above it that is there already."""
    return next(folder for folder in (path, *path.resolve().parents) if folder.is_dir())
