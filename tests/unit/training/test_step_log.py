"""What a step's log line says, and when the alarm is raised."""

import logging

import pytest

from thinkimg.errors import InfrastructureError
from thinkimg.message import ToolResultBlock
from thinkimg.training.step_log import CollapseAlarm, StepRecord
from thinkimg.trajectory import Trajectory


def with_calls(*names: str, error: str | None = None, correct: bool | None = None, **meta) -> Trajectory:
    trajectory = Trajectory(question="?", correct=correct, meta=meta)
    for name in names:
        trajectory.add("tool", ToolResultBlock(call_id="1", name=name, text="", error=error))
    return trajectory


def test_a_record_counts_tools_chains_errors_and_masks() -> None:
    record = StepRecord()
    record.add(with_calls("ZoominSubplot", "OCR", correct=True), 1.0, None)
    record.add(with_calls("OCR", error="bad_arguments", correct=False, malformed=2), 0.5, None)
    record.add(with_calls("OCR", attempt=2), None, "infrastructure")
    other = StepRecord(refilled=1)
    other.add(with_calls(correct=False), 0.0, None)
    record.merge(other)
    line = record.as_json()
    assert line["reward"] == 0.5
    assert line["accuracy"] == round(1 / 3, 5)
    assert line["tool_calls"] == 1.0
    assert line["tools"] == {"OCR": round(2 / 3, 4), "ZoominSubplot": round(1 / 3, 4)}
    assert line["chains"] == {name: round(1 / 3, 4) for name in ("ZoominSubplot>OCR", "OCR", "none")}
    assert line["errors"] == {"bad_arguments": 1, "malformed_call": 2}
    assert line["masked"] == 1
    assert line["masked_by"] == {"infrastructure": 1}
    assert line["resampled"] == 2
    assert line["lost"] == 1
    assert line["refilled"] == 1


def test_a_step_of_remnants_is_an_infrastructure_failure() -> None:
    record = StepRecord()
    for reason in (None, "infrastructure"):
        record.add(with_calls(correct=True), 1.0, reason)
    record.refuse_remnants(3)
    record.add(with_calls(), None, "reward")
    with pytest.raises(InfrastructureError, match="2 of 3 trajectories of step 3 were lost to the infrastructure"):
        record.refuse_remnants(3)


def test_an_empty_record_has_a_line() -> None:
    line = StepRecord().as_json()
    assert line["reward"] == 0
    assert line["accuracy"] is None


def test_the_alarm_is_raised_once_when_tools_fall_out_of_use(caplog) -> None:
    alarm = CollapseAlarm(0.3, steps=2)
    with caplog.at_level(logging.WARNING):
        raised = [alarm.observe(step, rate) for step, rate in enumerate([2.0, 2.0, 1.0, 0.5, 0.3, 0.1, 0.0])]
    assert raised == [False, False, False, False, True, False, False]
    assert caplog.text.count("collapses") == 1


def test_a_run_without_tools_raises_no_alarm() -> None:
    alarm = CollapseAlarm(0.3, steps=2)
    assert not any(alarm.observe(step, 0.0) for step in range(10))
