"""A stage's last words, which in a pod become the container's termination message."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from thinkimg.api.pod_contract import ResultRow, State, TerminationMessage, Variable
from thinkimg.errors import ThinkImgError, full_disk
from thinkimg.results import ModelFigures


@dataclass
class LastWords:
    """What the stage adds to its message: the models that it evaluated become the rows of the table."""

    models: Mapping[str, ModelFigures] = field(default_factory=dict)


@contextmanager
def last_words(stage: str, rank: int = 0) -> Iterator[LastWords]:
    """Write the message when the block ends, however it ends. The block fills in what it is given."""
    began = time.monotonic()
    words = LastWords()
    state: State = "Failed"
    reason = ""
    try:
        yield words
        state = "Succeeded"
    except KeyboardInterrupt:
        state = "Interrupted"
        raise
    except BaseException as error:
        full = full_disk(error)
        reason = str(full or error) or type(error).__name__
        if full is not None:
            raise full from error
        raise
    finally:
        if rank == 0:
            seconds = round(time.monotonic() - began, 1)
            rows = [_row(name, figures) for name, figures in words.models.items()]
            _leave(TerminationMessage(stage, state, seconds, reason, rows))


@contextmanager
def told_before(stage: str) -> Iterator[None]:
    """Write the message for what is refused before the stage begins; of the end of a log nothing is repeated."""
    try:
        yield
    except ThinkImgError as error:
        _leave(TerminationMessage(stage, "Failed", 0.0, str(error), []))
        raise


def _leave(message: TerminationMessage) -> None:
    if path := os.environ.get(Variable.TERMINATION_LOG):
        Path(path).write_text(message.format(), encoding="utf-8")


def _row(model: str, figures: ModelFigures) -> ResultRow:
    return ResultRow(
        model=model,
        accuracy="" if figures.bounds else f"{figures.accuracy or 0:.3f}",
        ci95=[f"{value:.3f}" for value in figures.bounds or figures.ci95 or ()],
        tool_calls_per_answer=f"{figures.tool_calls_per_answer or 0:.2f}",
    )
