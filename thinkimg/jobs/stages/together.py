"""Work that the processes of a stage share, outside of training."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch

from thinkimg.errors import InfrastructureError, ThinkImgError, UserError, describe
from thinkimg.jobs.stages.context import Context

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""For the slowest process: one that ended is noticed at once, by its connection or by its failure."""


def together(context: Context, work: Callable[[], T]) -> list[T]:
    """What `work` gives in each process, by rank, in all of them. All call it at the same place.

    Raises:
        UserError, InfrastructureError: as `work` in one of the processes, in every one of them.
        RuntimeError: anything else that it raises.
    """
    if context.world_size == 1:
        return [work()]
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        failure: Exception | None = None
        given: tuple[T | None, str, str] = (None, "", "")
        try:
            given = (work(), "", "")
        except Exception as error:
            failure = error
            given = (None, *_told(error))
        everybody: list[tuple[T, str, str]] = [given] * context.world_size  # type: ignore[list-item]
        torch.distributed.all_gather_object(everybody, given, group=group)
    finally:
        torch.distributed.destroy_process_group(group)
    if failure is not None:
        raise failure
    for rank, (_, family, said) in enumerate(everybody):
        if family:
            kind = {"user": UserError, "infrastructure": InfrastructureError}.get(family, RuntimeError)
            raise kind(f"process {rank} failed: {said}")
    return [value for value, _, _ in everybody]


def _told(error: Exception) -> tuple[str, str]:
    """Whose fault it is, and what it says."""
    return (error.family, str(error)) if isinstance(error, ThinkImgError) else ("bug", describe(error))
