"""A stage's last words: one line of JSON in the file that THINKIMG_TERMINATION_LOG names, which in a pod becomes the
container's termination message."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "THINKIMG_TERMINATION_LOG"
MOST_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
MOST_ROWS = 20


@contextmanager
def last_words(stage: str, rank: int = 0) -> Iterator[dict[str, Any]]:
    """Write the message when the block ends, however it ends. The block fills the record that it is given: `models`,
    as in `results.json`, becomes the rows of the table."""
    began = time.monotonic()
    record: dict[str, Any] = {}
    state, reason = "Failed", ""
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
        path = os.environ.get(VARIABLE)
        if path and rank == 0:
            seconds = round(time.monotonic() - began, 1)
            Path(path).write_text(message(stage, state, seconds, record.get("models", {}), reason), encoding="utf-8")


def message(stage: str, state: str, seconds: float, models: Mapping[str, Any], reason: str = "") -> str:
    """One line of at most 4,096 bytes. Figures of the table are strings, as the API server wants them."""
    record: dict[str, Any] = {"stage": stage, "state": state, "seconds": seconds}
    if reason:
        record["message"] = reason[:300]  # at most 3,600 bytes, were every character escaped
    rows = [_row(name, entry) for name, entry in models.items()][:MOST_ROWS]
    if rows:
        record["results"] = rows
    while len(line := json.dumps(record) + "\n") > MOST_BYTES:
        record["results"] = record["results"][:-1]
    return line


def _row(model: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "accuracy": f"{entry['accuracy'] or 0:.3f}",
        "ci95": [f"{value:.3f}" for value in entry["ci95"]],
        "toolCallsPerAnswer": f"{entry['tool_calls_per_answer']:.2f}",
    }
