"""Objects of another version: read without what we do not know, and written back with it."""

from typing import Any

import pytest
from pydantic import ValidationError

from thinkimg.api import ToolRLJobStatus, VisionTool, read_stored, unknown_fields, with_unknown

TOOL = {
    "metadata": {"name": "ocr"},
    "spec": {"tool": "OCR", "telemetry": "Basic", "batching": {"maxSize": 3, "order": 1}},
}
STATUS: dict[str, Any] = {
    "gpuSeconds": 5,
    "stages": [
        {"name": "base", "state": "Succeeded", "gpuSeconds": 2},
        {"name": "sft", "state": "Running", "attempt": 1, "progress": {"step": 3, "eta": "2h"}},
    ],
    "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "severity": "Info"}],
}


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    tool = read_stored(VisionTool, TOOL)
    assert tool.spec.batching.max_size == 3
    assert list(unknown_fields(VisionTool, TOOL)) == ["spec.telemetry", "spec.batching.order"]
    status = read_stored(ToolRLJobStatus, STATUS)
    assert [stage.name for stage in status.stages] == ["base", "sft"]
    assert list(unknown_fields(ToolRLJobStatus, STATUS)) == [
        "gpuSeconds",
        "stages[0].gpuSeconds",
        "stages[1].progress.eta",
        "conditions[0].severity",
    ]


def test_what_people_write_is_read_strictly() -> None:
    with pytest.raises(ValidationError):
        VisionTool.model_validate(TOOL, by_alias=True, by_name=False)


def test_a_value_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValidationError):
        read_stored(ToolRLJobStatus, {"stages": [{"name": "sft", "state": "Migrating"}]})


def test_what_is_written_has_the_unknown_fields_of_what_is_stored_and_our_values_of_the_others() -> None:
    ours = {
        "restarts": 1,
        "stages": [
            {"name": "sft", "state": "Restarting", "attempt": 2, "progress": {"step": 4}},
            {"name": "base", "state": "Succeeded"},
        ],
        "conditions": [],
    }
    assert with_unknown(ToolRLJobStatus, STATUS, ours) == {
        "restarts": 1,
        "gpuSeconds": 5,
        "stages": [
            {"name": "sft", "state": "Restarting", "attempt": 2, "progress": {"step": 4, "eta": "2h"}},
            {"name": "base", "state": "Succeeded", "gpuSeconds": 2},
        ],
        "conditions": [],
    }
    assert with_unknown(ToolRLJobStatus, {}, ours) == ours


def test_writing_back_what_was_read_changes_nothing() -> None:
    read = read_stored(ToolRLJobStatus, STATUS).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert with_unknown(ToolRLJobStatus, STATUS, read) == STATUS
