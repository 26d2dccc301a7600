"""A stage's last words, which in a pod become the container's termination message."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thinkimg.api.pod_contract import ResultRow, State, TerminationMessage, Variable


@contextmanager
def last_words(stage: str, rank: int = 0) -> Iterator[dict[str, Any]]:
    """Write the message when the block ends, however it ends. The block fills the record that it is given: `models`,
    as in `results.json`, becomes the rows of the table."""
    began = time.monotonic()
    record: dict[str, Any] = {}
    state: State = "Failed"
    reason = ""
    try:
        yield record
        state = "Succeeded"
    except KeyboardInterrupt:
        state = "Interrupted"
        raise
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        path = os.environ.get(Variable.TERMINATION_LOG)
        if path and rank == 0:
            seconds = round(time.monotonic() - began, 1)
            rows = [_row(name, entry) for name, entry in record.get("models", {}).items()]
            words = TerminationMessage(stage, state, seconds, reason, rows)
            Path(path).write_text(words.format(), encoding="utf-8")


def _row(model: str, entry: Mapping[str, Any]) -> ResultRow:
    return ResultRow(
        model=model,
        accuracy=f"{entry['accuracy'] or 0:.3f}",
        ci95=[f"{value:.3f}" for value in entry["ci95"]],
        tool_calls_per_answer=f"{entry['tool_calls_per_answer']:.2f}",
    )
