"""A stage's last words: one line of JSON, short enough for Kubernetes, whatever happened."""

import json
from pathlib import Path
from typing import Any

import pytest

from thinkimg.api.pod_contract import MOST_BYTES, VERSION, ResultRow, TerminationMessage
from thinkimg.errors import UserError
from thinkimg.jobs.termination import last_words
from thinkimg.results import ModelFigures

ENTRY = ModelFigures(accuracy=2 / 3, ci95=(0.5, 0.8), tool_calls_per_answer=1.23456)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THINKIMG_TERMINATION_LOG", str(tmp_path / "message"))
    return tmp_path / "message"


def said(file: Path) -> dict[str, Any]:
    (line,) = file.read_text().splitlines()
    assert len(line.encode()) < MOST_BYTES
    words: dict[str, Any] = json.loads(line)
    assert words.pop("seconds") >= 0
    assert words.pop("contract") == VERSION
    return words


def test_figures_are_strings(file: Path) -> None:
    with last_words("table") as words:
        words.models = {"sft": ENTRY}
    row = {"model": "sft", "accuracy": "0.667", "ci95": ["0.500", "0.800"], "toolCallsPerAnswer": "1.23"}
    assert said(file) == {"stage": "table", "state": "Succeeded", "results": [row]}


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "Interrupted"), (UserError("too weak", "sft.gate"), "Failed")]
)
def test_a_stage_that_does_not_finish_says_why(file: Path, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), last_words("sft"):
        raise error
    words = said(file)
    assert (words["stage"], words["state"], words.get("message", "")) == ("sft", state, str(error))


def test_only_rank_0_speaks_and_only_if_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with last_words("sft", rank=1):
        pass
    monkeypatch.delenv("THINKIMG_TERMINATION_LOG")
    with last_words("sft"):
        pass
    assert not file.exists()


def test_it_is_never_too_long() -> None:
    row = {"accuracy": "0.667", "ci95": ["0.500", "0.800"], "tool_calls_per_answer": "1.23"}
    many = [ResultRow(model=f"m{number:015}", **row) for number in range(100)]
    rows = json.loads(TerminationMessage("table", "Succeeded", 1.0, results=many).format())["results"]
    assert len(rows) == 20
    assert len(TerminationMessage("table", "Failed", 1.0, "😀" * 10_000, many).format().encode()) <= MOST_BYTES
