"""The contract between operator and stage: what one side writes the other reads; versions that do not fit say so."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from thinkimg_operator.toolrljob.attempts import last_words
from thinkimg_operator.toolrljob.progress import read_checkpoint, read_progress, read_results

from thinkimg.api import pod_contract
from thinkimg.api.pod_contract import (
    UNDERSTOOD,
    VERSION,
    ProgressLine,
    ResultRow,
    SavedCheckpoint,
    TerminationMessage,
    Variable,
    misunderstanding,
    progress_lines,
)
from thinkimg.errors import UserError
from thinkimg.jobs.environment import check_contract

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
ROW = ResultRow(model="v-toolrl", accuracy="0.778", ci95=["0.700", "0.850"], tool_calls_per_answer="1.40")
BEFORE_VERSIONS = (
    '{"stage": "table", "state": "Succeeded", "seconds": 12.5, "results": [{"model": "v-toolrl", '
    '"accuracy": "0.778", "ci95": ["0.700", "0.850"], "toolCallsPerAnswer": "1.40"}]}\n'
)
"""As stages wrote it before the contract had a version."""


@pytest.mark.parametrize(
    "line",
    [
        ProgressLine("sft", message="going on from checkpoint-60"),
        ProgressLine("sft", 60, 300, "all is well", SavedCheckpoint(50, "runs/x/checkpoint-50", NOON), {"loss": 0.31}),
        ProgressLine("sft", 0, 300, checkpoint=SavedCheckpoint(50, "runs/x/checkpoint-50")),
    ],
)
def test_a_progress_line_is_read_as_it_was_written(line: ProgressLine) -> None:
    assert "\n" not in line.format()
    assert ProgressLine.parse(line.format()) == line


@pytest.mark.parametrize("text", ["", "loading", "{", "[]", '"sft"', '{"step": 3}', '{"stage": 5, "step": 3}'])
def test_what_is_no_progress_line_is_not_taken_for_one(text: str) -> None:
    assert ProgressLine.parse(text) is None


@pytest.mark.parametrize(
    "members",
    [
        {"step": -1, "total_steps": True, "message": 3, "checkpoint": "checkpoint-50", "loss": "0.3"},
        {"step": 1.5, "total_steps": None, "checkpoint": {"step": 50}, "loss": None},
        {"step": "1", "checkpoint": {"step": 50, "path": "x", "time": "noon"}, "loss": float("nan")},
    ],
)
def test_members_of_a_line_that_are_not_as_expected_are_left_out(members: dict[str, Any]) -> None:
    assert ProgressLine.parse(json.dumps({"stage": "sft", **members})) == ProgressLine("sft")


def test_the_newest_line_of_the_stage_is_what_the_operator_shows() -> None:
    saved = SavedCheckpoint(50, "runs/x/checkpoint-50", NOON)
    log = [
        ProgressLine("sft", 10, 300).format(),
        ProgressLine("sft", 60, 300, checkpoint=saved, figures={"loss": 0.31}).format(),
        ProgressLine("sft", message="saving").format(),
        ProgressLine("another", 70, 300).format(),
        "a library's last words",
    ]
    line = next(progress_lines("\n".join(log), "sft"))
    progress, checkpoint = read_progress(line, None, NOON), read_checkpoint(line)
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.observed_time) == (60, 300, NOON)
    assert [(metric.name, metric.value) for metric in progress.metrics] == [("loss", "0.31")]
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.path, checkpoint.time) == (50, "runs/x/checkpoint-50", NOON)


def test_a_termination_message_is_read_as_it_was_written() -> None:
    words = TerminationMessage("table", "Failed", 12.5, "the gate is closed", (ROW,))
    assert TerminationMessage.parse(f"a log\nbefore it\n{words.format()}") == words
    assert last_words(words.format()) == "the gate is closed"
    (row,) = read_results(words.format())
    assert row.model_dump(by_alias=True) == ROW.model_dump(by_alias=True)


@pytest.mark.parametrize("text", ["", "Traceback", "{", "[]", '"words"'])
def test_a_log_that_is_no_message_is_not_repeated(text: str) -> None:
    assert TerminationMessage.parse(text) is None
    assert last_words(f"first\n{text}\n") == ""
    assert read_results(text) == []


def test_rows_that_are_none_are_left_out() -> None:
    rows = [3, {"model": "sft"}, {"model": "sft", "accuracy": 0.5}, ROW.model_dump(by_alias=True)]
    assert [row.model for row in read_results(json.dumps({"stage": "table", "results": rows}))] == ["v-toolrl"]


# ---- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, "", *UNDERSTOOD, *map(str, UNDERSTOOD)])
def test_known_versions_and_none_at_all_are_understood(version: object) -> None:
    """None at all: an operator or an image of the time before versions."""
    assert misunderstanding("one", "the other", version) == ""


def test_a_stage_of_the_time_before_versions_is_read() -> None:
    (row,) = read_results(BEFORE_VERSIONS)
    assert (row.model, row.tool_calls_per_answer) == ("v-toolrl", "1.40")


@pytest.mark.parametrize("version", [str(VERSION + 1), "two", " "])
def test_a_stage_refuses_an_operator_that_it_does_not_understand(version: str) -> None:
    with pytest.raises(UserError) as caught:
        check_contract({Variable.CONTRACT: version})
    assert str(caught.value) == (
        f"THINKIMG_CONTRACT: the operator speaks version {version} of the contract between operator and stages, and "
        f"this image understands version {VERSION}. Use an image and an operator of the same release: correct "
        "spec.image, or install the operator's chart in the version of the image."
    )
    check_contract({Variable.CONTRACT: str(VERSION)})
    check_contract({})


def test_an_operator_that_does_not_understand_a_stage_says_so_and_takes_no_figures() -> None:
    newer = TerminationMessage("table", "Failed", 1.0, "it broke", (ROW,), contract=VERSION + 1).format()
    assert read_results(newer) == []
    said = last_words(newer)
    assert said.startswith(f"it broke; the stage's image speaks version {VERSION + 1} of the contract between")
    assert f"this operator understands version {VERSION}. Use an image and an operator of the same release" in said


def test_a_program_of_a_later_version_need_not_understand_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that says nothing speaks 1, and so does an image that says nothing."""
    monkeypatch.setattr(pod_contract, "UNDERSTOOD", frozenset({2, 3}))
    with pytest.raises(UserError, match=r"speaks version 1 of the contract .* understands version 2 and 3"):
        check_contract({})
    assert read_results(BEFORE_VERSIONS) == []
    assert "the stage's image speaks version 1" in last_words(BEFORE_VERSIONS)
