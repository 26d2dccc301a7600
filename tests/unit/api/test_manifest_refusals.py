"""Every refusal of a manifest, with the place it names and what it says."""

from __future__ import annotations

import pytest

from tests.support.api.manifest_examples import JOB, TOOL, Change, changed, refusals, setting
from tests.support.api.manifest_refusals import JOB_REFUSALS, TOOL_REFUSALS


@pytest.mark.parametrize(
    ("change", "said"), [case[1:] for case in JOB_REFUSALS], ids=[case[0] for case in JOB_REFUSALS]
)
def test_a_job_is_refused_for(change: Change, said: str) -> None:
    assert_said(refusals(changed(JOB, change)), said)


@pytest.mark.parametrize(
    ("change", "said"), [case[1:] for case in TOOL_REFUSALS], ids=[case[0] for case in TOOL_REFUSALS]
)
def test_a_tool_is_refused_for(change: Change, said: str) -> None:
    assert_said(refusals(changed(TOOL, change)), said)


def assert_said(texts: list[str], said: str) -> None:
    assert any(text.startswith(said) for text in texts), texts


def test_all_problems_of_a_file_are_said_at_once() -> None:
    job = changed(JOB, setting("spec.seed", "x"), setting("spec.modle", 1), setting("spec.stages.1.sft.epoch", 1))
    tool = changed(TOOL, setting("spec.tool", "OCRR"))
    assert len(refusals(f"{tool}---\n{job}")) == 4
